"""Whether a model approves the groups of an attribute that is never scored at different rates."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.binning import OTHER
from services.history.daily import Selection
from services.history.estimates import Count, Estimate, difference, proportion, ratio
from services.history.monitoring.cohorts import APPROVED, Cohort, cohort_of, in_order, read_outcomes
from services.history.monitoring.fairness_schemas import (
    AgainstGroup,
    AttributeFairness,
    GroupFairness,
    LiveFairness,
    ModelFairness,
    Screened,
)
from services.history.monitoring.references import Rates, TrainingReference, read_references
from services.history.monitoring.schemas import estimated
from services.history.monitoring.shifts import detectable_difference
from services.history.monitoring.slices import Counts, Slices, by_decision, read_slices
from services.history.tables import MISSING, AnyRow, outcome_groups
from shared.contract.application import FIELDS, Field
from shared.contract.outcomes import BAD, GOOD

LEAST_DECISIONS: Final = 30
"""Smaller groups are suppressed: their rates say little, and may say it of a known person."""

LEAST_GOOD: Final = 30
"""Good outcomes that a group's true positive rate needs."""

LEAST_REFUSED: Final = 10
"""Refused decisions of a group that need a good or bad outcome, or its rate would always be 1."""

NOT_KNOWN: Final = "not known"

_MONITORED: Final = {field.column: field for field in FIELDS if field.use == "monitored"}


class Outcomes(NamedTuple):
    """The decisions of a group whose outcome is known to be good or bad."""

    approved_good: int = 0
    approved_bad: int = 0
    refused_good: int = 0
    refused_bad: int = 0

    def and_(self, approved: bool, good: bool, more: int) -> "Outcomes":
        """With more of one kind."""
        name = f"{'approved' if approved else 'refused'}_{'good' if good else 'bad'}"
        return self._replace(**{name: getattr(self, name) + more})

    @property
    def good(self) -> int:
        """Those with a good outcome."""
        return self.approved_good + self.refused_good

    @property
    def refused(self) -> int:
        """Those that were refused."""
        return self.refused_good + self.refused_bad


GroupOutcomes: TypeAlias = Mapping[tuple[str, str], Outcomes]
"""By the attribute's column and the group."""


class _Group(NamedTuple):
    name: str
    selected: Count
    outcomes: Outcomes

    @property
    def true_positives(self) -> Count | None:
        """None where the outcomes do not suffice."""
        outcomes = self.outcomes
        if outcomes.good < LEAST_GOOD or outcomes.refused < LEAST_REFUSED:
            return None
        return Count(outcomes.approved_good, outcomes.good)


async def read_fairness(
    connection: AsyncConnection, selection: Selection, *, screen: float, monthly: bool = False
) -> LiveFairness:
    """The rates of groups of each model of each bundle that has decided in that time."""
    cohorts = await read_slices(connection, selection, monthly=monthly)
    references = await read_references(connection, {each.bundle for each in cohorts})
    table = outcome_groups.c
    outcomes = _by_cohort(
        await read_outcomes(
            connection,
            outcome_groups,
            selection,
            table.attribute,
            table.value,
            monthly=monthly,
            where=table.attribute.in_(_MONITORED),
        )
    )
    return LiveFairness(
        least_decisions=LEAST_DECISIONS,
        least_good=LEAST_GOOD,
        screen=screen,
        models=[
            fairness_of(
                cohort,
                cohorts[cohort],
                outcomes.get(cohort, {}),
                references.get(cohort.bundle),
                screen=screen,
            )
            for cohort in in_order(cohorts)
        ],
    )


def _by_cohort(rows: Iterable[AnyRow]) -> Mapping[Cohort, GroupOutcomes]:
    found: defaultdict[Cohort, dict[tuple[str, str], Outcomes]] = defaultdict(dict)
    for row in rows:
        if row.outcome in GOOD | BAD:
            field = _MONITORED[row.attribute]
            key = (row.attribute, _group_of(field, row.value))
            groups = found[cohort_of(row)]
            groups[key] = groups.get(key, Outcomes()).and_(
                row.prediction == APPROVED, row.outcome in GOOD, row.outcomes
            )
    return found


def fairness_of(
    cohort: Cohort,
    slices: Slices,
    outcomes: GroupOutcomes,
    reference: TrainingReference | None,
    *,
    screen: float,
) -> ModelFairness:
    """The rates of each attribute's groups in one cohort."""
    decided = by_decision(slices)
    rates = reference.rates.get(cohort.model, {}) if reference else {}
    return ModelFairness(
        model=cohort.model,
        bundle=cohort.bundle,
        month=cohort.month_text,
        decisions=sum(counts.decisions for counts in decided.values()),
        on_whom=_on_whom(outcomes),
        attributes=[
            _attribute(field.name, groups, rates.get(field.name), screen)
            for field in _MONITORED.values()
            if (groups := _groups(field, decided, outcomes))
        ],
    )


def _group_of(field: Field, value: str) -> str:
    if value == MISSING:
        return NOT_KNOWN
    return value if value in map(str, field.allowed) else OTHER


def _groups(field: Field, decided: Mapping[bool, Counts], outcomes: GroupOutcomes) -> list[_Group]:
    names = (*map(str, field.allowed), OTHER, NOT_KNOWN)
    approved, refused = (
        counts if len(counts) == len(names) else (0,) * len(names)
        for of in (True, False)
        for counts in [decided[of].histograms.get(field.column, ())]
    )
    return [
        _Group(name, Count(yes, yes + no), outcomes.get((field.column, name), Outcomes()))
        for name, yes, no in zip(names, approved, refused, strict=True)
        if yes + no
    ]


def _attribute(
    name: str, groups: Sequence[_Group], rates: Rates | None, screen: float
) -> AttributeFairness:
    shown = [group for group in groups if group.selected.of >= LEAST_DECISIONS]
    stated = [group for group in shown if group.name not in {NOT_KNOWN, OTHER}]
    largest = max(stated, key=lambda group: group.selected.of, default=None)
    found = [_group(group, largest, rates, screen) for group in shown]
    not_stated = sum(group.selected.of for group in groups if group.name == NOT_KNOWN)
    return AttributeFairness(
        attribute=name,
        not_stated=estimated(proportion(not_stated, sum(group.selected.of for group in groups))),
        largest=largest.name if largest else None,
        groups=found,
        suppressed=[group.name for group in groups if group not in shown],
        conclusion=_conclusion(name, found, largest, screen),
    )


def _group(
    group: _Group, largest: _Group | None, rates: Rates | None, screen: float
) -> GroupFairness:
    true_positives = group.true_positives
    return GroupFairness(
        group=group.name,
        decisions=group.selected.of,
        selection_rate=estimated(proportion(*group.selected)),
        selection_rate_out_of_fold=rates.selection_rates.get(group.name) if rates else None,
        good=group.outcomes.good,
        true_positive_rate=estimated(proportion(*true_positives)) if true_positives else None,
        true_positive_rate_out_of_fold=(
            rates.true_positive_rates.get(group.name) if rates else None
        ),
        against_largest=_against(group, largest, screen)
        if largest and group is not largest
        else None,
    )


def _against(group: _Group, largest: _Group, screen: float) -> AgainstGroup:
    one, other = group.selected, largest.selected
    compared = ratio(one, other)
    ours, theirs = group.true_positives, largest.true_positives
    return AgainstGroup(
        ratio=estimated(compared) if compared else None,
        difference=estimated(difference(one, other)),
        screen=_screened(compared, screen) if compared else None,
        detectable=detectable_difference(
            (one.hits + other.hits) / (one.of + other.of), one.of, other.of
        ),
        true_positive_gap=estimated(difference(ours, theirs)) if ours and theirs else None,
    )


def _screened(found: Estimate, screen: float) -> Screened:
    if screen <= found.low and found.high <= 1 / screen:
        return "inside"
    if found.high < screen or found.low > 1 / screen:
        return "outside"
    return "undecided"


def _conclusion(
    name: str, groups: Sequence[GroupFairness], largest: _Group | None, screen: float
) -> str:
    compared = [(group, against) for group in groups if (against := group.against_largest)]
    if largest is None or not compared:
        return f"{name}: no two groups of {LEAST_DECISIONS} decisions or more to compare."
    if not largest.selected.hits:
        return f"{name}: nobody of the largest group, {largest.name}, is approved."
    sentences = [
        f"applicants {_who(group.group)} are approved {against.ratio.value:.2f} times as often as"
        f" those {_who(largest.name)}"
        f" (95 % interval {against.ratio.low:.2f} to {against.ratio.high:.2f}):"
        f" {_SAID[against.screen]} the screen of {screen:g}"
        for group, against in compared
        if against.ratio and against.screen
    ]
    return f"{name}: {'; '.join(sentences)}."


def _who(group: str) -> str:
    return "who did not say" if group == NOT_KNOWN else f"with {group}"


_SAID: Final[Mapping[Screened, str]] = {
    "inside": "inside",
    "outside": "outside",
    "undecided": "too few decisions to say on which side of",
}


def _on_whom(outcomes: GroupOutcomes) -> str:
    one = next(iter(_MONITORED))
    known = [found for (column, _), found in outcomes.items() if column == one]
    good, refused = sum(found.good for found in known), sum(found.refused for found in known)
    return (
        f"True positive rates are of {good:,} decisions with a good outcome. Outcomes are known of"
        f" {refused:,} refused decisions; the others might change the rates."
    )

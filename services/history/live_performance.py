"""Whether the models were right: figures from the roll-ups of outcomes, at a cost that is flat.

Brier is below its exact value by at most 2.5e-7, for a bin has its mean probability but not its
spread; log-loss and accuracy are exact; the AUC says by how much ties may have moved it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from math import fsum
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Table, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.bundles import read_cross_validated
from services.history.daily import By, Decided, read_totals
from services.history.estimates import (
    Estimate,
    Pairs,
    RankedCounts,
    auc,
    auc_error,
    mean,
    mean_of_two,
    paired_difference,
    proportion,
)
from services.history.monitoring_schemas import (
    MOST_MONTHS,
    AgainstRule,
    CalibrationBin,
    CohortQuery,
    CrossValidated,
    Estimated,
    Figures,
    Labelled,
    LivePerformance,
    ModelPerformance,
    PerformanceQuery,
    Vintage,
    VintagePoint,
    Vintages,
    first_day,
)
from services.history.outcome_rollups import BILLION, RULE_INPUT, month_of, months_between
from services.history.tables import (
    PROBABILITY_BINS,
    AnyRow,
    outcome_bins,
    outcome_groups,
    outcome_vintages,
)
from shared.contract.outcomes import BAD, GOOD

LEAST_OUTCOMES: Final = 100
"""Below it an interval of the accuracy is up to 20 points wide."""
LEAST_OF_EACH: Final = 10

CALIBRATION_BINS: Final = 10
_APPROVED: Final = "Approved"


class _Cohort(NamedTuple):
    month: date | None
    model: str
    bundle: str


class _Bin(NamedTuple):
    """Outcomes of one bin that are all good or all bad."""

    outcomes: int
    probability: int
    """The sum of the probabilities of approval, in billionths as in the roll-up."""
    log_loss: int

    def and_(self, other: "_Bin") -> "_Bin":
        """Both together."""
        return _Bin(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))


_EMPTY: Final = _Bin(0, 0, 0)


@dataclass
class _Known:
    """What the roll-ups hold of one cohort."""

    kinds: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    bins: dict[tuple[int, bool], _Bin] = field(default_factory=lambda: defaultdict(lambda: _EMPTY))
    """By bin, and whether the outcome is good."""
    right: dict[tuple[bool, bool], int] = field(default_factory=lambda: defaultdict(int))
    """By whether it was approved, and whether the outcome is good."""
    by_rule: dict[tuple[bool, bool, bool], int] = field(default_factory=lambda: defaultdict(int))
    """By both and whether the rule approves."""
    decisions: dict[bool, int] = field(default_factory=lambda: defaultdict(int))
    """By whether they were approved."""


async def read_performance(connection: AsyncConnection, query: PerformanceQuery) -> LivePerformance:
    """The live performance of each model of each bundle that has decided in that time."""
    monthly = query.by == "month"
    if monthly:
        first = _months_before(query.until, MOST_MONTHS)
        query = query.model_copy(update={"since": max(first, query.since or first)})
    bins = await _read(connection, outcome_bins, query, monthly, outcome_bins.c.bin)
    groups = await _read(
        connection,
        outcome_groups,
        query,
        monthly,
        outcome_groups.c.value,
        outcome_groups.c.attribute == RULE_INPUT,
    )
    decisions = await _read_decisions(connection, query, monthly)
    cross_validated = await read_cross_validated(
        connection, {row.bundle_version for row in decisions}
    )
    models = await asyncio.to_thread(_models, bins, groups, decisions, cross_validated)
    return LivePerformance(
        least_outcomes=LEAST_OUTCOMES, least_of_each=LEAST_OF_EACH, models=models
    )


async def read_vintages(connection: AsyncConnection, query: CohortQuery) -> Vintages:
    """The vintages of the months in which anything was approved, the newest first."""
    table = outcome_vintages.c
    statement = (
        select(table.month, table.months_on_book, table.outcome, _total(table.outcomes).label("n"))
        .where(table.prediction == _APPROVED, *_conditions(outcome_vintages, query))
        .group_by(table.month, table.months_on_book, table.outcome)
    )
    by_month: defaultdict[date, list[AnyRow]] = defaultdict(list)
    for row in await connection.execute(statement):
        by_month[row.month].append(row)
    approved: defaultdict[date, int] = defaultdict(int)
    for row in await _read_decisions(connection, query, monthly=True):
        if row.prediction == _APPROVED:
            approved[row.month] += row.predictions
    return Vintages(
        vintages=[
            _vintage(month, approved[month], by_month[month])
            for month in sorted(approved, reverse=True)
        ]
    )


def _vintage(month: date, approved: int, rows: Iterable[AnyRow]) -> Vintage:
    bad: defaultdict[int, int] = defaultdict(int)
    outcomes = 0
    for row in rows:
        outcomes += row.n
        if row.outcome in BAD:
            bad[row.months_on_book] += row.n
    age = months_between(datetime(month.year, month.month, 1, tzinfo=UTC), datetime.now(UTC))
    curve, so_far = [], 0
    for months in range(age + 1):
        so_far += bad[months]
        share = _estimated(proportion(so_far, approved))
        curve.append(VintagePoint(months_on_book=months, bad=so_far, share=share))
    return Vintage(
        month=f"{month:%Y-%m}",
        approved=approved,
        outcomes=outcomes,
        on_whom=f"Outcomes exist for {outcomes:,} of {approved:,} approved decisions; the others"
        " count as not bad yet.",
        curve=curve,
    )


def _months_before(end: str | None, months: int) -> str:
    """The month that many before ``end``, or before the one after this."""
    last = first_day(end) if end else month_of(datetime.now(UTC))
    count = last.year * 12 + last.month - 1 - months + (end is None)
    return f"{count // 12:04}-{count % 12 + 1:02}"


def _conditions(table: Table, query: CohortQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.since is not None:
        conditions.append(table.c.month >= first_day(query.since))
    if query.until is not None:
        conditions.append(table.c.month < first_day(query.until))
    if query.model is not None:
        conditions.append(table.c.model == query.model)
    if query.bundle is not None:
        conditions.append(table.c.bundle_version == query.bundle)
    return conditions


async def _read(
    connection: AsyncConnection,
    table: Table,
    query: CohortQuery,
    monthly: bool,
    detail: ColumnElement[Any],
    *conditions: ColumnElement[bool],
) -> Sequence[AnyRow]:
    """Counts by month if ``monthly``, model, bundle, decision, outcome and ``detail``."""
    columns = table.c
    keys = [columns.model, columns.bundle_version, columns.prediction, columns.outcome, detail]
    sums = [column for column in columns if column.name.endswith(("outcomes", "_sum"))]
    months = [columns.month] if monthly else []
    statement = (
        select(*months, *keys, *(_total(each).label(each.name) for each in sums))
        .where(columns.outcomes > 0, *conditions, *_conditions(table, query))
        .group_by(*months, *keys)
    )
    return (await connection.execute(statement)).all()


def _total(column: ColumnElement[int]) -> ColumnElement[int]:
    # A sum of whole numbers is a decimal otherwise, which takes longer to add up here.
    return cast(func.sum(column), BigInteger)


async def _read_decisions(
    connection: AsyncConnection,
    query: CohortQuery,
    monthly: bool,
) -> Sequence[AnyRow]:
    """How many decisions there are by month if ``monthly``, model, bundle and decision."""
    decided = Decided(
        since=first_day(query.since) if query.since else None,
        until=first_day(query.until) if query.until else None,
        model=query.model,
        bundle=query.bundle,
    )
    keys: list[By] = ["model", "bundle_version", "prediction"]
    return await read_totals(connection, decided, ["month", *keys] if monthly else keys)


def _models(
    bins: Iterable[AnyRow],
    groups: Iterable[AnyRow],
    decisions: Iterable[AnyRow],
    cross_validated: Mapping[tuple[str, str], CrossValidated],
) -> list[ModelPerformance]:
    known: defaultdict[_Cohort, _Known] = defaultdict(_Known)
    for row in decisions:
        known[_cohort(row)].decisions[row.prediction == _APPROVED] += row.predictions
    for row in bins:
        _add_bin(known[_cohort(row)], row)
    for row in groups:
        if row.outcome in GOOD | BAD:
            # As in training: missing counts like good, which most of those applicants have.
            key = (row.prediction == _APPROVED, row.outcome in GOOD, row.value != "0")
            known[_cohort(row)].by_rule[key] += row.outcomes
    order = sorted(known, key=lambda each: (each.month or date.min, each.bundle, each.model))
    return [
        _performance(cohort, known[cohort], cross_validated.get((cohort.bundle, cohort.model)))
        for cohort in order
    ]


def _cohort(row: AnyRow) -> _Cohort:
    return _Cohort(getattr(row, "month", None), row.model, row.bundle_version)


def _add_bin(known: _Known, row: AnyRow) -> None:
    count = row.outcomes
    known.kinds[row.outcome] += count
    if row.outcome not in GOOD | BAD:
        return
    good = row.outcome in GOOD
    bin_ = _Bin(row.outcomes, row.probability_sum, row.log_loss_sum)
    known.bins[row.bin, good] = known.bins[row.bin, good].and_(bin_)
    known.right[row.prediction == _APPROVED, good] += count


def _performance(
    cohort: _Cohort, known: _Known, cross_validated: CrossValidated | None
) -> ModelPerformance:
    good, bad = (
        sum(known.right[approved, of] for approved in (True, False)) for of in (True, False)
    )
    labelled = {
        approved: Labelled(
            decisions=known.decisions[approved],
            outcomes=known.right[approved, True] + known.right[approved, False],
        )
        for approved in (True, False)
    }
    not_enough = _not_enough(good, bad)
    return ModelPerformance(
        model=cohort.model,
        bundle=cohort.bundle,
        month=f"{cohort.month:%Y-%m}" if cohort.month else None,
        outcomes=known.kinds,
        good=good,
        bad=bad,
        approved=labelled[True],
        refused=labelled[False],
        on_whom=_on_whom(labelled[True], labelled[False]),
        not_enough=not_enough,
        figures=None if not_enough else _figures(known, good=good, bad=bad),
        cross_validated=cross_validated,
    )


def _not_enough(good: int, bad: int) -> str | None:
    if good + bad < LEAST_OUTCOMES:
        return f"Not enough yet: {good + bad} of {LEAST_OUTCOMES} outcomes that are good or bad."
    if min(good, bad) < LEAST_OF_EACH:
        return (
            f"Not enough yet: {good} good and {bad} bad outcomes; {LEAST_OF_EACH} of each are"
            " needed."
        )
    return None


def _on_whom(approved: Labelled, refused: Labelled) -> str:
    known = (
        f"Outcomes exist for {approved.outcomes:,} of {approved.decisions:,} approved and"
        f" {refused.outcomes:,} of {refused.decisions:,} refused decisions."
    )
    if refused.outcomes < LEAST_OF_EACH:
        return f"{known} What would have become of the refused is not known."
    return f"{known} The refused whose outcome is known need not be like the others."


def _figures(known: _Known, *, good: int, bad: int) -> Figures:
    right, outcomes = known.right, good + bad
    refused = right[False, True] + right[False, False]
    sensitivity = proportion(right[True, True], good)
    specificity = proportion(right[False, False], bad)
    counts = RankedCounts(*(_counts(known, of) for of in (True, False)))
    return Figures(
        accuracy=_estimated(proportion(right[True, True] + right[False, False], outcomes)),
        balanced_accuracy=_estimated(mean_of_two(sensitivity, specificity))
        if refused >= LEAST_OF_EACH
        else None,
        auc=_estimated(auc(counts)),
        auc_error=auc_error(counts),
        brier=_estimated(_mean(_squared_error(*each) for each in known.bins.items())),
        log_loss=_estimated(
            _mean((bin_.outcomes, bin_.log_loss / BILLION) for bin_ in known.bins.values()),
        ),
        calibration=list(_calibration(known)),
        rule=_against_rule(known),
    )


def _counts(known: _Known, good: bool) -> list[int]:
    counts = [0] * PROBABILITY_BINS
    for (number, of), bin_ in known.bins.items():
        if of is good:
            counts[number] = bin_.outcomes
    return counts


def _squared_error(key: tuple[int, bool], bin_: _Bin) -> tuple[int, float]:
    _, good = key
    probability = bin_.probability / BILLION / bin_.outcomes
    return bin_.outcomes, bin_.outcomes * (probability - good) ** 2


def _mean(bins: Iterable[tuple[int, float]]) -> Estimate:
    """The mean of a value whose count and sum are known for each bin."""
    some = list(bins)
    return mean(
        sum(count for count, _ in some),
        # Whatever order the rows come in, the sum is the same.
        fsum(total for _, total in some),
        fsum(total * total / count for count, total in some),
    )


def _calibration(known: _Known) -> Iterator[CalibrationBin]:
    wide = [_EMPTY] * CALIBRATION_BINS
    good = [0] * CALIBRATION_BINS
    for (number, is_good), bin_ in known.bins.items():
        place = number * CALIBRATION_BINS // PROBABILITY_BINS
        wide[place] = wide[place].and_(bin_)
        good[place] += bin_.outcomes if is_good else 0
    for place, bin_ in enumerate(wide):
        if bin_.outcomes:
            yield CalibrationBin(
                at_least=place / CALIBRATION_BINS,
                below=(place + 1) / CALIBRATION_BINS,
                outcomes=bin_.outcomes,
                predicted=bin_.probability / BILLION / bin_.outcomes,
                observed=_estimated(proportion(good[place], bin_.outcomes)),
            )


def _against_rule(known: _Known) -> AgainstRule | None:
    pairs: dict[tuple[bool, bool], int] = defaultdict(int)
    for (approved, good, rule_approves), count in known.by_rule.items():
        pairs[approved is good, rule_approves is good] += count
    count = sum(pairs.values())
    if count < LEAST_OUTCOMES:
        return None
    both, only_model = pairs[True, True], pairs[True, False]
    only_rule, neither = pairs[False, True], pairs[False, False]
    difference = paired_difference(Pairs(both, only_model, only_rule, neither))
    return AgainstRule(
        outcomes=count,
        model_accuracy=_estimated(proportion(both + only_model, count)),
        rule_accuracy=_estimated(proportion(both + only_rule, count)),
        difference=_estimated(difference),
        better=None if difference.low <= 0 <= difference.high else difference.value > 0,
    )


def _estimated(estimate: Estimate) -> Estimated:
    return Estimated(**estimate._asdict())

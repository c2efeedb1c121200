"""Whether the models were right: figures from the roll-ups of outcomes, at a cost that is flat.

Brier is below its exact value by at most 2.5e-7, for a bin has its mean probability but not its
spread; log-loss and accuracy are exact; the AUC says by how much ties may have moved it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import fsum
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.bundles import read_cross_validated
from services.history.daily import Selection
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
from services.history.monitoring.cohorts import (
    APPROVED,
    Cohort,
    cohort_of,
    in_order,
    read_decisions,
    read_outcomes,
)
from services.history.monitoring.conclusions import of_performance
from services.history.monitoring.expected import Decisions, Foretold, expected_of
from services.history.monitoring.schemas import (
    LEAST_OF_EACH,
    LEAST_OUTCOMES,
    AgainstRule,
    CalibrationBin,
    CrossValidated,
    Figures,
    Labelled,
    LivePerformance,
    ModelPerformance,
    estimated,
)
from services.history.outcomes.rollups import BILLION, RULE_INPUT
from services.history.tables import (
    PROBABILITY_BINS,
    AnyRow,
    outcome_bins,
    outcome_groups,
)
from shared.contract.outcomes import BAD, GOOD

CALIBRATION_BINS: Final = 10


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
    confidence: dict[bool, float] = field(default_factory=lambda: defaultdict(float))
    """The sum of the confidences of those."""


async def read_performance(
    connection: AsyncConnection, selection: Selection, *, monthly: bool = False
) -> LivePerformance:
    """The live performance of each model of each bundle that has decided in that time."""
    bins = await read_outcomes(
        connection, outcome_bins, selection, outcome_bins.c.bin, monthly=monthly
    )
    groups = await read_outcomes(
        connection,
        outcome_groups,
        selection,
        outcome_groups.c.value,
        monthly=monthly,
        where=outcome_groups.c.attribute == RULE_INPUT,
    )
    decisions = await read_decisions(connection, selection, monthly=monthly)
    cross_validated = await read_cross_validated(
        connection, {row.bundle_version for row in decisions}
    )
    models = await asyncio.to_thread(_models, bins, groups, decisions, cross_validated)
    return LivePerformance(
        least_outcomes=LEAST_OUTCOMES, least_of_each=LEAST_OF_EACH, models=models
    )


def _models(
    bins: Iterable[AnyRow],
    groups: Iterable[AnyRow],
    decisions: Iterable[AnyRow],
    cross_validated: Mapping[tuple[str, str], CrossValidated],
) -> list[ModelPerformance]:
    known: defaultdict[Cohort, _Known] = defaultdict(_Known)
    for row in decisions:
        approved = row.prediction == APPROVED
        known[cohort_of(row)].decisions[approved] += row.predictions
        # Confidences have six digits; whatever order they were added in, so does their sum.
        known[cohort_of(row)].confidence[approved] += round(row.confidence_sum, 6)
    for row in bins:
        _add_bin(known[cohort_of(row)], row)
    for row in groups:
        if row.outcome in GOOD | BAD:
            # As in training: missing counts like good, which most of those applicants have.
            key = (row.prediction == APPROVED, row.outcome in GOOD, row.value != "0")
            known[cohort_of(row)].by_rule[key] += row.outcomes
    return [
        _performance(cohort, known[cohort], cross_validated.get((cohort.bundle, cohort.model)))
        for cohort in in_order(known)
    ]


def _add_bin(known: _Known, row: AnyRow) -> None:
    count = row.outcomes
    known.kinds[row.outcome] += count
    if row.outcome not in GOOD | BAD:
        return
    good = row.outcome in GOOD
    bin_ = _Bin(row.outcomes, row.probability_sum, row.log_loss_sum)
    known.bins[row.bin, good] = known.bins[row.bin, good].and_(bin_)
    known.right[row.prediction == APPROVED, good] += count


def _performance(
    cohort: Cohort, known: _Known, cross_validated: CrossValidated | None
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
    figures = None if not_enough else _figures(known, good=good, bad=bad)
    return ModelPerformance(
        model=cohort.model,
        bundle=cohort.bundle,
        month=cohort.month_text,
        outcomes=known.kinds,
        good=good,
        bad=bad,
        approved=labelled[True],
        refused=labelled[False],
        on_whom=_on_whom(labelled[True], labelled[False]),
        not_enough=not_enough,
        figures=figures,
        conclusions=list(of_performance(figures, good + bad, cross_validated)) if figures else [],
        cross_validated=cross_validated,
        expected=expected_of(
            Decisions(known.decisions[True], known.confidence[True]),
            Decisions(known.decisions[False], known.confidence[False]),
            _foretold(known),
        ),
    )


def _foretold(known: _Known) -> Iterator[Foretold]:
    for number in {number for number, _ in known.bins}:
        good, bad = (known.bins.get((number, of), _EMPTY) for of in (True, False))
        both = good.and_(bad)
        yield Foretold(both.outcomes, good.outcomes, both.probability / BILLION)


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
        accuracy=estimated(proportion(right[True, True] + right[False, False], outcomes)),
        balanced_accuracy=estimated(mean_of_two(sensitivity, specificity))
        if refused >= LEAST_OF_EACH
        else None,
        auc=estimated(auc(counts)),
        auc_error=auc_error(counts),
        brier=estimated(_mean(_squared_error(*each) for each in known.bins.items())),
        log_loss=estimated(
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
                observed=estimated(proportion(good[place], bin_.outcomes)),
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
        model_accuracy=estimated(proportion(both + only_model, count)),
        rule_accuracy=estimated(proportion(both + only_rule, count)),
        difference=estimated(difference),
        better=None if difference.low <= 0 <= difference.high else difference.value > 0,
    )

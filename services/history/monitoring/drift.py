"""How far applications and scores are from what a bundle's models were trained on."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.binning import SCORE
from services.history.daily import Selection
from services.history.estimates import Count, difference, proportion
from services.history.monitoring.cohorts import Cohort, in_order
from services.history.monitoring.drift_schemas import (
    ApprovalShare,
    CallerShift,
    Drift,
    DriftBin,
    LiveDrift,
    MissingShare,
    ModelDrift,
    Needed,
    Shift,
)
from services.history.monitoring.references import (
    Bin,
    ReferenceBins,
    TrainingReference,
    read_references,
)
from services.history.monitoring.schemas import estimated
from services.history.monitoring.shifts import decisions_needed, detectable_psi, psi, psi_limit
from services.history.monitoring.slices import (
    Counts,
    Slices,
    by_client,
    by_decision,
    read_slices,
    total,
)
from services.history.tables import MISSING
from shared.contract.application import FIELDS

LEAST_DECISIONS: Final = 300
"""With fewer, more alarms than stated are false: the limit holds for many rows in each bin."""

_NO_SCORES: Final = "The bundle has no reference of its scores: it is an older one."

SHIFTS: Final = (0.03, 0.05, 0.1)
"""Shifts of the approval share for which it is reported how many decisions show them."""


_Counts: TypeAlias = Mapping[str, Sequence[int]]
"""Of one input or the score, by caller."""


async def read_drift(
    connection: AsyncConnection, selection: Selection, *, monthly: bool = False
) -> LiveDrift:
    """The drift of each model of each bundle that has decided in that time."""
    cohorts = await read_slices(connection, selection, monthly=monthly)
    references = await read_references(connection, {each.bundle for each in cohorts})

    def compute() -> list[ModelDrift]:
        return [
            drift_of(cohort, cohorts[cohort], references.get(cohort.bundle))
            for cohort in in_order(cohorts)
        ]

    return LiveDrift(least_decisions=LEAST_DECISIONS, models=await asyncio.to_thread(compute))


def drift_of(cohort: Cohort, slices: Slices, reference: TrainingReference | None) -> ModelDrift:
    """The drift of one cohort, that of each caller included."""
    callers = by_client(slices)
    decisions = total(callers.values()).decisions
    approval = _approval(slices, cohort, reference)
    not_compared = _not_compared(decisions, reference)
    inputs: list[Drift] = []
    score, without_inputs = None, 0
    if reference and not not_compared:
        compared = [
            (field.name, distribution, _in_bins(field.column, distribution, callers))
            for field in FIELDS
            if (distribution := reference.inputs.get(field.name))
        ]
        inputs = [drift for each in compared if (drift := _drift(*each))]
        without_inputs = max((decisions - _sum(each[2]) for each in compared), default=0)
        if scores := reference.scores.get(cohort.model):
            score = _drift(SCORE, scores, _in_bins(SCORE, scores, callers))
        if not inputs and not score:
            not_compared = "The bundle has no reference that these decisions can be compared with."
    return ModelDrift(
        model=cohort.model,
        bundle=cohort.bundle,
        month=cohort.month_text,
        decisions=decisions,
        without_inputs=without_inputs,
        conclusion=not_compared or _conclusion(inputs, score, approval, decisions),
        approval=approval,
        not_compared=not_compared,
        inputs=inputs,
        score_not_compared=not_compared or (None if score else _NO_SCORES),
        score=score,
    )


def _not_compared(decisions: int, reference: TrainingReference | None) -> str | None:
    if reference is None:
        return "The bundle is not registered, so what its models were trained on is not known."
    if decisions < LEAST_DECISIONS:
        return f"Not enough yet: {decisions} of {LEAST_DECISIONS} decisions."
    return None


def _approval(slices: Slices, cohort: Cohort, reference: TrainingReference | None) -> ApprovalShare:
    decided = by_decision(slices)
    approved = Count(decided[True].decisions, decided[True].decisions + decided[False].decisions)
    share = proportion(*approved)
    expected = reference.approved(cohort.model) if reference else None
    return ApprovalShare(
        share=estimated(share),
        reference=expected.hits / expected.of if expected else None,
        difference=estimated(difference(approved, expected)) if expected else None,
        needed=[
            Needed(shift=shift, decisions=needed, enough=needed <= approved.of)
            for shift in SHIFTS
            for needed in [decisions_needed(share.value, shift)]
        ],
    )


def _in_bins(column: str, reference: ReferenceBins, callers: Mapping[str, Counts]) -> _Counts:
    """By caller, of those whose decisions were counted in the bins of the reference."""
    return {
        client: counts
        for client, counted in callers.items()
        if len(counts := counted.histograms.get(column, ())) == len(reference.bins)
    }


def _sum(counts: _Counts) -> int:
    return sum(map(sum, counts.values()))


def _drift(name: str, reference: ReferenceBins, callers: _Counts) -> Drift | None:
    """None where too few decisions were counted in the bins of the reference."""
    if _sum(callers) < LEAST_DECISIONS:
        return None
    counts = [*map(sum, zip(*callers.values(), strict=True))]
    expected, found = reference.placed(reference.counts), reference.placed(counts)
    shifts = [
        CallerShift(client=client, **_shift(expected, reference.placed(each)).model_dump())
        for client, each in callers.items()
        if sum(each) >= LEAST_DECISIONS
    ]
    return Drift(
        name=name,
        reference_rows=sum(expected),
        detectable=detectable_psi(expected, found),
        missing=_missing(counts, reference),
        bins=_bins(reference.bins, expected, found),
        callers=sorted(shifts, key=lambda shift: (-shift.psi, shift.client)),
        **_shift(expected, found).model_dump(),
    )


def _shift(expected: Sequence[int], found: Sequence[int]) -> Shift:
    index, limit = psi(expected, found), psi_limit(expected, found)
    return Shift(decisions=sum(found), psi=index, limit=limit, alarm=index > limit)


def _missing(counts: Sequence[int], reference: ReferenceBins) -> MissingShare | None:
    if reference.bins[-1].value != MISSING:
        return None
    return MissingShare(
        share=estimated(proportion(counts[-1], sum(counts))),
        reference=reference.counts[-1] / sum(reference.counts),
    )


def _bins(bins: Sequence[Bin], expected: Sequence[int], found: Sequence[int]) -> list[DriftBin]:
    """Without those that are empty on both sides, unless they are ranges between two bounds."""
    rows, decisions = sum(expected), sum(found)
    return [
        DriftBin(**bin_._asdict(), reference=known / rows, share=count / decisions)
        for bin_, known, count in zip(bins, expected, found, strict=True)
        if known or count or None not in {bin_.at_least, bin_.below}
    ]


def _conclusion(
    inputs: Sequence[Drift], score: Drift | None, approval: ApprovalShare, decisions: int
) -> str:
    shifted = sorted(
        (each for each in (*inputs, score) if each and each.alarm), key=lambda each: -each.psi
    )
    if shifted:
        found = f"Drift in {', '.join(map(_named, shifted))}."
    else:
        found = f"No sign of drift: no input{' and no score' if score else ''} is above its limit."
    seen = [needed for needed in approval.needed if needed.enough]
    unseen = [needed for needed in approval.needed if not needed.enough]
    if seen:
        found += f" {decisions:,} decisions suffice to show a shift of the approval share by"
        found += f" {_points(seen[0])}"
    else:
        found += f" {decisions:,} decisions do not suffice to show shifts of the approval share"
    if unseen:
        found += f"; {_points(unseen[-1])} need {unseen[-1].decisions:,}"
    return f"{found}."


def _named(drift: Drift) -> str:
    name = "the score" if drift.name == SCORE else drift.name
    alarmed = [caller.client for caller in drift.callers if caller.alarm]
    source = ""
    if len(drift.callers) > 1 and len(alarmed) == 1:
        source = f", from {alarmed[0]}"
    return f"{name} (PSI {drift.psi:.2f}{source})"


def _points(needed: Needed) -> str:
    return f"{needed.shift * 100:.0f} points"

"""Why an additive model refused: what each group of inputs contributes to the score.

A contribution is the points of an application's features less the mean points of a reference, in
log-odds; features of the same inputs are added up under one code. All contributions together are
the score less the reference's mean score. The reasons of a refusal are its most negative
contributions: where the application falls furthest below the reference (12 CFR 1002.9(b)(2),
Official Interpretations, comment 9(b)(2)-5).
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from services.scoring.scorecard import Linear, Reference, Row, Table, points
from shared.contract.reasons import (
    DEFAULT_REFERENCE,
    MAX_REASONS,
    REASON_CODES,
    REASON_CODES_VERSION,
    Reason,
    ReasonsBasis,
)

FLOOR: Final = 0.05
"""A weaker contribution, in log-odds, is not a principal reason: it moves the probability of
approval by less than 1.3 percentage points. The main reason is given however weak it is."""

DECIMALS: Final = 3
"""Of a reason's contribution; more would say nothing to the applicant."""

BASIS: Final = ReasonsBasis(
    reference=DEFAULT_REFERENCE, codes_version=REASON_CODES_VERSION
).model_dump()
"""What the reasons of a decision are measured against, as a ``ReasonsBasis`` in JSON."""

# Made once: making and checking a ``Reason`` each time takes as long as all else in a decision.
_WORDED: Final = {
    code: Reason.of(code, 0.0).model_dump(exclude={"contribution"}) for code in REASON_CODES
}


def refusal_reasons(
    scorecard: Table | Linear, row: Row, missing: frozenset[str], principal_share: float
) -> list[dict[str, Any]]:
    """The reasons of a refusal against ``BASIS``; ``missing`` are the inputs without a value."""
    reference = scorecard.references[DEFAULT_REFERENCE]
    found = contributions(scorecard, points(scorecard, row), reference, missing)
    return main_reasons(found, principal_share)


def contributions(
    scorecard: Table | Linear,
    points_by_feature: Mapping[str, float],
    reference: Reference,
    missing: frozenset[str],
) -> dict[str, float]:
    """What each code contributes to the score of a row with these points."""
    means = reference.points
    found: dict[str, float] = {}
    for each in scorecard.features:
        name, code = each.feature, _code_of_feature(each.inputs, missing)
        found[code] = found.get(code, 0.0) + (points_by_feature[name] - means[name])
    return found


def main_reasons(
    contributions_by_code: Mapping[str, float], principal_share: float
) -> list[dict[str, Any]]:
    """The reasons among the contributions, the main one first; each a ``Reason`` in JSON.

    One that weighs less than ``principal_share`` of the main one is not principal: the bundle says
    how much that is, so that an old decision keeps its reasons.
    """
    negative = sorted((value, code) for code, value in contributions_by_code.items() if value < 0)[
        :MAX_REASONS
    ]
    weakest = min(-FLOOR, negative[0][0] * principal_share) if negative else 0.0
    return [
        # Adding zero makes a negative zero positive.
        {**_WORDED[code], "contribution": round(value, DECIMALS) + 0.0}
        for rank, (value, code) in enumerate(negative)
        if rank == 0 or value <= weakest
    ]


def code_of(inputs: frozenset[str], missing: frozenset[str]) -> str:
    """The code of what is computed from ``inputs``, of which some may be ``missing``.

    A missing input counts as a typical one, so what such a feature says is about the others. Only
    where all are missing it is about their absence.
    """
    stated = inputs - missing
    return (
        _narrowest(stated, stated=True)
        if stated
        else _narrowest(inputs, stated=False) or _narrowest(inputs, stated=True)
    )


@cache
def _code_of_feature(inputs: tuple[str, ...], missing: frozenset[str]) -> str:
    return code_of(frozenset(inputs), missing)


def _narrowest(inputs: frozenset[str], *, stated: bool) -> str:
    return min(
        (
            code
            for code, meaning in REASON_CODES.items()
            if meaning.stated is stated and inputs.issubset(meaning.inputs)
        ),
        key=lambda code: len(REASON_CODES[code].inputs),
        default="",
    )

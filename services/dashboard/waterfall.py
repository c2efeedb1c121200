"""Contributions to a score as bars, each from where the one before it ends."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from loan_predictor_client.models import Explanation

_PER_CENT: Final = 100


class Bar(NamedTuple):
    """What some inputs add to the score, in log-odds, and where it is drawn, in per cent."""

    inputs: Sequence[str]
    points: float
    left: float
    width: float


def bars(explanation: Explanation) -> list[Bar]:
    """The contributions in their order, from the reference's mean to the application's score."""
    found = explanation.contributions
    steps = [contribution.contribution for contribution in found]
    levels = list(accumulate(steps, initial=explanation.reference.mean))
    lowest = min(levels)
    scale = _PER_CENT / (max(levels) - lowest or 1)
    return [
        Bar(
            contribution.inputs,
            contribution.contribution,
            left=(min(ends) - lowest) * scale,
            width=abs(ends[1] - ends[0]) * scale,
        )
        for contribution, ends in zip(found, pairwise(levels), strict=True)
    ]

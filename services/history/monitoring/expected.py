"""How right decisions are expected to be before their outcomes are known, and a test of that."""

from collections.abc import Iterable
from math import fsum, sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

from services.history.estimates import LEVEL, Count, expected_share, proportion
from services.history.monitoring.conclusions import of_calibration
from services.history.monitoring.schemas import CalibrationTest, Expected, estimated

LEAST_DECISIONS: Final = 100
"""Below it an interval of the expected accuracy is up to 20 points wide."""

_LEAST_VARIANCE: Final = 1e-12
"""Of outcomes that are all foretold with certainty."""

WEAKNESS: Final = (
    "Estimated from the model's own probabilities, so as right as those are. That the same"
    " applications turn out worse than they did does not show here; the calibration shows it once"
    " outcomes are known."
)


class Decisions(NamedTuple):
    """Decisions of one kind, and the sum of the probabilities that they are right."""

    decisions: int
    confidence: float


class Foretold(NamedTuple):
    """Outcomes whose probabilities of being good are about the same."""

    outcomes: int
    good: int
    probability: float
    """The sum of the probabilities."""


def expected_of(
    approved: Decisions, refused: Decisions, foretold: Iterable[Foretold]
) -> Expected | None:
    """None where there are too few decisions.

    The confidence of an approval is the probability of a good outcome, that of a refusal one of a
    bad outcome, so their mean is the expected accuracy.
    Source: J. Białek et al. (2024), Estimating model performance under covariate shift
    without labels, arXiv 2401.08348: confidence-based performance estimation.
    """
    decisions = approved.decisions + refused.decisions
    if decisions < LEAST_DECISIONS:
        return None
    return Expected(
        decisions=decisions,
        accuracy=estimated(expected_share(approved.confidence + refused.confidence, decisions)),
        good_among_approved=estimated(expected_share(approved.confidence, approved.decisions))
        if approved.decisions >= LEAST_DECISIONS
        else None,
        weakness=WEAKNESS,
        calibration=calibration_test(foretold),
    )


def calibration_test(foretold: Iterable[Foretold]) -> CalibrationTest | None:
    """Whether as many outcomes are good as their probabilities said; None if they are too few.

    Source: D. R. Cox (1958), Two further applications of a model for binary regression,
    Biometrika 45: calibration in the large, here with the normal approximation of the sum.
    """
    some = list(foretold)
    outcomes, good = sum(each.outcomes for each in some), sum(each.good for each in some)
    if outcomes < LEAST_DECISIONS:
        return None
    total = fsum(each.probability for each in some)
    variance = fsum(each.probability * (1 - each.probability / each.outcomes) for each in some)
    deviation = abs(good - total) / sqrt(max(variance, _LEAST_VARIANCE))
    p_value = 2 * NormalDist().cdf(-deviation)
    found, holds = proportion(good, outcomes), p_value >= 1 - LEVEL
    return CalibrationTest(
        outcomes=outcomes,
        expected=total / outcomes,
        observed=estimated(found),
        p_value=p_value,
        holds=holds,
        conclusion=of_calibration(Count(good, outcomes), total / outcomes, p_value, holds=holds),
    )

"""The sequential test keeps its error however often one looks, and finds a real difference."""

from math import sqrt
from typing import NamedTuple

import numpy as np
import pytest

from services.history.estimates import Z
from services.history.rollout.sequential import (
    ALPHA,
    LEAST,
    EstimatedDifference,
    Proportion,
    difference,
)

RUNS, LOOKS, DECISIONS_A_LOOK = 400, 60, 100


class Experiment(NamedTuple):
    """What was found at each look, None while there was too little, and the counts at the last."""

    looks: list[EstimatedDifference | None]
    candidate: Proportion
    default: Proportion

    @property
    def alarmed(self) -> bool:
        """Whether any look found a difference."""
        return any(found is not None and found.is_different for found in self.looks)


def experiments(*, default: float, candidate: float, share: float) -> list[Experiment]:
    """Experiments in which the arms approve with these probabilities, looked at again and again."""
    rng = np.random.default_rng(17)
    sizes = rng.binomial(DECISIONS_A_LOOK, share, (RUNS, LOOKS))
    rest = DECISIONS_A_LOOK - sizes
    counts = (rng.binomial(sizes, candidate), sizes, rng.binomial(rest, default), rest)
    found = []
    for run in zip(*(each.cumsum(axis=1).tolist() for each in counts), strict=True):
        pairs = [(Proportion(a, b), Proportion(c, d)) for a, b, c, d in zip(*run, strict=True)]
        found.append(Experiment([difference(*pair) for pair in pairs], *pairs[-1]))
    return found


@pytest.mark.parametrize(("approval", "share"), [(0.7, 0.5), (0.7, 0.1), (0.95, 0.3)])
@pytest.mark.no_cover
def test_two_equal_arms_raise_an_alarm_at_no_more_than_the_nominal_rate(
    approval: float, share: float
) -> None:
    """Over all sixty looks together."""
    ran = experiments(default=approval, candidate=approval, share=share)
    assert sum(each.alarmed for each in ran) / RUNS <= ALPHA


def test_looking_again_and_again_with_an_ordinary_test_would_alarm_often() -> None:
    """The simulation is one in which a test for a single look fails: it has looks enough."""
    alarms = 0
    for ran in experiments(default=0.7, candidate=0.7, share=0.5):
        half = Z * sqrt(2 * 0.7 * 0.3 / (DECISIONS_A_LOOK / 2))
        looks = (
            abs(found.value) > half / sqrt(look)
            for look, found in enumerate(ran.looks, start=1)
            if found is not None
        )
        alarms += any(looks)
    assert alarms / RUNS > 3 * ALPHA


@pytest.mark.parametrize(("candidate", "share"), [(0.6, 0.5), (0.8, 0.5), (0.55, 0.1)])
def test_a_known_difference_is_found(candidate: float, share: float) -> None:
    """In nearly all experiments, on its right side, and the interval has it at every look."""
    ran = experiments(default=0.7, candidate=candidate, share=share)
    true = candidate - 0.7
    finds = covers = 0
    for each in ran:
        finds += each.alarmed
        found = [look for look in each.looks if look is not None]
        covers += all(look.low <= true <= look.high for look in found)
        assert all((look.value > 0) == (true > 0) for look in found if look.is_different)
    assert finds / RUNS > 0.95
    assert covers / RUNS >= 1 - ALPHA


def test_the_interval_and_the_p_value_agree() -> None:
    for hits in range(600, 800):
        found = difference(Proportion(hits, 1000), Proportion(700, 1000))
        assert found is not None
        assert found.low <= found.value <= found.high
        assert found.is_different == (found.p_value < ALPHA)


def test_few_or_extreme_counts_are_never_certain() -> None:
    assert difference(Proportion(0, LEAST - 1), Proportion(5000, 9000)) is None
    found = difference(Proportion(LEAST, LEAST), Proportion(LEAST, LEAST))
    assert found is not None
    assert found.low < found.value == 0 < found.high
    assert found.p_value == 1

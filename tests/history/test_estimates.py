"""Figures and their intervals agree with exact computation and published values, and cover."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from scipy.stats.contingency import relative_risk
from sklearn.metrics import roc_auc_score

from services.history.estimates import (
    Count,
    Estimate,
    Pairs,
    RankedCounts,
    auc,
    auc_error,
    difference,
    expected_share,
    mean,
    mean_of_two,
    paired_difference,
    proportion,
    ratio,
)
from services.history.tables import PROBABILITY_BINS

SEEDS = 600
"""At the nominal rate of 0.95 the share of intervals that cover has a deviation of 0.009."""
COVERS = (0.925, 0.975)

Floats = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


def ranked(scores: Floats, good: Flags, *, bins: int = PROBABILITY_BINS) -> RankedCounts:
    """The counts by bin, as the roll-up has them."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    return RankedCounts(
        np.bincount(place[good], minlength=bins).tolist(),
        np.bincount(place[~good], minlength=bins).tolist(),
    )


def scored(rng: np.random.Generator, count: int, *, apart: float) -> tuple[Floats, Flags]:
    """Probabilities of good and bad outcomes from two normal distributions, and which are good."""
    good = rng.random(count) < 0.7
    return norm.cdf(rng.normal(size=count) + apart * good), good


def exact_delong(scores: Floats, good: Flags) -> tuple[float, float]:
    """The AUC and its variance over all pairs, one by one."""
    difference = scores[good][:, None] - scores[~good][None, :]
    wins = (difference > 0) + 0.5 * (difference == 0)
    variance = np.var(wins.mean(axis=1), ddof=1) / wins.shape[0]
    variance += np.var(wins.mean(axis=0), ddof=1) / wins.shape[1]
    return float(wins.mean()), float(variance)


@pytest.mark.parametrize(("hits", "of"), [(0, 1), (0, 20), (1, 20), (13, 20), (20, 20), (81, 263)])
def test_proportion_has_wilsons_interval(hits: int, of: int) -> None:
    exact = binomtest(hits, of).proportion_ci(method="wilson")
    assert proportion(hits, of) == pytest.approx((hits / of, exact.low, exact.high), abs=1e-12)


def test_paired_difference_has_the_interval_published_by_newcombe() -> None:
    """Table II of the source, method 10."""
    published = {
        (36, 12, 2, 0): (0.2000, 0.0569, 0.3404),
        (54, 0, 0, 0): (0.0, -0.0664, 0.0664),
    }
    for pairs, expected in published.items():
        assert paired_difference(Pairs(*pairs)) == pytest.approx(expected, abs=1e-4)
    low, high = paired_difference(Pairs(36, 2, 12, 0))[1:]
    assert (low, high) == pytest.approx((-0.3404, -0.0569), abs=1e-4)


def test_difference_has_the_interval_published_by_newcombe() -> None:
    """Table II of the source, method 10."""
    published = {
        (56, 70, 48, 80): (0.2000, 0.0524, 0.3339),
        (9, 10, 3, 10): (0.6000, 0.1705, 0.8090),
        (10, 10, 0, 20): (1.0000, 0.6791, 1.0000),
    }
    for (one, of_one, other, of_other), expected in published.items():
        found = difference(Count(one, of_one), Count(other, of_other))
        assert found == pytest.approx(expected, abs=1e-4)


def test_ratio_has_an_interval_that_is_the_same_the_other_way_round() -> None:
    """Close to the one of logarithms where there are many; and with a bound where there is none."""
    one, other = Count(700, 1000), Count(450, 600)
    found, back = ratio(one, other), ratio(other, one)
    assert found is not None
    assert back is not None
    assert found == pytest.approx((1 / back.value, 1 / back.high, 1 / back.low))
    exact = relative_risk(*one, *other).confidence_interval(0.95)
    assert found[1:] == pytest.approx((exact.low, exact.high), abs=2e-3)
    assert ratio(one, Count(0, 50)) is None
    none = ratio(Count(0, 50), other)
    assert none is not None
    assert none[:2] == (0, 0)
    assert 0 < none.high < 0.2


def test_expected_share_has_bounds_that_the_share_is_found_between() -> None:
    """At least at the nominal rate, if the probabilities are right."""
    rng = np.random.default_rng(20)
    found = []
    for _ in range(SEEDS):
        probability = rng.beta(6, 2, size=300)
        share = (rng.random(300) < probability).mean()
        value, low, high = expected_share(float(probability.sum()), 300)
        assert value == pytest.approx(probability.mean())
        found.append(low <= share <= high)
    assert COVERS[0] < np.mean(found)
    assert expected_share(300.0000001, 300) == (1, 1, 1)


@pytest.mark.parametrize("apart", [0.0, 0.8, 2.5])
def test_auc_from_bins_is_within_its_stated_error(apart: float) -> None:
    """Of scikit-learn's on the raw scores; and exactly DeLong's on the binned ones."""
    rng = np.random.default_rng(5)
    scores, good = scored(rng, 2000, apart=apart)
    counts = ranked(scores, good)
    found, bound = auc(counts), auc_error(counts)
    assert bound < 0.001
    assert abs(found.value - roc_auc_score(good, scores)) <= bound
    coarse = np.minimum((scores * 20).astype(int), 19) / 20
    area, variance = exact_delong(coarse, good)
    binned = auc(ranked(scores, good, bins=20))
    assert binned.value == pytest.approx(area)
    odds = np.log(area / (1 - area))
    half = norm.ppf(0.975) * np.sqrt(variance) / (area * (1 - area))
    expected = 1 / (1 + np.exp(-np.array([odds - half, odds + half])))
    assert binned[1:] == pytest.approx(tuple(expected))


def test_auc_of_perfect_order_has_an_interval_of_some_width() -> None:
    best, worst = RankedCounts([0, 40], [10, 0]), RankedCounts([40, 0], [0, 10])
    assert auc(best) == pytest.approx((1.0, proportion(10, 10).low, 1.0))
    assert auc(worst) == pytest.approx((0.0, 0.0, proportion(0, 10).high))


def _rate(rng: np.random.Generator) -> Estimate:
    return proportion(int(rng.binomial(120, 0.83)), 120)


def _two(rng: np.random.Generator) -> tuple[Count, Count]:
    return Count(int(rng.binomial(60, 0.7)), 60), Count(int(rng.binomial(240, 0.8)), 240)


def _difference(rng: np.random.Generator) -> Estimate:
    return difference(*_two(rng))


def _ratio(rng: np.random.Generator) -> Estimate:
    found = ratio(*_two(rng))
    assert found is not None
    return found


def _balanced(rng: np.random.Generator) -> Estimate:
    return mean_of_two(
        proportion(int(rng.binomial(90, 0.9)), 90), proportion(int(rng.binomial(30, 0.6)), 30)
    )


def _paired(rng: np.random.Generator) -> Estimate:
    return paired_difference(Pairs(*map(int, rng.multinomial(150, (0.75, 0.1, 0.05, 0.1)))))


def _area(rng: np.random.Generator) -> Estimate:
    return auc(ranked(*scored(rng, 150, apart=1.5)))


def _brier(rng: np.random.Generator) -> Estimate:
    probability = rng.beta(6, 2, size=200)
    squares = (probability - (rng.random(200) < probability)) ** 2
    return mean(200, float(squares.sum()), float((squares**2).sum()))


@pytest.mark.parametrize(
    ("estimate", "truth"),
    [
        (_rate, 0.83),
        (_difference, -0.1),
        (_ratio, 0.875),
        (_balanced, 0.75),
        (_paired, 0.05),
        (_area, float(norm.cdf(1.5 / np.sqrt(2)))),
        # The mean of p (1 - p) of the beta distribution.
        (_brier, 6 * 2 / (8 * 9)),
    ],
)
@pytest.mark.no_cover
def test_intervals_cover_the_truth_at_their_nominal_rate(
    estimate: Callable[[np.random.Generator], Estimate], truth: float
) -> None:
    rng = np.random.default_rng(18)
    found = [estimate(rng) for _ in range(SEEDS)]
    covered = sum(low <= truth <= high for _, low, high in found) / SEEDS
    assert COVERS[0] <= covered <= COVERS[1]
    assert np.mean([value for value, _, _ in found]) == pytest.approx(truth, abs=0.01)

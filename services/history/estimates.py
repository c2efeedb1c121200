"""Figures with 95 % intervals, from counts: pure functions without any library of numbers."""

from collections.abc import Iterable, Sequence
from math import exp, hypot, log, sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

LEVEL: Final = 0.95
Z: Final = NormalDist().inv_cdf((1 + LEVEL) / 2)


class Estimate(NamedTuple):
    """A figure, and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def proportion(hits: int, of: int) -> Estimate:
    """The share of ``hits``, with Wilson's score interval; ``of`` is at least 1.

    Source: E. B. Wilson (1927), Probable inference, the law of succession, and statistical
    inference, JASA 22.
    """
    share = hits / of
    centre = (share + Z * Z / (2 * of)) / (1 + Z * Z / of)
    half = Z / (1 + Z * Z / of) * sqrt(share * (1 - share) / of + Z * Z / (4 * of * of))
    return Estimate(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


def mean_of_two(one: Estimate, other: Estimate) -> Estimate:
    """The mean of two independent figures; its interval recovers their variances from theirs.

    Source: G. Y. Zou and A. Donner (2008), Construction of confidence limits about effect
    measures: a general approach, Statistics in Medicine 27 (MOVER).
    """
    value = (one.value + other.value) / 2
    below = hypot(one.value - one.low, other.value - other.low) / 2
    above = hypot(one.high - one.value, other.high - other.value) / 2
    return Estimate(value, value - below, value + above)


def mean(count: int, total: float, total_of_squares: float) -> Estimate:
    """The mean of ``count`` values with its normal interval; ``count`` is at least 2.

    Source: the central limit theorem, with the sample's standard deviation.
    """
    value = total / count
    variance = max(0.0, total_of_squares - count * value * value) / (count - 1)
    half = Z * sqrt(variance / count)
    return Estimate(value, value - half, value + half)


class Count(NamedTuple):
    """How many of a group there are, and of how many."""

    hits: int
    of: int


def difference(one: Count, other: Count) -> Estimate:
    """The share of ``one`` minus that of ``other``, an independent group; neither is empty.

    Source: R. G. Newcombe (1998), Interval estimation for the difference between independent
    proportions, Statistics in Medicine 17, method 10.
    """
    first, second = proportion(*one), proportion(*other)
    value = first.value - second.value
    below = hypot(first.value - first.low, second.high - second.value)
    above = hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, value - below, value + above)


def ratio(one: Count, other: Count) -> Estimate | None:
    """The share of ``one`` divided by that of ``other``; None where the latter is 0.

    The interval combines those of both shares on the scale of logarithms. Where ``one`` is 0,
    which has no logarithm, its upper bound is that of ``one`` over the share of ``other``'s lower.
    Source: Zou and Donner (2008), as for ``mean_of_two``.
    """
    first, second = proportion(*one), proportion(*other)
    if not second.value:
        return None
    value = first.value / second.value
    if not value:
        return Estimate(0.0, 0.0, first.high / second.low)
    below = hypot(log(first.value / first.low), log(second.high / second.value))
    above = hypot(log(first.high / first.value), log(second.value / second.low))
    return Estimate(value, value * exp(-below), value * exp(above))


def expected_share(total: float, of: int) -> Estimate:
    """The share of hits among ``of`` events whose probabilities have the sum ``total``.

    It presumes that the probabilities are right; with at least 95 % probability the share is found
    between the bounds then. Knowing how the probabilities vary could only narrow them.
    Source: the normal approximation of a binomial share.
    """
    value = min(total / of, 1.0)
    half = Z * sqrt(value * (1 - value) / of)
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


class Pairs(NamedTuple):
    """How often two rules that judged the same rows were right."""

    both: int
    only_first: int
    only_second: int
    neither: int


def paired_difference(pairs: Pairs) -> Estimate:
    """The first rule's share of right answers minus the second's, on the same rows.

    Source: R. G. Newcombe (1998), Improved confidence intervals for the difference between
    binomial proportions based on paired data, Statistics in Medicine 17, method 10.
    """
    a, b, c, d = pairs
    count = a + b + c + d
    first, second = proportion(a + b, count), proportion(a + c, count)
    product = (a + b) * (c + d) * (a + c) * (b + d)
    covariance: float = a * d - b * c
    if covariance > 0:
        covariance = max(covariance - count / 2, 0)
    correlation = covariance / sqrt(product) if product else 0.0
    difference = (b - c) / count

    def reach(one: float, other: float) -> float:
        return sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))

    below = reach(first.value - first.low, second.high - second.value)
    above = reach(first.high - first.value, second.value - second.low)
    return Estimate(difference, difference - below, difference + above)


class RankedCounts(NamedTuple):
    """How many good and bad outcomes each bin has; the bins ascend by the score."""

    good: Sequence[int]
    bad: Sequence[int]


def auc(counts: RankedCounts) -> Estimate:
    """The probability that a good outcome has a higher score than a bad one; ties count half.

    The variance is DeLong's, which needs only ranks; the interval is symmetric on the scale of
    log-odds, where it covers best near 1. Where no pair is out of order that has no width, and
    the bound is Wilson's for as many rows as the smaller class has. Both classes have at least 2.
    Sources: E. R. DeLong et al. (1988), Comparing the areas under two or more correlated receiver
    operating characteristic curves, Biometrics 44; M. S. Pepe (2003), The statistical evaluation
    of medical tests, section 5.2.
    """
    goods, bads = sum(counts.good), sum(counts.bad)
    bad_below, good_above = 0, goods
    above_bad: list[tuple[int, float]] = []
    below_good: list[tuple[int, float]] = []
    for good, bad in zip(*counts, strict=True):
        good_above -= good
        above_bad.append((good, (bad_below + bad / 2) / bads))
        below_good.append((bad, (good_above + good / 2) / goods))
        bad_below += bad
    area = sum(count * share for count, share in above_bad) / goods
    variance = _variance(above_bad, area) / goods + _variance(below_good, area) / bads
    if not 0 < area < 1:
        extreme = proportion(round(area) * min(goods, bads), min(goods, bads))
        return Estimate(area, extreme.low, extreme.high)
    odds, half = log(area / (1 - area)), Z * sqrt(variance) / (area * (1 - area))
    return Estimate(area, _logistic(odds - half), _logistic(odds + half))


def auc_error(counts: RankedCounts) -> float:
    """How far ``auc`` can be from its exact value, because pairs in one bin count as ties."""
    in_one_bin = sum(good * bad for good, bad in zip(*counts, strict=True))
    return in_one_bin / 2 / (sum(counts.good) * sum(counts.bad))


def _variance(placements: Iterable[tuple[int, float]], around: float) -> float:
    weighted = [(count, (share - around) ** 2) for count, share in placements if count]
    return sum(count * square for count, square in weighted) / (sum(n for n, _ in weighted) - 1)


def _logistic(odds: float) -> float:
    return 1 / (1 + exp(-odds)) if odds >= 0 else exp(odds) / (1 + exp(odds))

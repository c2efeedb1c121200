"""How far counts are from their reference, and how many are needed to see it: pure functions."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import ceil, exp, lgamma, log, sqrt
from statistics import NormalDist
from typing import Final

from services.history.estimates import LEVEL, Z

POWER: Final = 0.8
"""The probability with which a shift has to be found for counts to suffice for it."""

PSI_LIMIT: Final = 0.1
"""A population stability index up to this is commonly read as no shift."""

_EMPTY: Final = 0.5
"""What a bin counts that is empty on one side, for a logarithm of 0 has no value."""

_BOTH_WAYS: Final = Z + NormalDist().inv_cdf(POWER)
"""How many standard errors a difference is found over, either way, with that probability."""


def psi(reference: Sequence[int], counts: Sequence[int]) -> float:
    """The population stability index of ``counts``, bin by bin against ``reference``.

    It is the sum over bins of (p - q) ln(p / q) of both sides' shares. A bin that is empty on one
    side counts half a row there, one that is empty on both does not count. Neither side is empty.
    Source: S. Kullback and R. A. Leibler (1951), On information and sufficiency, Annals of
    Mathematical Statistics 22: their divergence J.
    """
    pairs = _occupied(reference, counts)
    expected = [one or _EMPTY for one, _ in pairs]
    observed = [other or _EMPTY for _, other in pairs]
    expected_total, observed_total = sum(expected), sum(observed)
    shares = [
        (one / expected_total, other / observed_total)
        for one, other in zip(expected, observed, strict=True)
    ]
    return sum((q - p) * log(q / p) for p, q in shares)


def psi_limit(reference: Sequence[int], counts: Sequence[int]) -> float:
    """The index above which there is an alarm: it is seldom reached by chance alone.

    It is ``PSI_LIMIT``, or where few rows are compared what they exceed in 5 % of samples without
    any shift: chi-square with one degree less than bins, times 1/m + 1/n.
    Source: B. Yurdakul and J. Naranjo (2020), Statistical properties of the population stability
    index, Journal of Risk Model Validation 14.
    """
    quantile = chi_square_quantile(LEVEL, max(1, len(_occupied(reference, counts)) - 1))
    return max(PSI_LIMIT, quantile * _noise(reference, counts))


def detectable_psi(reference: Sequence[int], counts: Sequence[int]) -> float:
    """The true index that so many rows raise an alarm at with the probability ``POWER``."""
    noise = _noise(reference, counts)
    degrees = max(1, len(_occupied(reference, counts)) - 1)
    return noise * _detectable_noncentrality(degrees, psi_limit(reference, counts) / noise)


def decisions_needed(share: float, shift: float) -> int:
    """How many decisions show, with the probability ``POWER``, a ``share`` to have shifted so far.

    Source: the normal approximation of a binomial share against a known one; 95 %, either way.
    """
    # A share of 0 or 1 has no variance, but the one it shifts to has.
    variance = max(share * (1 - share), shift * (1 - shift))
    return ceil(_BOTH_WAYS**2 * variance / shift**2)


def detectable_difference(share: float, one: int, other: int) -> float:
    """The difference of two groups' shares that so many of each show with that probability."""
    errors = _BOTH_WAYS * sqrt(1 / one + 1 / other)
    # The second is the difference from a share of 0 or 1, which has no variance itself.
    return max(errors * sqrt(share * (1 - share)), errors**2 / (1 + errors**2))


@lru_cache(maxsize=1024)
def chi_square_quantile(level: float, degrees: float) -> float:
    """The value that chi-square with so many degrees of freedom is below with that probability."""
    # From there on the tail is below 1e-9.
    return _bisected(lambda x: _chi_square_below(x, degrees) < level, 2 * degrees + 60)


@lru_cache(maxsize=4096)
def _detectable_noncentrality(degrees: int, limit: float) -> float:
    """The noncentrality at which chi-square exceeds ``limit`` with the probability ``POWER``.

    Source: P. B. Patnaik (1949), The non-central chi-square and F distributions and their
    applications, Biometrika 36: a multiple of a central one that has the same mean and variance.
    """

    def falls_short(noncentrality: float) -> bool:
        mean, half_variance = degrees + noncentrality, degrees + 2 * noncentrality
        below = _chi_square_below(limit * mean / half_variance, mean * mean / half_variance)
        return below > 1 - POWER

    return _bisected(falls_short, 2 * limit + 60)


def _chi_square_below(x: float, degrees: float) -> float:
    """The distribution function, by the power series of the incomplete gamma function."""
    half, shape = x / 2, degrees / 2
    if half <= 0:
        return 0.0
    if half > shape + 12 * sqrt(shape) + 60:  # The terms would underflow; 1e-12 are above it.
        return 1.0
    term = total = exp(shape * log(half) - half - lgamma(shape + 1))
    divisor = shape
    while term > total * 1e-13:
        divisor += 1
        term *= half / divisor
        total += term
    return min(1.0, total)


def _bisected(is_below: Callable[[float], bool], highest: float) -> float:
    """Where ``is_below`` turns false between 0 and ``highest``, to twelve digits of that."""
    low, high = 0.0, highest
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def _occupied(reference: Sequence[int], counts: Sequence[int]) -> list[tuple[int, int]]:
    return [pair for pair in zip(reference, counts, strict=True) if any(pair)]


def _noise(reference: Sequence[int], counts: Sequence[int]) -> float:
    return 1 / sum(reference) + 1 / sum(counts)

"""The difference of two shares, with an interval and a test that hold however often one looks.

A test of fixed size that is looked at again and again, until it is significant, raises a false
alarm sooner or later. Here the error of 5 % is that of all looks together.

Sources: R. Johari, P. Koomen, L. Pekelis and D. Walsh (2022), Always valid inference: continuous
monitoring of A/B tests, Operations Research 70 (the mixture sequential probability ratio test, and
its p-value); I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy and A. Ramdas (2024), Time-uniform
central limit theory and asymptotic confidence sequences, Annals of Statistics 52 (why the normal
approximation may be used).
"""

from math import exp, log, sqrt
from typing import Final, NamedTuple

ALPHA: Final = 0.05
"""The probability that an interval misses the true difference at any look at all."""
LEAST: Final = 200
"""Rows that each side needs before the normal approximation is relied on."""
_SCALE: Final = 0.05
"""The difference that the test is most sensitive to, fixed before any data: five points."""


class Proportion(NamedTuple):
    """How many of so many rows have what is counted."""

    hits: int
    of: int


class EstimatedDifference(NamedTuple):
    """The first share minus the second, its 95 % confidence sequence, and its p-value."""

    value: float
    low: float
    high: float
    p_value: float

    @property
    def is_different(self) -> bool:
        """Whether the two shares differ, by this look and all others."""
        return not self.low <= 0 <= self.high


def difference(first: Proportion, second: Proportion) -> EstimatedDifference | None:
    """How the two shares differ; None while a side has fewer than ``LEAST`` rows."""
    if min(first.of, second.of) < LEAST:
        return None
    value = first.hits / first.of - second.hits / second.of
    variance = _variance(first) + _variance(second)
    mixed = variance + _SCALE**2
    half = sqrt(variance * mixed * (log(mixed / variance) - 2 * log(ALPHA))) / _SCALE
    ratio = log(mixed / variance) / 2 - (_SCALE * value) ** 2 / (2 * variance * mixed)
    return EstimatedDifference(
        value,
        max(-1.0, value - half),
        min(1.0, value + half),
        exp(min(0.0, ratio)),
    )


def _variance(counts: Proportion) -> float:
    # One row more of each kind, so that a share of 0 or 1 is not taken for certain.
    share = (counts.hits + 1) / (counts.of + 2)
    return share * (1 - share) / counts.of

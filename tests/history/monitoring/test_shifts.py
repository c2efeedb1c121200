"""Indices and their limits agree with exact computation and hold their rates in simulation."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2, entropy, ncx2, norm

from services.history.estimates import Count, difference, proportion
from services.history.monitoring.shifts import (
    POWER,
    PSI_LIMIT,
    chi_square_quantile,
    decisions_needed,
    detectable_difference,
    detectable_psi,
    psi,
    psi_limit,
)

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

REFERENCE_ROWS = 614
SAMPLES = 1000
TENTHS: Floats = np.full(10, 0.1)


def drawn(rng: np.random.Generator, shares: Floats, rows: int) -> list[list[int]]:
    """Counts of ``SAMPLES`` samples of so many rows."""
    found: list[list[int]] = rng.multinomial(rows, shares, size=SAMPLES).tolist()
    return found


def alarms(rng: np.random.Generator, reference: Floats, now: Floats, rows: int) -> float:
    """The share of samples that raise an alarm, each against a reference of its own."""
    pairs = zip(drawn(rng, reference, REFERENCE_ROWS), drawn(rng, now, rows), strict=True)
    return float(np.mean([psi(one, other) > psi_limit(one, other) for one, other in pairs]))


def shifted_by(index: float, shares: Floats) -> Floats:
    """Shares that are tilted until their index against ``shares`` is as given."""
    low, high, found = 0.0, 2.0, shares
    for _ in range(50):
        tilt = (low + high) / 2
        found = shares * np.exp(tilt * np.linspace(-1, 1, shares.size))
        found = found / found.sum()
        small = entropy(found, shares) + entropy(shares, found) < index
        low, high = (tilt, high) if small else (low, tilt)
    return found


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("degrees", [1, 2, 3, 9, 12, 19, 60])
def test_chi_square_quantile_is_that_of_scipy(level: float, degrees: int) -> None:
    assert chi_square_quantile(level, degrees) == pytest.approx(chi2.ppf(level, degrees), rel=1e-9)


def test_psi_is_the_symmetric_divergence_of_both_shares() -> None:
    """A bin empty on one side counts half a row there; one that is empty on both is none."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        one, other = rng.integers(1, 90, size=(2, 12))
        exact = entropy(one, other) + entropy(other, one)
        assert psi(one.tolist(), other.tolist()) == pytest.approx(exact)
        assert psi([*one.tolist(), 0], [*other.tolist(), 0]) == pytest.approx(exact)
    assert psi([10, 30], [100, 300]) == 0
    assert psi([40, 0], [30, 10]) == pytest.approx(
        entropy([40, 0.5], [30, 10]) + entropy([30, 10], [40, 0.5])
    )


def test_psi_without_shift_seldom_exceeds_its_limit_from_300_decisions_on() -> None:
    """With 20 bins in about 5 % of samples, with 10 in fewer; the mere rule of 0.1 fails."""
    rng = np.random.default_rng(2)
    twentieths = np.full(20, 0.05)
    assert alarms(rng, twentieths, twentieths, 300) < 0.08
    rates = {rows: alarms(rng, TENTHS, TENTHS, rows) for rows in (50, 300, 500, 1000)}
    assert rates[50] < 0.1
    assert rates[300] < 0.03
    assert rates[500] < 0.005
    assert rates[1000] == 0
    pairs = zip(drawn(rng, TENTHS, REFERENCE_ROWS), drawn(rng, TENTHS, 50), strict=True)
    assert np.mean([psi(one, other) > PSI_LIMIT for one, other in pairs]) > 0.8


def test_limit_is_held_where_bins_are_rare() -> None:
    """Most of an income's values far beyond the reference fall in bins with hardly a row."""
    rng = np.random.default_rng(3)
    rare = np.array([0.002, 0.3, 0.3, 0.2, 0.19, 0.004, 0.002, 0.002])
    assert alarms(rng, rare, rare, 300) < 0.05
    assert alarms(rng, rare, rare, 1000) < 0.01


@pytest.mark.parametrize("rows", [300, 1000, 20_000])
def test_detectable_index_raises_an_alarm_with_the_stated_probability(rows: int) -> None:
    """In simulation; and the approximation of the noncentral chi-square is close to scipy's."""
    rng = np.random.default_rng(4)
    even = (TENTHS * 1000).astype(int).tolist()
    reference = [REFERENCE_ROWS * count // 1000 for count in even]
    counts = [rows * count // 1000 for count in even]
    index = detectable_psi(reference, counts)
    noise = 1 / sum(reference) + 1 / sum(counts)
    limit = psi_limit(reference, counts)
    assert 1 - ncx2.cdf(limit / noise, 9, index / noise) == pytest.approx(POWER, abs=0.01)
    assert alarms(rng, TENTHS, shifted_by(index, TENTHS), rows) == pytest.approx(POWER, abs=0.06)


def test_detectable_index_nears_the_limit_with_many_rows() -> None:
    million = [100_000] * 10
    assert detectable_psi(million, million) == pytest.approx(PSI_LIMIT, rel=0.02)
    assert psi_limit(million, million) == PSI_LIMIT


def test_decisions_needed_are_those_that_find_the_shift_with_80_percent_probability() -> None:
    """By the exact binomial: Wilson's interval of so many leaves out the former share."""
    share = 0.802
    needed = {shift: decisions_needed(share, shift) for shift in (0.03, 0.05, 0.1)}
    assert list(needed.values()) == pytest.approx([1387, 499, 124], abs=3)
    rng = np.random.default_rng(5)
    for shift, decisions in needed.items():
        found = [
            proportion(int(hits), decisions)
            for hits in rng.binomial(decisions, share - shift, size=SAMPLES)
        ]
        assert np.mean([one.high < share for one in found]) == pytest.approx(POWER, abs=0.05)


def test_shares_of_0_and_1_do_not_make_any_shift_seen() -> None:
    """Their variance is 0, that of what they shift to is not."""
    assert decisions_needed(1.0, 0.05) == decisions_needed(0.0, 0.05) == 150
    assert 0.05 < detectable_difference(1.0, 200, 100) < 0.15


def test_detectable_difference_is_found_with_80_percent_probability() -> None:
    rng = np.random.default_rng(6)
    shift = detectable_difference(0.7, 400, 150)
    assert shift == pytest.approx(
        (norm.ppf(0.975) + norm.ppf(0.8)) * (0.7 * 0.3 * (1 / 400 + 1 / 150)) ** 0.5
    )
    one = rng.binomial(400, 0.7 + shift / 2, size=SAMPLES)
    other = rng.binomial(150, 0.7 - shift / 2, size=SAMPLES)
    low = [
        difference(Count(int(a), 400), Count(int(b), 150)).low
        for a, b in zip(one, other, strict=True)
    ]
    assert np.mean(np.array(low) > 0) == pytest.approx(POWER, abs=0.05)

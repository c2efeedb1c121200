"""Whether approvals got worse is said at the stated rate of false alarms."""

from collections.abc import Iterable

import numpy as np
from numpy.random import Generator

from services.history.monitoring.schemas import Estimated, Vintage, VintagePoint, VintageTrend
from services.history.monitoring.vintages import trend

_AGE = 3
_SEEDS = 200


def _vintage(number: int, approved: int, bad: int, *, outcomes: int | None = None) -> Vintage:
    """One that is old enough, with all bad outcomes known by then."""
    share = Estimated(value=bad / approved, low=0, high=1)
    return Vintage(
        month=f"{2025 + number // 12}-{number % 12 + 1:02}",
        approved=approved,
        outcomes=bad if outcomes is None else outcomes,
        on_whom="",
        curve=[VintagePoint(months_on_book=age, bad=bad, share=share) for age in range(_AGE + 2)],
    )


def _trend(approved: Iterable[int], bad: Iterable[int]) -> VintageTrend:
    """Of months in their order."""
    pairs = zip(approved, bad, strict=True)
    vintages = [_vintage(i, int(n), int(hits)) for i, (n, hits) in enumerate(pairs)]
    return trend(vintages[::-1], _AGE)


def _drawn(rng: Generator, before: float, after: float) -> VintageTrend:
    """A year with 250 approvals a month; the share that turns out badly changes at month 10."""
    approved = rng.poisson(250, 12)
    return _trend(approved, rng.binomial(approved, [before] * 9 + [after] * 3))


def test_alarm_comes_with_a_deterioration_and_seldom_without() -> None:
    """Without one, 2.5 % of alarms are expected; from 6 to 11 % at least 80 % are found."""
    rng = np.random.default_rng(18)
    false_alarms = sum(_drawn(rng, 0.06, 0.06).worse is True for _ in range(_SEEDS))
    found = sum(_drawn(rng, 0.06, 0.11).worse is True for _ in range(_SEEDS))
    better = sum(_drawn(rng, 0.11, 0.06).worse is False for _ in range(_SEEDS))
    # 2.5 % of 200, and what a binomial count exceeds once in a thousand times.
    assert false_alarms <= 13
    assert found >= 0.8 * _SEEDS
    assert better >= 0.8 * _SEEDS


def test_newest_three_months_are_compared_with_all_before() -> None:
    """The sentence has the numbers, and how large a rise cannot be excluded."""
    found = _trend([200] * 6, [10, 10, 10, 20, 30, 40])
    assert found.recent.months == ["2025-06", "2025-05", "2025-04"]
    assert (found.recent.bad, found.earlier.bad) == (90, 30)
    assert (found.worse, found.conclusion.alarm) == (True, True)
    assert found.conclusion.text.startswith("Approvals got worse: at 3 months on book, 15.0")
    assert "600 loans approved from Apr 2025 to Jun 2025" in found.conclusion.text
    same = _trend([200] * 6, [10] * 6)
    assert (same.worse, same.conclusion.alarm) == (None, False)
    assert same.conclusion.text.startswith("No sign that approvals got worse")
    assert same.difference
    assert f"A rise by up to +{same.difference.high * 100:.1f} points" in same.conclusion.text
    better = _trend([200] * 6, [30, 30, 30, 10, 10, 10])
    assert (better.worse, better.conclusion.alarm) == (False, False)
    assert better.conclusion.text.startswith("Approvals got better")


def test_nothing_is_concluded_from_few_loans_or_outcomes() -> None:
    """Loans of which nothing is reported are not taken for good ones."""
    no_reports = [10] * 3 + [0] * 3
    for approved, bad in (([30] * 6, [3] * 6), ([200] * 3, [10] * 3), ([200] * 6, no_reports)):
        found = _trend(approved, bad)
        assert (found.difference, found.worse, found.conclusion.alarm) == (None, None, None)
        assert found.conclusion.text.startswith("Not enough yet")


def test_month_counts_once_it_is_over_at_that_age() -> None:
    """The newest vintage has only begun the month of that age."""
    vintages = [_vintage(i, 200, 10) for i in range(7)][::-1]
    vintages[0].curve.pop()
    assert trend(vintages, _AGE).recent.months[0] == vintages[1].month

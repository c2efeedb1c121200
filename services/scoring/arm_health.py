"""How the two arms of an experiment do on this replica: failures, and the time that deciding takes.

A replica that finds its candidate unfit reports so, and the history service takes the share away.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from math import ceil
from time import perf_counter
from typing import Final, TypeVar

from shared.contract.rollout import Rollout, arm_label

MOST_FAILURES: Final = 5
"""The candidate is unfit if it fails so often, and at a rate above the default's."""
LEAST_TIMED: Final = 200
"""Decisions of each arm before their times are compared."""
LONGEST_S: Final = 0.01
"""The candidate is unfit if its p99 exceeds this, and ``SLOWER`` times the default's."""
SLOWER: Final = 3.0

T = TypeVar("T")

_KEPT: Final = 1000
"""Times of the newest decisions."""


class _Arm:
    def __init__(self) -> None:
        self.decisions = self.failures = 0
        self.times_s: deque[float] = deque(maxlen=_KEPT)

    def p99_s(self) -> float:
        times = sorted(self.times_s)
        return times[ceil(0.99 * len(times)) - 1]


class ArmHealth:
    """Counts what the arms of a roll-out do, each under its label, and judges the candidate."""

    def __init__(self) -> None:
        self._arms: defaultdict[str | None, _Arm] = defaultdict(_Arm)

    def count(self, arm: str, work: Callable[[], T], *, decisions: int = 1) -> T:
        """What ``work`` returns, counted as so many decisions, which fail together if it raises."""
        counted, began_s = self._arms[arm], perf_counter()
        counted.decisions += decisions
        try:
            done = work()
        except Exception:
            counted.failures += decisions
            raise
        counted.times_s.append((perf_counter() - began_s) / decisions)
        return done

    def unfit(self, rollout: Rollout) -> str | None:
        """Why the candidate should decide nothing, in one sentence; None if nothing speaks so."""
        candidate = self._arms[arm_label(rollout, "candidate")]
        default = self._arms[arm_label(rollout, "default")]
        worse = candidate.failures * default.decisions > default.failures * candidate.decisions
        if candidate.failures >= MOST_FAILURES and (worse or not default.decisions):
            return (
                f"{candidate.failures} of {candidate.decisions} decisions of the candidate failed"
            )
        if min(len(candidate.times_s), len(default.times_s)) < LEAST_TIMED:
            return None
        slow_s, usual_s = candidate.p99_s(), default.p99_s()
        if slow_s > max(LONGEST_S, SLOWER * usual_s):
            return (
                f"the candidate decides in {slow_s * 1000:.1f} ms (p99), the default in"
                f" {usual_s * 1000:.1f} ms"
            )
        return None

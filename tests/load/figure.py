"""One line of the benchmark's table, and how it comes out of interleaved rounds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeVar

from tests.load.stack import Bench

Unit = Literal["x", "s", "MiB", "bytes", "rows/s", "events"]
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Bound:
    """What a figure must reach: at least, or at most, so much."""

    value: float
    kind: Literal["at least", "at most"]


@dataclass(frozen=True)
class Figure:
    """What was measured: the median of the rounds, the lowest and the highest of them.

    A figure without a bound is only reported.
    """

    name: str
    unit: Unit
    median: float
    lowest: float
    highest: float
    bound: Bound | None
    detail: str

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the bound; None without one."""
        if self.bound is None:
            return None
        if self.bound.kind == "at least":
            return self.median >= self.bound.value
        return self.median <= self.bound.value


def at_least(value: float) -> Bound:
    """The bound of a figure that should be high."""
    return Bound(value, "at least")


def at_most(value: float) -> Bound:
    """The bound of a figure that should be low."""
    return Bound(value, "at most")


def figure(
    name: str, values: Sequence[float], *, unit: Unit, bound: Bound | None, detail: str
) -> Figure:
    """The figure that these rounds make."""
    return Figure(
        name=name,
        unit=unit,
        median=median(values),
        lowest=min(values),
        highest=max(values),
        bound=bound,
        detail=detail,
    )


def ratio(
    name: str, ours: Sequence[float], theirs: Sequence[float], *, bound: Bound | None, detail: str
) -> Figure:
    """Ours as a multiple of theirs, round by round: what slows a whole round cancels out."""
    values = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return figure(name, values, unit="x", bound=bound, detail=detail)


def interleave(
    bench: Bench, contenders: Mapping[str, Callable[[], _Result]], *, show: Callable[[_Result], str]
) -> dict[str, list[_Result]]:
    """The results of each contender: A B A B, for as many rounds as the bench has."""
    results: dict[str, list[_Result]] = {name: [] for name in contenders}
    for number in range(1, bench.rounds + 1):
        for name, run in contenders.items():
            results[name].append(run())
        latest = ", ".join(f"{name} {show(found[-1])}" for name, found in results.items())
        bench.say(f"  round {number} of {bench.rounds}: {latest}")
    return results

"""One row of the benchmark table, and how interleaved rounds produce it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeVar

from tests.load.stack import Bench

Unit = Literal["x", "s", "ms", "us", "MiB", "bytes", "decisions/s", "%"]
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Bound:
    """The limit a median must meet."""

    value: float
    kind: Literal["at least", "at most"]


@dataclass(frozen=True)
class Measurement:
    """The median, lowest and highest of the rounds; without a bound it is only reported."""

    name: str
    unit: Unit
    median: float
    lowest: float
    highest: float
    bound: Bound | None
    detail: str

    @property
    def met(self) -> bool | None:
        """Whether the median meets the bound; None without one."""
        if self.bound is None:
            return None
        if self.bound.kind == "at least":
            return self.median >= self.bound.value
        return self.median <= self.bound.value


def at_least(value: float) -> Bound:
    """A lower bound."""
    return Bound(value, "at least")


def at_most(value: float) -> Bound:
    """An upper bound."""
    return Bound(value, "at most")


def measured(
    name: str, values: Sequence[float], *, unit: Unit, bound: Bound | None, detail: str
) -> Measurement:
    """Summarise the values of all rounds."""
    return Measurement(
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
) -> Measurement:
    """Divide ours by theirs round by round, so that what slows a whole round cancels out."""
    values = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return measured(name, values, unit="x", bound=bound, detail=detail)


def interleave(
    bench: Bench, contenders: Mapping[str, Callable[[], _Result]], *, show: Callable[[_Result], str]
) -> dict[str, list[_Result]]:
    """Run the contenders in turn (A B A B), once per round; return each one's results."""
    results: dict[str, list[_Result]] = {name: [] for name in contenders}
    for number in range(1, bench.rounds + 1):
        for name, run in contenders.items():
            results[name].append(run())
        latest = ", ".join(f"{name} {show(found[-1])}" for name, found in results.items())
        bench.say(f"  round {number} of {bench.rounds}: {latest}")
    return results

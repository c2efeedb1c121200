"""Where numbers lie in a picture, in per cent of its width or height."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from textwrap import wrap
from typing import Final, NamedTuple

_TICKS: Final = 5
"""About how many steps an axis has."""
_MOST_LABELS: Final = 5
"""Labels of slots that fit side by side on a phone."""
_LETTERS: Final = 42
"""Letters that fit side by side on a phone."""


@dataclass(frozen=True)
class Axis:
    """A linear scale, and the numbers that are marked on it."""

    ticks: tuple[float, ...]

    def share(self, number: float) -> float:
        """How far ``number`` is from the low end, from 0 to 100; the nearest end if outside."""
        low, high = self.ticks[0], self.ticks[-1]
        return min(max((number - low) / (high - low), 0), 1) * 100

    def along(self, number: float) -> str:
        """The same, as a length across."""
        return f"{self.share(number):.2f}%"

    def up(self, number: float) -> str:
        """How far ``number`` is below the high end, as an SVG's height counts."""
        return f"{100 - self.share(number):.2f}%"

    def length(self, one: float, other: float) -> str:
        """How long the way between two numbers is."""
        low, high = self.ticks[0], self.ticks[-1]
        return f"{abs(one - other) / (high - low) * 100:.2f}%"


def axis(
    numbers: Iterable[float],
    low: float | None = None,
    high: float | None = None,
    step: float = 0,
) -> Axis:
    """An axis with round marks that holds all ``numbers``.

    ``low`` and ``high`` bound it; marks are at least ``step`` apart.
    """
    some = list(numbers)
    least = min(some, default=0.0) if low is None else max(low, min(some, default=low))
    most = max(some, default=1.0) if high is None else min(high, max(some, default=high))
    step = max(_round_step((most - least) / _TICKS), step)
    first, last = floor(least / step + 1e-9), ceil(most / step - 1e-9)
    return Axis(tuple(round(i * step, 10) for i in range(first, max(last, first + 1) + 1)))


def path(x: Axis, y: Axis, points: Iterable[tuple[float, float]]) -> str:
    """The points of a line, in a picture that is 100 wide and 100 high."""
    return " ".join(f"{x.share(one):.2f},{100 - y.share(other):.2f}" for one, other in points)


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of 10 that is no less."""
    if least <= 0:
        return 0.1
    power = 10 ** floor(log10(least))
    step = next((factor for factor in (1, 2, 5) if factor * power >= least), 10)
    return float(step * power)


class Slot(NamedTuple):
    """A place on an axis of things that are counted, not measured; all in per cent."""

    lines: Sequence[str]
    """Its label, as wide as the slot where that is possible."""
    left: float
    middle: float
    width: float
    labelled: bool
    """False for some of many, whose labels would run into each other."""


def slots(labels: Sequence[str]) -> list[Slot]:
    """A slot of the same width for each of ``labels``."""
    width = round(100 / max(len(labels), 1), 4)
    every = ceil(len(labels) / _MOST_LABELS)
    room = max(_LETTERS * every // max(len(labels), 1), 1)
    return [
        Slot(
            wrap(label, room, break_long_words=False),
            round(i * width, 3),
            round((i + 0.5) * width, 3),
            width,
            i % every == 0,
        )
        for i, label in enumerate(labels)
    ]

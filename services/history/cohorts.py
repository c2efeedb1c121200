"""Decisions of one model of one bundle, split by caller and by decision, with their histograms."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from operator import add
from typing import Final, NamedTuple, TypeAlias

SCORE: Final = "score"


class Cohort(NamedTuple):
    """Decisions of one model of one bundle in one month, or in all."""

    month: date | None
    model: str
    bundle: str


class Slice(NamedTuple):
    """A part of a cohort."""

    client: str
    approved: bool


@dataclass
class Counts:
    """How many decisions there are, and their histograms by column; ``score`` is one of them."""

    decisions: int = 0
    histograms: dict[str, Sequence[int]] = field(default_factory=dict)

    def add(self, other: "Counts") -> None:
        """Count the other ones, too."""
        self.decisions += other.decisions
        for name, counts in other.histograms.items():
            known = self.histograms.get(name)
            if known is None or len(known) != len(counts):
                # The bins of another definition cannot be added to these.
                self.histograms[name] = counts
            else:
                self.histograms[name] = [*map(add, known, counts)]


Slices: TypeAlias = Mapping[Slice, Counts]


def total(parts: Iterable[Counts]) -> Counts:
    """The parts together."""
    counted = Counts()
    for part in parts:
        counted.add(part)
    return counted


def by_client(slices: Slices) -> Mapping[str, Counts]:
    """The decisions of each caller, approved or not."""
    found: defaultdict[str, Counts] = defaultdict(Counts)
    for slice_, counts in slices.items():
        found[slice_.client].add(counts)
    return found


def by_decision(slices: Slices) -> Mapping[bool, Counts]:
    """The decisions that approve, and those that do not."""
    return {
        approved: total(counts for slice_, counts in slices.items() if slice_.approved is approved)
        for approved in (True, False)
    }

"""Decisions of one cohort, split by caller and by decision, with their histograms."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import NamedTuple, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.binning import SCORE
from services.history.daily import By, Selection, read_group_counts
from services.history.monitoring.cohorts import APPROVED, BY_COHORT, Cohort
from services.history.monitoring.references import tenths


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


async def read_slices(
    connection: AsyncConnection, selection: Selection, *, monthly: bool
) -> Mapping[Cohort, Slices]:
    """The slices of each cohort, by month if ``monthly``, from the roll-up by day."""
    keys: list[By] = [*BY_COHORT, "client", "prediction"]
    cohorts: defaultdict[Cohort, dict[Slice, Counts]] = defaultdict(dict)
    keys = ["month", *keys] if monthly else keys
    for found in await read_group_counts(connection, selection, keys):
        *month, model, bundle, client, prediction = found.group
        histograms = found.histograms | {SCORE: tenths(found.histograms[SCORE])}
        cohort = Cohort(month[0] if month else None, model, bundle)
        cohorts[cohort][Slice(client, prediction == APPROVED)] = Counts(
            found.predictions, histograms
        )
    return cohorts

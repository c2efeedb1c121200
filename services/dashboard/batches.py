"""The decisions of a batch: read once from its results, as they stream in."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic_core import from_json

from loan_predictor_client import AsyncLoanPredictorClient
from loan_predictor_client.models import Batch

ENDED: Final = ("done", "failed", "cancelled")
BINS: Final = 10
MAX_SHOWN: Final = 100
"""How many faults and decisions the page lists; the downloads have all."""


class ProbabilityBin(NamedTuple):
    """How many decisions have a probability of approval from ``at_least`` on."""

    at_least: float
    predictions: int


def bins_of(counts: Sequence[int]) -> list[ProbabilityBin]:
    """Counts of equal bins from 0 to 1, added up to ``BINS`` of them."""
    width = len(counts) // BINS
    return [ProbabilityBin(n / BINS, sum(counts[n * width : (n + 1) * width])) for n in range(BINS)]


@dataclass
class Results:
    """The decisions of a batch in brief."""

    decisions: list[dict[str, Any]] = field(default_factory=list)
    """The first of them, each a line of the results."""
    warnings: dict[str, list[int]] = field(default_factory=dict)
    """The lines of each warning."""
    faults: list[tuple[int, str]] = field(default_factory=list)
    """The first of them, by line."""
    counts: list[int] = field(default_factory=lambda: [0] * BINS)

    @property
    def bins(self) -> list[ProbabilityBin]:
        """The distribution of the probability of approval."""
        return bins_of(self.counts)

    def add(self, decision: dict[str, Any]) -> None:
        """Count one line of the results."""
        if len(self.decisions) < MAX_SHOWN:
            self.decisions.append(decision)
        for warning in decision["warnings"]:
            self.warnings.setdefault(warning, []).append(decision["line"])
        self.counts[min(BINS - 1, int(decision["probability"]["approved"] * BINS))] += 1


async def results_of(api: AsyncLoanPredictorClient, batch: Batch) -> Results:
    """The results of ``batch`` so far. Raises ``CallFailed``."""
    results = Results()
    async with api.batch_results(batch.id, format="ndjson") as pieces:
        async for line in _lines(pieces):
            results.add(from_json(line))
    if batch.faulty:
        for row in (await api.batch_faults(batch.id))[:MAX_SHOWN]:
            faults = "; ".join(f"{fault.field} {fault.message}" for fault in row.faults)
            results.faults.append((row.line, faults.removeprefix("row ")))
    return results


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line


def is_identifier(text: str) -> bool:
    """Whether ``text`` may name a batch."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True

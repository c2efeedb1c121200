"""Results of a load run: times from the scheduled moment, and errors by kind."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final, NamedTuple

PERCENTILES: Final = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)
_MS_PER_S: Final = 1000


class Sample(NamedTuple):
    """One successful request; times from ``time.monotonic``."""

    due_s: float
    sent_s: float
    done_s: float

    @property
    def latency_s(self) -> float:
        """Time since the scheduled moment, so that waiting to be sent counts."""
        return self.done_s - self.due_s

    @property
    def late_s(self) -> float:
        """Time from the scheduled moment until the request was sent."""
        return self.sent_s - self.due_s


@dataclass
class Results:
    """Results so far; ``ids`` are those of the acknowledged decisions."""

    samples: list[Sample] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)

    def add(self, other: "Results") -> None:
        """Add the results of another process, or of a later moment."""
        self.samples += other.samples
        self.errors += other.errors
        self.ids += other.ids

    def take(self) -> "Results":
        """Return everything found since the last call."""
        taken = Results(self.samples, self.errors, self.ids)
        self.samples, self.errors, self.ids = [], Counter(), []
        return taken

    @property
    def finished(self) -> int:
        """The number of requests that were answered, failed or were never sent."""
        return len(self.samples) + self.errors.total()


@dataclass(frozen=True)
class Summary:
    """A run in a few numbers; times are in milliseconds, by percentile."""

    scheduled: int
    answered: int
    errors: dict[str, int]
    rate: float
    latency_ms: dict[str, float]
    sent_late_ms: dict[str, float]


def summarise(results: Results, *, scheduled: int, starts_at_s: float) -> Summary:
    """Summarise a finished run that began at ``starts_at_s``."""
    samples = results.samples
    elapsed_s = max((sample.done_s for sample in samples), default=starts_at_s) - starts_at_s
    return Summary(
        scheduled=scheduled,
        answered=len(samples),
        errors=dict(results.errors.most_common()),
        rate=len(samples) / elapsed_s if elapsed_s > 0 else 0.0,
        latency_ms=percentiles_ms(sample.latency_s for sample in samples),
        sent_late_ms=percentiles_ms(sample.late_s for sample in samples),
    )


def percentiles_ms(times_s: Iterable[float]) -> dict[str, float]:
    """Return p50 to p99.9 and the maximum in milliseconds; empty if there are no times."""
    ordered = sorted(times_s)
    if not ordered:
        return {}
    found = {f"p{rank:g}": percentile(ordered, rank) * _MS_PER_S for rank in PERCENTILES}
    return found | {"max": ordered[-1] * _MS_PER_S}


def percentile(ordered: Sequence[float], rank: float) -> float:
    """Return the smallest value that at least ``rank`` percent of the values do not exceed."""
    return ordered[max(0, ceil(len(ordered) * rank / 100) - 1)]


def describe(summary: Summary) -> str:
    """Format the summary for a terminal."""
    errors = ", ".join(f"{count:,} {kind}" for kind, count in summary.errors.items())
    lines = [
        f"answered  {summary.answered:,} of {summary.scheduled:,}, {summary.rate:,.0f} a second",
        f"errors    {errors or 'none'}",
    ]
    for name, times in (("latency", summary.latency_ms), ("sent late", summary.sent_late_ms)):
        percentiles = "  ".join(f"{rank} {time_ms:,.1f}" for rank, time_ms in times.items())
        lines.append(f"{name:<9} {percentiles or 'none'} (ms)")
    return "\n".join(lines)

"""The consumer's metrics."""

import time
from collections.abc import Iterable
from typing import get_args

from services.history.database import FailureReason, reason_of
from shared.observability.metrics import Sample, Tally
from shared.observability.metrics.names import (
    CONSUMER_BATCH,
    CONSUMER_COMMIT,
    CONSUMER_DATABASE_FAILURES,
    CONSUMER_DEAD_LETTERS,
    CONSUMER_LAST_COMMIT,
    CONSUMER_ROWS,
    CONSUMER_TAKEN_OVER,
)


class ConsumerMetrics:
    """Counts of one consumer since it started."""

    def __init__(self) -> None:
        self.rows = 0
        self.dead_letters = 0
        self.taken_over = 0
        self._batches = Tally(CONSUMER_BATCH)
        self._commits = Tally(CONSUMER_COMMIT)
        self._failures: dict[FailureReason, int] = dict.fromkeys(get_args(FailureReason), 0)
        self._last_commit_at_s = 0.0

    def committed(self, *, batch: int, new: int, took_s: float) -> None:
        """Count a transaction of ``batch`` decisions, ``new`` of them not stored before."""
        self.rows += new
        self._batches.add(batch)
        self._commits.add(took_s)
        self._last_commit_at_s = time.time()

    def failed(self, error: Exception) -> None:
        """Count a transaction that failed."""
        self._failures[reason_of(error)] += 1

    def samples(self) -> Iterable[Sample]:
        """The metrics so far."""
        yield Sample(CONSUMER_ROWS, self.rows)
        yield Sample(CONSUMER_BATCH, self._batches.value)
        yield Sample(CONSUMER_COMMIT, self._commits.value)
        for reason, failures in self._failures.items():
            yield Sample(CONSUMER_DATABASE_FAILURES, failures, (reason,))
        yield Sample(CONSUMER_DEAD_LETTERS, self.dead_letters)
        yield Sample(CONSUMER_TAKEN_OVER, self.taken_over)
        yield Sample(CONSUMER_LAST_COMMIT, self._last_commit_at_s)

"""What a worker counts about itself."""

import time
from collections.abc import Iterable
from typing import Final

from services.batch.jobs import State
from shared.observability.metrics import Sample
from shared.observability.metrics.names import (
    BATCH_ACTIVE,
    BATCH_DECISIONS,
    BATCH_ENDED,
    BATCH_FAILURES,
    BATCH_FAULTY_ROWS,
    BATCH_LOST,
    BATCH_SEEN,
    BATCH_SHADOWED,
    BATCH_WAITED,
    BATCH_WEBHOOKS,
    BATCH_WHAT_IF,
)

_ENDS: Final[tuple[State, ...]] = ("done", "failed")


class WorkerMetrics:
    """Counts of one worker since it started."""

    def __init__(self) -> None:
        self.active = 0
        self.decided = 0
        self.faulty = 0
        self.failures = 0
        self.lost = 0
        self.waited_s = 0.0
        self.shadowed = 0
        self.webhooks = {"delivered": 0, "failed": 0}
        self._ended = dict.fromkeys(_ENDS, 0)
        self._what_if = 0
        self._seen_at_s = 0.0

    def ended(self, state: State) -> None:
        """Count a batch that this worker has brought to its end."""
        self._ended[state] += 1

    def compared(self, decisions: int) -> None:
        """Count decisions that a what-if has read."""
        self._what_if += decisions

    def seen(self) -> None:
        """Note that the worker has just looked for something to do."""
        self._seen_at_s = time.time()

    def samples(self) -> Iterable[Sample]:
        """The metrics so far."""
        yield Sample(BATCH_ACTIVE, self.active)
        yield Sample(BATCH_DECISIONS, self.decided)
        yield Sample(BATCH_FAULTY_ROWS, self.faulty)
        yield Sample(BATCH_FAILURES, self.failures)
        yield Sample(BATCH_LOST, self.lost)
        yield Sample(BATCH_WAITED, self.waited_s)
        yield Sample(BATCH_SHADOWED, self.shadowed)
        yield Sample(BATCH_WHAT_IF, self._what_if)
        yield Sample(BATCH_SEEN, self._seen_at_s)
        for state, ended in self._ended.items():
            yield Sample(BATCH_ENDED, ended, (state,))
        for outcome, webhooks in self.webhooks.items():
            yield Sample(BATCH_WEBHOOKS, webhooks, (outcome,))

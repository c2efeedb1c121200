"""Erase decisions older than the retention period, in the background."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import and_, select

from services.history.database import DATABASE_ERRORS, AdvisoryLock, connection, try_lock
from services.history.erasure import ErasureAudit, Stores, erase
from services.history.errors import NotErased, StoreUnavailable
from services.history.settings import HistorySettings
from services.history.tables import AnyRow, predictions
from shared.contract.ids import first_uuid7_at
from shared.observability.logs import get_logger
from shared.observability.metrics import Sample
from shared.observability.metrics.names import RETENTION_ERASED, RETENTION_FAILURES

_ROWS_AT_ONCE: Final = 2000
_RETRY_S: Final = 60.0
_log = get_logger(__name__)


def kept_since(retention_days: int | None) -> datetime | None:
    """The time before which no decision is shown; None if everything is kept."""
    if retention_days is None:
        return None
    return datetime.now(UTC) - timedelta(days=retention_days)


class Retention:
    """Erases old decisions, and counts what this process erased and how often it failed."""

    def __init__(self) -> None:
        self.erased = 0
        self.failures = 0

    def samples(self) -> Iterable[Sample]:
        """Both counts."""
        yield Sample(RETENTION_ERASED, self.erased)
        yield Sample(RETENTION_FAILURES, self.failures)

    @asynccontextmanager
    async def enforced(self, stores: Stores, settings: HistorySettings) -> AsyncIterator[None]:
        """Erase old decisions every ``retention_pause_s`` during the block."""
        if settings.retention_days is None:
            yield
            return
        task = asyncio.create_task(self._run(stores, settings.retention_days, settings))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self, stores: Stores, days: int, settings: HistorySettings) -> None:
        while True:
            pause_s = settings.retention_pause_s
            try:
                async with try_lock(stores.engine, AdvisoryLock.RETENTION) as locked:
                    if locked:
                        await self._erase_before(stores, datetime.now(UTC) - timedelta(days=days))
            except (*DATABASE_ERRORS, StoreUnavailable, NotErased) as error:
                self.failures += 1
                pause_s = min(pause_s, _RETRY_S)
                _log.warning("old decisions not erased", error=str(error), pause_s=pause_s)
            await asyncio.sleep(pause_s)

    async def _erase_before(self, stores: Stores, horizon: datetime) -> None:
        """Erase what was decided before ``horizon``, a bounded number per transaction.

        Each run starts from the first decision, for one may be stored long after it was made.
        """
        loop = asyncio.get_running_loop()
        before = horizon.isoformat(timespec="milliseconds")
        audit = ErasureAudit("retention", "erase old decisions", f"decisions before {before}")
        key, last, end = predictions.c.id, UUID(int=0), first_uuid7_at(horizon)
        while True:
            started_s = loop.time()
            rows = await _next_rows(stores, after=last, before=end)
            if not rows:
                return
            after, last = last, rows[-1].id
            if any(row.kept for row in rows):
                erasure = await erase(stores, and_(key > after, key <= last), audit)
                self.erased += erasure.erased
                _log.info("erased old decisions", erased=erasure.erased, before=before)
            # Half of the time is left to other erasures.
            await asyncio.sleep(loop.time() - started_s)


async def _next_rows(stores: Stores, *, after: UUID, before: UUID) -> Sequence[AnyRow]:
    """The next keys in order, and whether each row's values are still there."""
    key = predictions.c.id
    statement = (
        select(key, predictions.c.erased_at.is_(None).label("kept"))
        .where(key > after, key < before)
        .order_by(key)
        .limit(_ROWS_AT_ONCE)
    )
    async with connection(stores.engine) as opened:
        return (await opened.execute(statement)).all()

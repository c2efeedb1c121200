"""Erase what is older than the lender may keep, in the background."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import and_, select

from services.history.database import DATABASE_ERRORS, alone, connection
from services.history.erasure import Reason, Stores, erase
from services.history.errors import NotErased, StoreUnavailable
from services.history.settings import HistorySettings
from services.history.tables import AnyRow, predictions
from shared.contract.ids import first_uuid7_at
from shared.observability.logs import get_logger
from shared.observability.metrics import Sample
from shared.observability.metrics.names import RETENTION_ERASED, RETENTION_FAILURES

_LOCK_KEY: Final = 0x10A2_0A6E
"""Names the lock that the one process that erases holds; see ``audit`` for another."""

_ROWS_AT_ONCE: Final = 2000
_RETRY_S: Final = 60.0
_log = get_logger(__name__)


def kept_since(retention_days: int | None) -> datetime | None:
    """The time before which nothing is shown any more; None if everything is kept."""
    if retention_days is None:
        return None
    return datetime.now(UTC) - timedelta(days=retention_days)


class Retention:
    """What this process erased for its age, and how often it could not."""

    def __init__(self) -> None:
        self.erased = 0
        self.failures = 0

    def samples(self) -> Iterable[Sample]:
        """Both counts, for Prometheus."""
        yield Sample(RETENTION_ERASED, self.erased)
        yield Sample(RETENTION_FAILURES, self.failures)

    @asynccontextmanager
    async def enforced(self, stores: Stores, settings: HistorySettings) -> AsyncIterator[None]:
        """Erase what is too old, now and every so often, until the context is left."""
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
                async with alone(stores.engine, _LOCK_KEY) as only_one:
                    if only_one:
                        await self._erase_before(stores, datetime.now(UTC) - timedelta(days=days))
            except (*DATABASE_ERRORS, StoreUnavailable, NotErased) as error:
                self.failures += 1
                pause_s = min(pause_s, _RETRY_S)
                _log.warning("old decisions not erased", error=str(error), pause_s=pause_s)
            await asyncio.sleep(pause_s)

    async def _erase_before(self, stores: Stores, horizon: datetime) -> None:
        """Erase what was decided before ``horizon``, a bounded number in each transaction.

        Every time from the very beginning: a decision may be stored long after it was made.
        """
        loop = asyncio.get_running_loop()
        before = horizon.isoformat(timespec="milliseconds")
        reason = Reason("retention", "erase old decisions", f"decisions before {before}")
        key, last, end = predictions.c.id, UUID(int=0), first_uuid7_at(horizon)
        while True:
            started_s = loop.time()
            rows = await _next_rows(stores, after=last, before=end)
            if not rows:
                return
            after, last = last, rows[-1].id
            if any(row.kept for row in rows):
                erasure = await erase(stores, and_(key > after, key <= last), reason)
                self.erased += erasure.erased
                _log.info("erased old decisions", erased=erasure.erased, before=before)
            # Half of the time is left to those who do not come by the million.
            await asyncio.sleep(loop.time() - started_s)


async def _next_rows(stores: Stores, *, after: UUID, before: UUID) -> Sequence[AnyRow]:
    """The next keys in order, and whether the values are still there."""
    key = predictions.c.id
    statement = (
        select(key, predictions.c.erased_at.is_(None).label("kept"))
        .where(key > after, key < before)
        .order_by(key)
        .limit(_ROWS_AT_ONCE)
    )
    async with connection(stores.engine) as opened:
        return (await opened.execute(statement)).all()

"""What Redis and PostgreSQL report about themselves, for Prometheus."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic
from typing import Final

from redis.asyncio import Redis
from sqlalchemy import QueuePool, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import stream
from services.history.database import DATABASE_ERRORS
from services.history.heartbeat import BUSY_S
from services.history.settings import HistorySettings
from shared.observability.metrics import Sample
from shared.observability.metrics.names import (
    DATABASE_BUDGET,
    DATABASE_POOL,
    DATABASE_SIZE,
    DATABASE_UP,
    REDIS_FULL,
    REDIS_MAX_MEMORY,
    REDIS_MEMORY,
    STREAM_CONSUMERS,
    STREAM_DEAD_LETTERS,
    STREAM_ENTRIES,
    STREAM_LAG,
    STREAM_OLDEST_PENDING,
    STREAM_PENDING,
    STREAM_UP,
)
from shared.redis import REDIS_ERRORS, is_full

_DEADLINE_S: Final = 1.0
_KEEP_S: Final = 1.0


class ServerMetrics:
    """Queries both servers on request, at most once a second, and waits at most a second.

    A server that does not answer by then is reported as down, without any other metric: no stale
    value is shown.
    """

    def __init__(self, settings: HistorySettings, *, engine: AsyncEngine, redis: Redis) -> None:
        self._engine = engine
        self._redis = redis
        self._budget_bytes = settings.database_budget_bytes
        self._seen_within_s = settings.consumer_block_s + BUSY_S
        self._querying = asyncio.Lock()
        self._samples: Sequence[Sample] = ()
        self._expire_at_s = 0.0

    def pool(self) -> Iterable[Sample]:
        """The connections of this process."""
        pool = self._engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101 - as ``open_engine`` makes it
        yield Sample(DATABASE_POOL, pool.checkedin(), ("idle",))
        yield Sample(DATABASE_POOL, pool.checkedout(), ("in_use",))

    async def samples(self) -> Sequence[Sample]:
        """The servers' metrics, at most a second old."""
        async with self._querying:
            if monotonic() >= self._expire_at_s:
                redis, database = await asyncio.gather(
                    in_time(self._query_redis, _DEADLINE_S),
                    in_time(self._query_database, _DEADLINE_S),
                )
                self._samples = (
                    Sample(STREAM_UP, int(redis is not None)),
                    *(redis or ()),
                    Sample(DATABASE_UP, int(database is not None)),
                    *(database or ()),
                )
                self._expire_at_s = monotonic() + _KEEP_S
            return self._samples

    async def _query_redis(self) -> Sequence[Sample]:
        backlog = await stream.backlog(self._redis)
        memory = await self._redis.info("memory")
        samples = (
            Sample(STREAM_ENTRIES, backlog.entries),
            Sample(STREAM_LAG, backlog.entries - backlog.pending),
            Sample(STREAM_PENDING, backlog.pending),
            Sample(STREAM_OLDEST_PENDING, backlog.oldest_pending_s),
            Sample(STREAM_DEAD_LETTERS, backlog.dead_letters),
            Sample(
                STREAM_CONSUMERS,
                sum(seen < self._seen_within_s for seen in backlog.consumers_seen_s_ago),
            ),
            Sample(REDIS_MEMORY, memory["used_memory"]),
            Sample(REDIS_FULL, int(await is_full(self._redis))),
        )
        # Redis reports no limit as 0, which would read as no memory at all.
        limit = memory["maxmemory"]
        return (*samples, Sample(REDIS_MAX_MEMORY, limit)) if limit else samples

    async def _query_database(self) -> Sequence[Sample]:
        async with self._engine.connect() as connection:
            size = await connection.execute(select(func.pg_database_size(func.current_database())))
            sample = Sample(DATABASE_SIZE, size.scalar_one())
        budget = self._budget_bytes
        return (sample,) if budget is None else (sample, Sample(DATABASE_BUDGET, budget))


async def in_time(
    query: Callable[[], Awaitable[Sequence[Sample]]], deadline_s: float
) -> Sequence[Sample] | None:
    """The server's metrics; None if it did not answer in time."""
    try:
        async with asyncio.timeout(deadline_s):
            return await query()
    except (*REDIS_ERRORS, *DATABASE_ERRORS):
        return None

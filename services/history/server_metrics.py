"""What Redis and PostgreSQL tell of themselves, for Prometheus."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError
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

_DEADLINE_S: Final = 1.0
_REMEMBER_S: Final = 1.0
_AWAY: Final = (RedisError, *DATABASE_ERRORS)


class ServerMetrics:
    """Asks both servers when it is asked, at most once a second, and waits a second at most.

    A server that does not answer in that time is said to be down and has no other figures, so that
    nothing old is shown.
    """

    def __init__(self, settings: HistorySettings, *, engine: AsyncEngine, redis: Redis) -> None:
        self._engine = engine
        self._redis = redis
        self._budget_bytes = settings.database_budget_bytes
        self._seen_within_s = settings.consumer_block_s + BUSY_S
        self._asking = asyncio.Lock()
        self._told: Sequence[Sample] = ()
        self._ask_again_at_s = 0.0

    def pool(self) -> Iterable[Sample]:
        """The connections of this process; asks nobody."""
        pool = self._engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101 - as ``open_engine`` makes it
        yield Sample(DATABASE_POOL, pool.checkedin(), ("idle",))
        yield Sample(DATABASE_POOL, pool.checkedout(), ("in_use",))

    async def samples(self) -> Sequence[Sample]:
        """What the servers told within the last second."""
        async with self._asking:
            if monotonic() >= self._ask_again_at_s:
                redis, database = await asyncio.gather(
                    _in_time(self._ask_redis), _in_time(self._ask_database)
                )
                self._told = (
                    Sample(STREAM_UP, int(redis is not None)),
                    *(redis or ()),
                    Sample(DATABASE_UP, int(database is not None)),
                    *(database or ()),
                )
                self._ask_again_at_s = monotonic() + _REMEMBER_S
            return self._told

    async def _ask_redis(self) -> Sequence[Sample]:
        backlog = await stream.backlog(self._redis, seen_within_s=self._seen_within_s)
        memory = await self._redis.info("memory")
        samples = (
            Sample(STREAM_ENTRIES, backlog.entries),
            Sample(STREAM_LAG, backlog.entries - backlog.pending),
            Sample(STREAM_PENDING, backlog.pending),
            Sample(STREAM_OLDEST_PENDING, backlog.oldest_pending_s),
            Sample(STREAM_DEAD_LETTERS, backlog.dead_letters),
            Sample(STREAM_CONSUMERS, backlog.consumers),
            Sample(REDIS_MEMORY, memory["used_memory"]),
        )
        # Redis calls it 0 when there is no limit, which would look like no memory at all.
        limit = memory["maxmemory"]
        return (*samples, Sample(REDIS_MAX_MEMORY, limit)) if limit else samples

    async def _ask_database(self) -> Sequence[Sample]:
        async with self._engine.connect() as connection:
            size = await connection.execute(select(func.pg_database_size(func.current_database())))
            sample = Sample(DATABASE_SIZE, size.scalar_one())
        budget = self._budget_bytes
        return (sample,) if budget is None else (sample, Sample(DATABASE_BUDGET, budget))


async def _in_time(ask: Callable[[], Awaitable[Sequence[Sample]]]) -> Sequence[Sample] | None:
    """What the server told, None when it did not."""
    try:
        async with asyncio.timeout(_DEADLINE_S):
            return await ask()
    except _AWAY:
        return None

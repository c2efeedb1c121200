"""Store what the stream hands over: ``python -m services.history.consumer``.

Guarantee: an entry is acknowledged only after the transaction that holds it has committed, and
storing it twice is harmless, so whatever dies at whatever moment, each decision ends up stored
exactly once. An entry that cannot be stored at all is put aside after a number of deliveries
(counted by Redis, so a restart forgets none) and never holds up the others.
"""

import asyncio
import gc
import logging
import random
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import stream
from services.history.database import DATABASE_ERRORS, is_data_error, open_engine
from services.history.recorder import DecodedRow, Undecodable, decode, store
from services.history.settings import CACHE_PREFIX, HistorySettings
from services.history.stream import Entry
from shared.cache import Cache
from shared.events import DEAD_LETTER_STREAM
from shared.redis import COMMAND_TIMEOUT_S, connect
from shared.telemetry import configure_logging

_INVALIDATE_EVERY_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.1
_REDIS_ERRORS: Final = (RedisError, OSError)
_log = logging.getLogger(__name__)


class Unfinished(Exception):
    """The consumer was asked to stop while the database was down; the batch stays on the stream."""


class Unusable(NamedTuple):
    """An entry that cannot be stored, and why."""

    entry: Entry
    reason: str


class Batch(NamedTuple):
    """Entries with their rows, and those that make none."""

    usable: list[tuple[Entry, DecodedRow]]
    unusable: list[Unusable]


def decode_all(entries: Iterable[Entry]) -> Batch:
    """Decode each entry by itself: one that is no event costs the others nothing."""
    batch = Batch([], [])
    for entry in entries:
        try:
            batch.usable.append((entry, decode(entry.payload)))
        except Undecodable as error:
            batch.unusable.append(Unusable(entry, str(error)))
    return batch


class Consumer:
    """One member of the consumer group.

    ``reader`` is the client of the blocking read alone; its command timeout must exceed the
    longest wait for new entries. ``redis`` serves everything else.
    """

    def __init__(
        self,
        settings: HistorySettings,
        *,
        engine: AsyncEngine,
        reader: Redis,
        redis: Redis,
        cache: Cache,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._reader = reader
        self._redis = redis
        self._cache = cache
        self._stopping = asyncio.Event()
        self._failures = 0
        self._take_over_at_s = 0.0
        self._invalidate_at_s = 0.0
        self._cache_is_stale = False
        self._finishing: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Finish what was read and return from ``run``."""
        self._stopping.set()

    async def run(self) -> None:
        """Store entries until ``stop``; failures of either server are waited out.

        Three batches are in hand at most: while one is stored, the next is read and decoded and
        the one before is acknowledged.
        """
        reading = asyncio.create_task(self._read())
        try:
            while True:
                batch = await reading
                stopping = self._stopping.is_set()
                if not stopping:
                    reading = asyncio.create_task(self._read())
                if batch.usable or batch.unusable:
                    await self._handle(batch)
                if stopping:
                    break
                await self._keep_house()
        except Unfinished:
            _log.warning("stopped while the database was down; the batch stays on the stream")
        finally:
            reading.cancel()
        await self._finished()
        if self._cache_is_stale:
            await self._invalidate()

    async def _read(self) -> Batch:
        settings = self._settings
        try:
            entries = await stream.read_new(
                self._reader,
                consumer=settings.consumer_name,
                count=settings.consumer_batch_size,
                block_s=settings.consumer_block_s,
            )
        except _REDIS_ERRORS as error:
            await self._recover(error)
            entries = []
        else:
            self._failures = 0
        return decode_all(entries)

    async def _recover(self, error: Exception) -> None:
        if not stream.is_missing_group(error):
            await self._pause("Redis", error)
            return
        try:
            await stream.create_group(self._redis)
        except _REDIS_ERRORS as again:
            await self._pause("Redis", again)
        else:
            _log.info("made the consumer group")

    async def _handle(self, batch: Batch) -> None:
        """Store the batch; what is left to do with its entries is done while the next is stored."""
        refused = await self._store(batch.usable)
        refused_ids = {entry.id for entry, _ in refused}
        stored = [entry for entry, _ in batch.usable if entry.id not in refused_ids]
        if stored:
            self._cache_is_stale = True
        await self._finished()
        self._finishing = asyncio.create_task(self._finish(stored, batch.unusable + refused))

    async def _finish(self, stored: Sequence[Entry], unusable: Sequence[Unusable]) -> None:
        """Acknowledge what is stored, and deal with the unusable rest after."""
        try:
            if stored:
                await stream.finish(self._redis, stored)
            for entry, reason in unusable:
                await self._retry_or_put_aside(entry, reason)
        except _REDIS_ERRORS as error:
            # Stored but perhaps not acknowledged: it will be taken over and found stored.
            await self._pause("Redis", error)

    async def _finished(self) -> None:
        """Return once the entries of the batch stored last are dealt with."""
        if self._finishing is not None:
            await self._finishing

    async def _store(self, usable: Sequence[tuple[Entry, DecodedRow]]) -> list[Unusable]:
        """Commit the rows; those that the database refuses by themselves, with its reason.

        A refused batch is halved until the refused rows stand alone, so they cost the others
        nothing but a few more transactions.
        """
        if not usable:
            return []
        try:
            await self._commit([row for _, row in usable])
        except DBAPIError as error:
            if len(usable) == 1:
                return [Unusable(usable[0][0], str(error.orig))]
            middle = len(usable) // 2
            return await self._store(usable[:middle]) + await self._store(usable[middle:])
        return []

    async def _commit(self, rows: Sequence[DecodedRow]) -> None:
        """Commit the rows, however long the database is away.

        Raises ``DBAPIError`` only when it refuses the values, and ``Unfinished``.
        """
        while True:
            try:
                await store(self._engine, rows)
            except DATABASE_ERRORS as error:
                if is_data_error(error):
                    raise
                if self._stopping.is_set():
                    raise Unfinished from error
                await self._pause("the database", error)
            else:
                self._failures = 0
                return

    async def _retry_or_put_aside(self, entry: Entry, reason: str) -> None:
        delivered = await stream.deliveries(self._redis, entry)
        if delivered < self._settings.consumer_max_deliveries:
            # A newer consumer may understand it, so it stays pending and comes round again.
            _log.warning("entry %s cannot be stored (delivery %d)", entry.id.decode(), delivered)
            return
        await stream.put_aside(self._redis, entry, error=reason, delivered=delivered)
        # The reason stands beside the entry; it may quote values, which do not belong in a log.
        _log.error("entry %s was put aside to %s", entry.id.decode(), DEAD_LETTER_STREAM)

    async def _keep_house(self) -> None:
        """Take over what other consumers left, and let the caches go, each now and then."""
        settings = self._settings
        if time.monotonic() >= self._take_over_at_s:
            try:
                taken = await stream.take_over(
                    self._redis,
                    consumer=settings.consumer_name,
                    count=settings.consumer_batch_size,
                    idle_s=settings.consumer_reclaim_idle_s,
                )
            except _REDIS_ERRORS as error:
                await self._pause("Redis", error)
                return
            if len(taken) < settings.consumer_batch_size:
                self._take_over_at_s = time.monotonic() + settings.consumer_reclaim_idle_s
            if taken:
                await self._handle(decode_all(taken))
        if self._cache_is_stale and time.monotonic() >= self._invalidate_at_s:
            await self._invalidate()

    async def _invalidate(self) -> None:
        try:
            await self._cache.invalidate()
        except _REDIS_ERRORS as error:
            await self._pause("Redis", error)
        else:
            self._cache_is_stale = False
            self._invalidate_at_s = time.monotonic() + _INVALIDATE_EVERY_S

    async def _pause(self, what: str, error: Exception) -> None:
        """Wait longer after each failure, and at random, so that consumers do not come in step."""
        longest_s = min(self._settings.consumer_retry_max_s, _FIRST_PAUSE_S * 2**self._failures)
        self._failures += 1
        pause_s = random.uniform(longest_s / 2, longest_s)  # noqa: S311 - timing, not a secret
        _log.warning("%s: %s; next attempt in %.1f s", what, _reason(error), pause_s)
        try:
            await asyncio.wait_for(self._stopping.wait(), pause_s)
        except TimeoutError:
            return


def _reason(error: Exception) -> str:
    """What the server or the driver said, without the statement around it."""
    said = str(error.orig if isinstance(error, DBAPIError) else error)
    return said or type(error).__name__


async def consume(settings: HistorySettings) -> None:
    """Run one consumer until SIGTERM or SIGINT."""
    engine = open_engine(
        settings.database_url,
        name="history-consumer",
        pool_size=1,
        connect_timeout_s=settings.database_connect_timeout_s,
        command_timeout_s=settings.database_command_timeout_s,
        ping_first=False,
    )
    redis = connect(settings.redis_url)
    reader = connect(
        settings.redis_url, command_timeout_s=settings.consumer_block_s + COMMAND_TIMEOUT_S
    )
    cache = Cache(connect(settings.redis_url), prefix=CACHE_PREFIX)
    consumer = Consumer(settings, engine=engine, reader=reader, redis=redis, cache=cache)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, consumer.stop)
    try:
        await consumer.run()
    finally:
        await cache.aclose()
        await reader.aclose()
        await redis.aclose()
        await engine.dispose()


def _collect_seldom() -> None:
    """Have the garbage collector look at fewer objects, and more seldom.

    A batch is thousands of containers in no cycle, freed by their reference counts; at the
    default thresholds looking through them, and all modules with them, costs a tenth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000)


def main() -> int:
    """Consume; the exit code is 0 after SIGTERM or SIGINT."""
    settings = HistorySettings()
    configure_logging(settings.log_level)
    _collect_seldom()
    uvloop.run(consume(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())

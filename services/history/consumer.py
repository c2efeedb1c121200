"""Store what the stream hands over: ``python -m services.history.consumer``.

Guarantee: an entry is acknowledged only after the transactions that hold its events have
committed, and storing an event twice is harmless, so whatever dies at whatever moment, each
decision ends up stored exactly once. An event that cannot be stored at all is put aside after a
number of deliveries (counted by Redis, so a restart forgets none) and never holds up the others.
"""

import asyncio
import gc
import random
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import count, repeat
from typing import Final, NamedTuple, TypeAlias

import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import stream
from services.history.cache import Cache
from services.history.consumer_metrics import ConsumerMetrics, metrics_server
from services.history.copying import EncodedRow
from services.history.database import DATABASE_ERRORS, is_data_error, open_engine
from services.history.recorder import Undecodable, read_row, store
from services.history.settings import CACHE_PREFIX, HistorySettings
from services.history.stream import Entry
from shared.contract.events import DEAD_LETTER_STREAM
from shared.observability.logs import configure_logging, get_logger, take_over_output
from shared.observability.tracing import NO_TRACING, Tracing, start_tracing
from shared.redis import COMMAND_TIMEOUT_S, connect
from shared.settings import read_settings_or_exit

CONCURRENT_BATCHES: Final = 4
"""Batches in hand at a time: while the servers are at work on some, another is decoded. Each has a
connection of its own; with fewer the process waits for round trips, with more nothing is gained."""

_FIRST_READ: Final = 16
"""Entries asked for before it is known how many events an entry holds."""

_INVALIDATE_EVERY_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.1
_REDIS_ERRORS: Final = (RedisError, OSError)
_log = get_logger("services.history.consumer")


class Unfinished(Exception):
    """The consumer was asked to stop while the database was down; the batch stays on the stream."""


Origin: TypeAlias = tuple[Entry, bytes]
"""An event, and the entry it came in."""


class Unusable(NamedTuple):
    """An event that cannot be stored, and why."""

    entry: Entry
    event: bytes
    reason: str


class Batch(NamedTuple):
    """The events of some entries: those that make rows, beside these, and those that make none."""

    origins: list[Origin]
    rows: list[EncodedRow]
    unusable: list[Unusable]


async def decode_all(entries: Iterable[Entry]) -> Batch:
    """Decode each event by itself: one that is none costs the others nothing."""
    batch = Batch([], [], [])
    for entry in entries:
        # The other batches' transactions hold rows that every writer waits for: their next
        # statements must not wait until this whole batch is decoded.
        await asyncio.sleep(0)
        events = entry.events
        try:
            rows = list(map(read_row, events))
        except Undecodable:
            events, rows = _sort_out(entry, batch.unusable)
        batch.origins.extend(zip(repeat(entry), events, strict=False))
        batch.rows.extend(rows)
    return batch


def _sort_out(entry: Entry, unusable: list[Unusable]) -> tuple[list[bytes], list[EncodedRow]]:
    """The events that make rows, and these; what makes none is added to ``unusable``."""
    events, rows = [], []
    for event in entry.events:
        try:
            rows.append(read_row(event))
        except Undecodable as error:
            unusable.append(Unusable(entry, event, str(error)))
        else:
            events.append(event)
    return events, rows


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
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._reader = reader
        self._redis = redis
        self._cache = cache
        self._tracing = tracing
        self.figures = ConsumerMetrics()
        self._stopping = asyncio.Event()
        self._take_over_at_s = 0.0
        self._invalidate_at_s = 0.0
        self._cache_is_stale = False
        self._entries_wanted = _FIRST_READ
        self._in_hand: set[bytes] = set()

    def stop(self) -> None:
        """Finish what was read and return from ``run``."""
        self._stopping.set()

    async def run(self) -> None:
        """Store entries until ``stop``; failures of either server are waited out."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(CONCURRENT_BATCHES):
                workers.create_task(self._work())
        if self._cache_is_stale:
            await self._invalidate()

    async def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                await self._handle(await self._read())
                await self._keep_house()
        except Unfinished:
            _log.warning("stopped while the database was down; the batch stays on the stream")

    async def _read(self) -> list[Entry]:
        settings = self._settings
        for failures in count():
            try:
                return await stream.read_new(
                    self._reader,
                    consumer=settings.consumer_name,
                    count=self._entries_wanted,
                    block_s=settings.consumer_block_s,
                )
            except _REDIS_ERRORS as error:
                if not (stream.is_missing_group(error) and await self._make_group()):
                    await self._pause("redis", error, failures)
            if self._stopping.is_set():
                break
        return []

    async def _make_group(self) -> bool:
        try:
            await stream.create_group(self._redis)
        except _REDIS_ERRORS:
            return False
        _log.info("made the consumer group")
        return True

    async def _handle(self, entries: Sequence[Entry]) -> None:
        """Settle the entries, which nobody else here takes over meanwhile."""
        ids = {entry.id for entry in entries}
        self._in_hand |= ids
        try:
            await self._settle(entries)
        finally:
            self._in_hand -= ids

    async def _settle(self, entries: Sequence[Entry]) -> None:
        """Store the events, then acknowledge the entries; deal with the unusable rest after."""
        if not entries:
            return
        batch = await decode_all(entries)
        size = self._settings.consumer_batch_size
        events = len(batch.rows) + len(batch.unusable)
        # The next read is to bring one batch, whether entries hold one event or many.
        self._entries_wanted = min(size, max(1, size * len(entries) // events))
        unusable = batch.unusable
        for first in range(0, len(batch.rows), size):
            part = slice(first, first + size)
            unusable += await self._store(batch.origins[part], batch.rows[part])
        self._cache_is_stale = True
        left = {event.entry.id for event in unusable}
        stored = [entry.id for entry in entries if entry.id not in left]
        try:
            if stored:
                await stream.finish(self._redis, stored)
            for entry in entries:
                if entry.id in left:
                    await self._retry_or_put_aside(
                        entry,
                        {event.event: event.reason for event in unusable if event.entry is entry},
                    )
        except _REDIS_ERRORS as error:
            # What is stored but not acknowledged will be taken over and found stored.
            _log.warning("not acknowledged", error=_reason(error))

    async def _store(self, origins: Sequence[Origin], rows: Sequence[EncodedRow]) -> list[Unusable]:
        """Commit the rows; the events that the database refuses by themselves, with its reason.

        A refused batch is halved until the refused rows stand alone, so they cost the others
        nothing but a few more transactions.
        """
        try:
            await self._commit(origins, rows)
        except DBAPIError as error:
            if len(rows) == 1:
                return [Unusable(*origins[0], str(error.orig))]
            middle = len(rows) // 2
            return await self._store(origins[:middle], rows[:middle]) + await self._store(
                origins[middle:], rows[middle:]
            )
        return []

    async def _commit(self, origins: Sequence[Origin], rows: Sequence[EncodedRow]) -> None:
        """Commit the rows, however long the database is away.

        Raises ``DBAPIError`` only when it refuses the values, and ``Unfinished``.
        """
        for failures in count():
            began_ns = time.time_ns()
            try:
                new = await store(self._engine, rows)
            except DATABASE_ERRORS as error:
                self.figures.failed(error)
                if is_data_error(error):
                    raise
                if self._stopping.is_set():
                    raise Unfinished from error
                await self._pause("postgres", error, failures)
            else:
                events = (event for _, event in origins)
                self._tracing.committed(events, rows=len(rows), began_ns=began_ns)
                took_s = (time.time_ns() - began_ns) / 1e9
                self.figures.committed(batch=len(rows), new=new, took_s=took_s)
                return

    async def _retry_or_put_aside(self, entry: Entry, unusable: Mapping[bytes, str]) -> None:
        delivered = await stream.deliveries(self._redis, entry)
        if delivered < self._settings.consumer_max_deliveries:
            # A newer consumer may understand it, so it stays pending and comes round again.
            _log.warning(
                "events cannot be stored",
                events=len(unusable),
                entry=entry.id.decode(),
                delivery=delivered,
            )
            return
        await stream.put_aside(self._redis, entry, unusable, delivered=delivered)
        self.figures.dead_letters += len(unusable)
        # The reason stands beside the event; it may quote values, which do not belong in a log.
        _log.error(
            "events put aside",
            events=len(unusable),
            entry=entry.id.decode(),
            stream=DEAD_LETTER_STREAM,
        )

    async def _keep_house(self) -> None:
        """Take over what other consumers left, and let the caches go, each now and then."""
        if time.monotonic() >= self._take_over_at_s:
            self._take_over_at_s = time.monotonic() + self._settings.consumer_reclaim_idle_s
            await self._take_over()
        if self._cache_is_stale and time.monotonic() >= self._invalidate_at_s:
            await self._invalidate()

    async def _take_over(self) -> None:
        settings = self._settings
        full = True
        while full and not self._stopping.is_set():
            wanted = self._entries_wanted
            try:
                taken = await stream.take_over(
                    self._redis,
                    consumer=settings.consumer_name,
                    count=wanted,
                    idle_s=settings.consumer_reclaim_idle_s,
                )
            except _REDIS_ERRORS as error:
                _log.warning("nothing taken over", error=_reason(error))
                return
            # During an outage entries grow old in these very hands.
            left = [entry for entry in taken if entry.id not in self._in_hand]
            self.figures.taken_over += len(left)
            await self._handle(left)
            full = len(taken) == wanted

    async def _invalidate(self) -> None:
        # Noted before the wait, so that what is committed meanwhile is followed up too.
        self._cache_is_stale = False
        self._invalidate_at_s = time.monotonic() + _INVALIDATE_EVERY_S
        try:
            await self._cache.invalidate()
        except _REDIS_ERRORS as error:
            self._cache_is_stale = True
            _log.warning("caches not invalidated", error=_reason(error))

    async def _pause(self, server: str, error: Exception, failures: int) -> None:
        """Wait longer after each failure, and at random, so that consumers do not come in step."""
        # Hours of failures must not make a number too large for a float.
        longest_s = min(
            self._settings.consumer_retry_max_s, _FIRST_PAUSE_S * 2 ** min(failures, 20)
        )
        pause_s = random.uniform(longest_s / 2, longest_s)  # noqa: S311 - timing, not a secret
        _log.warning("server away", server=server, error=_reason(error), pause_s=round(pause_s, 1))
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
        pool_size=CONCURRENT_BATCHES,
        connect_timeout_s=settings.database_connect_timeout_s,
        command_timeout_s=settings.database_command_timeout_s,
        ping_first=False,
    )
    redis = connect(settings.redis_url)
    reader = connect(
        settings.redis_url, command_timeout_s=settings.consumer_block_s + COMMAND_TIMEOUT_S
    )
    cache = Cache(connect(settings.redis_url), prefix=CACHE_PREFIX)
    tracing = start_tracing("history-consumer")
    consumer = Consumer(
        settings, engine=engine, reader=reader, redis=redis, cache=cache, tracing=tracing
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, consumer.stop)
    try:
        with metrics_server(consumer.figures, settings):
            await consumer.run()
    finally:
        await cache.aclose()
        await reader.aclose()
        await redis.aclose()
        await engine.dispose()
        await tracing.close()


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
    take_over_output()
    settings = read_settings_or_exit(HistorySettings)
    configure_logging(settings)
    _collect_seldom()
    uvloop.run(consume(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())

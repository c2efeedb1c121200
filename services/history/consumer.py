"""Store the decisions of the stream: ``python -m services.history.consumer``.

Guarantee: an entry is acknowledged only after the transactions that hold its events have
committed, and storing an event again changes nothing. So whichever process dies at whatever
moment, each decision ends up stored exactly once. An event that cannot be stored is moved to the
dead-letter stream after a number of deliveries (Redis counts them, so a restart forgets none) and
never holds up the others.
"""

import asyncio
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, TypeAlias, TypeVar

import uvloop
from redis.asyncio import Redis
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import stream
from services.history.cache import Cache
from services.history.consumer_metrics import ConsumerMetrics
from services.history.database import DATABASE_ERRORS, Unstorable, open_engine
from services.history.recorder import Undecodable, decode, store
from services.history.records import Row
from services.history.settings import CACHE_PREFIX, HistorySettings
from services.history.stream import Entry
from shared import keep_loaded
from shared.contract.events import DEAD_LETTER_STREAM
from shared.observability.logs import configure_logging, get_logger, take_over_output
from shared.observability.metrics import Metrics, build_info
from shared.observability.metrics.server import metrics_server
from shared.observability.tracing import NO_TRACING, Tracing, start_tracing
from shared.redis import COMMAND_TIMEOUT_S, REDIS_ERRORS, connect
from shared.settings import read_settings_or_exit, redis_faults

CONCURRENT_BATCHES: Final = 4
"""Batches in progress at a time, each with a connection of its own: while the servers work on some,
another is decoded. With fewer the process waits for round trips; more gain nothing."""

_FIRST_READ: Final = 16
"""Entries to read before it is known how many events an entry holds."""

_DECODED_AT_ONCE: Final = 64
"""Events to decode, in a fifth of a millisecond, before other batches have their turn."""

_INVALIDATE_EVERY_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.1
_SERVER_ERRORS: Final = (*REDIS_ERRORS, *DATABASE_ERRORS)
_Result = TypeVar("_Result")
_log = get_logger("services.history.consumer")


class Unfinished(Exception):
    """The consumer was asked to stop while a server was down; the message names the server."""


Decoded: TypeAlias = tuple[Entry, bytes, Row]
"""The entry, an event of it and the event's row."""


class Unusable(NamedTuple):
    """An event that cannot be stored, and why."""

    entry: Entry
    event: bytes
    reason: str


class Batch(NamedTuple):
    """The events of some entries."""

    decoded: list[Decoded]
    unusable: list[Unusable]


async def decode_all(entries: Iterable[Entry]) -> Batch:
    """Decode each event by itself, so that a malformed one costs the others nothing."""
    batch = Batch([], [])
    events = [(each, event) for each in entries for event in each.events]
    for number, (entry, event) in enumerate(events):
        # Other batches hold locks that every writer waits for: their next statements must not
        # wait until all of this batch is decoded.
        if number % _DECODED_AT_ONCE == 0:
            await asyncio.sleep(0)
        try:
            row = decode(event)
        except Undecodable as error:
            batch.unusable.append(Unusable(entry, event, str(error)))
        else:
            batch.decoded.append((entry, event, row))
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
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._reader = reader
        self._redis = redis
        self._cache = cache
        self._tracing = tracing
        self.metrics = ConsumerMetrics()
        self._stopping = asyncio.Event()
        self._reading = asyncio.Lock()
        self._read_at_s = 0.0
        self._take_over_at_s = 0.0
        self._invalidate_at_s = 0.0
        self._cache_is_stale = False
        self._entries_wanted = _FIRST_READ
        self._in_hand: set[bytes] = set()

    def stop(self) -> None:
        """Finish what was read and return from ``run``."""
        self._stopping.set()

    async def run(self) -> None:
        """Store entries until ``stop``, waiting out failures of either server."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(CONCURRENT_BATCHES):
                workers.create_task(self._work())
        if self._cache_is_stale:
            await self._invalidate()

    async def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                await self._handle(await self._read_batch())
                if time.monotonic() >= self._take_over_at_s:
                    await self._take_over()
                if self._cache_is_stale and time.monotonic() >= self._invalidate_at_s:
                    await self._invalidate()
        except Unfinished as error:
            _log.warning("stopped while a server was down", server=str(error))

    async def _read_batch(self) -> list[Entry]:
        """The next entries; one worker at a time reads.

        After a read that brought less than a batch, events gather for a moment before the next
        one: a trickle of events then costs a few transactions a second, not one for each event.
        """
        async with self._reading:
            await self._sleep(self._read_at_s - time.monotonic())
            if self._stopping.is_set():
                return []
            wanted = self._entries_wanted
            entries = await self._retrying("redis", self._read)
            if 0 < len(entries) < wanted:
                self._read_at_s = time.monotonic() + self._settings.consumer_gather_s
            return entries

    async def _sleep(self, duration_s: float) -> None:
        """Sleep, but not beyond ``stop``."""
        if duration_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), duration_s)

    async def _read(self) -> list[Entry]:
        settings = self._settings
        try:
            return await stream.read_new(
                self._reader,
                consumer=settings.consumer_name,
                count=self._entries_wanted,
                block_s=settings.consumer_block_s,
            )
        except REDIS_ERRORS as error:
            if not stream.is_missing_group(error):
                raise
        await stream.create_group(self._redis)
        _log.info("created the consumer group")
        return []

    async def _retrying(self, server: str, operation: Callable[[], Awaitable[_Result]]) -> _Result:
        """The result of ``operation``, repeated while ``server`` is down; raises ``Unfinished``."""
        failures = 0
        while True:
            try:
                return await operation()
            except _SERVER_ERRORS as error:
                if self._stopping.is_set():
                    raise Unfinished(server) from error
                await self._pause(server, error, failures)
                failures += 1

    async def _pause(self, server: str, error: Exception, failures: int) -> None:
        """Back off exponentially, with jitter so that consumers do not retry in step."""
        # Hours of failures must not make a number too large for a float.
        longest_s = min(
            self._settings.consumer_retry_max_s, _FIRST_PAUSE_S * 2 ** min(failures, 20)
        )
        pause_s = random.uniform(longest_s / 2, longest_s)  # noqa: S311 - timing, not a secret
        _log.warning("server down", server=server, error=_reason(error), pause_s=round(pause_s, 1))
        await self._sleep(pause_s)

    async def _handle(self, entries: Sequence[Entry]) -> None:
        """Settle the entries, which this process does not take over from itself meanwhile."""
        ids = {entry.id for entry in entries}
        self._in_hand |= ids
        try:
            await self._settle(entries)
        finally:
            self._in_hand -= ids

    async def _settle(self, entries: Sequence[Entry]) -> None:
        """Store the events and acknowledge the entries, then deal with unusable events."""
        if not entries:
            return
        decoded, unusable = await decode_all(entries)
        size = self._settings.consumer_batch_size
        # The next read should bring one batch, whether entries hold one event or many.
        events = len(decoded) + len(unusable)
        self._entries_wanted = min(size, max(1, size * len(entries) // events))
        for first in range(0, len(decoded), size):
            unusable += await self._store(decoded[first : first + size])
        self._cache_is_stale = True
        kept = {event.entry.id for event in unusable}
        stored = [entry.id for entry in entries if entry.id not in kept]
        try:
            if stored:
                await stream.finish(self._redis, stored)
            for entry in entries:
                if entry.id in kept:
                    await self._retry_or_put_aside(
                        entry,
                        {event.event: event.reason for event in unusable if event.entry is entry},
                    )
        except REDIS_ERRORS as error:
            # Stored entries that are not acknowledged are taken over later and found stored.
            _log.warning("entries not acknowledged", error=_reason(error))

    async def _store(self, decoded: Sequence[Decoded]) -> list[Unusable]:
        """Commit the rows, however long the database is down; return those that cannot be stored.

        A refused batch is halved until each row at fault stands alone, so that it costs the others
        only a few more transactions. Raises ``Unfinished``.
        """
        try:
            await self._retrying("postgres", lambda: self._commit(decoded))
        except Unstorable as error:
            if len(decoded) == 1:
                [(entry, event, _)] = decoded
                return [Unusable(entry, event, str(error))]
            middle = len(decoded) // 2
            return await self._store(decoded[:middle]) + await self._store(decoded[middle:])
        return []

    async def _commit(self, decoded: Sequence[Decoded]) -> None:
        began_ns = time.time_ns()
        try:
            new = await store(self._engine, [row for _, _, row in decoded])
        except (Unstorable, *DATABASE_ERRORS) as error:
            self.metrics.failed(error)
            raise
        events = (event for _, event, _ in decoded)
        self._tracing.committed(events, rows=len(decoded), began_ns=began_ns)
        took_s = (time.time_ns() - began_ns) / 1e9
        self.metrics.committed(batch=len(decoded), new=new, took_s=took_s)

    async def _retry_or_put_aside(self, entry: Entry, unusable: Mapping[bytes, str]) -> None:
        delivered = await stream.deliveries(self._redis, entry)
        if delivered < self._settings.consumer_max_deliveries:
            # A newer consumer may know the event, so it stays pending and is delivered again.
            _log.warning(
                "events cannot be stored",
                events=len(unusable),
                entry=entry.id.decode(),
                delivery=delivered,
            )
            return
        await stream.put_aside(self._redis, entry, unusable, delivered=delivered)
        self.metrics.dead_letters += len(unusable)
        # The reason is kept with the event; it may quote values, which do not belong in a log.
        _log.error(
            "events put aside",
            events=len(unusable),
            entry=entry.id.decode(),
            stream=DEAD_LETTER_STREAM,
        )

    async def _take_over(self) -> None:
        """Handle entries that some consumer read and did not acknowledge in time."""
        settings = self._settings
        self._take_over_at_s = time.monotonic() + settings.consumer_reclaim_idle_s
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
            except REDIS_ERRORS as error:
                _log.warning("entries not taken over", error=_reason(error))
                return
            # During an outage this consumer's own entries grow old, too.
            abandoned = [entry for entry in taken if entry.id not in self._in_hand]
            self.metrics.taken_over += len(abandoned)
            await self._handle(abandoned)
            full = len(taken) == wanted

    async def _invalidate(self) -> None:
        # Reset first, so that a commit during the wait sets it again.
        self._cache_is_stale = False
        self._invalidate_at_s = time.monotonic() + _INVALIDATE_EVERY_S
        try:
            await self._cache.invalidate()
        except REDIS_ERRORS as error:
            self._cache_is_stale = True
            _log.warning("caches not invalidated", error=_reason(error))


def _reason(error: Exception) -> str:
    """The message of the server or the driver, without the SQL statement."""
    return str(error.orig if isinstance(error, DBAPIError) else error) or type(error).__name__


async def consume(settings: HistorySettings) -> None:
    """Run one consumer until SIGTERM or SIGINT."""
    engine = open_engine(
        settings, name="history-consumer", pool_size=CONCURRENT_BATCHES, ping_first=False
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
    metrics = Metrics()
    metrics.read_from(build_info("consumer"), consumer.metrics.samples)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, consumer.stop)
    try:
        with metrics_server(metrics, host=settings.metrics_host, port=settings.metrics_port):
            await consumer.run()
    finally:
        await cache.aclose()
        await reader.aclose()
        await redis.aclose()
        await engine.dispose()
        await tracing.close()


def main() -> int:
    """Consume until SIGTERM or SIGINT; then the exit code is 0."""
    take_over_output()
    settings = read_settings_or_exit(HistorySettings, redis_faults)
    configure_logging(settings)
    # A batch is thousands of containers without cycles, which reference counting frees; scanning
    # them at the usual thresholds costs a tenth of the time.
    keep_loaded(100_000)
    uvloop.run(consume(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The stream of decisions in Redis, from the reader's side."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.contract.events import CONSUMER_GROUP, DEAD_LETTER_STREAM, EVENT_FIELD, STREAM

_FIELD: Final = EVENT_FIELD.encode()
_NO_GROUP: Final = "NOGROUP"


class Entry(NamedTuple):
    """One entry of the stream, with the fields it was written with."""

    id: bytes
    fields: Mapping[bytes, bytes]

    @property
    def events(self) -> list[bytes]:
        """The JSON of each of its events; a single empty one if it has no such field."""
        return self.fields.get(_FIELD, b"").split(b"\n")


async def create_group(redis: Redis) -> None:
    """Create the group, and the stream with it, unless it exists.

    The group begins at the first entry, so that entries older than the group are read too.
    """
    try:
        await redis.xgroup_create(STREAM, CONSUMER_GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def is_missing_group(error: Exception) -> bool:
    """Whether the stream or its group is gone, as after Redis lost its data."""
    return isinstance(error, ResponseError) and _NO_GROUP in str(error)


async def read_new(redis: Redis, *, consumer: str, count: int, block_s: float) -> list[Entry]:
    """Up to ``count`` entries not delivered before; waits up to ``block_s`` for the first."""
    answer: Any = await redis.xreadgroup(
        CONSUMER_GROUP, consumer, {STREAM: ">"}, count=count, block=round(block_s * 1000)
    )
    return [Entry._make(entry) for _, entries in answer or () for entry in entries]


async def take_over(redis: Redis, *, consumer: str, count: int, idle_s: float) -> list[Entry]:
    """Up to ``count`` entries, oldest first, unacknowledged by any consumer for ``idle_s``."""
    start: bytes | str = "0-0"
    taken: list[Entry] = []
    while len(taken) < count:
        start, entries, *_ = await redis.xautoclaim(
            STREAM,
            CONSUMER_GROUP,
            consumer,
            min_idle_time=round(idle_s * 1000),
            start_id=start,
            count=count - len(taken),
        )
        # Before version 7 Redis returns None for an entry deleted meanwhile.
        taken += [Entry._make(entry) for entry in entries if entry[1] is not None]
        if start in (b"0-0", "0-0"):
            break
    return taken


async def deliveries(redis: Redis, entry: Entry) -> int:
    """How often the entry was delivered to any consumer; Redis counts it."""
    found = await redis.xpending_range(STREAM, CONSUMER_GROUP, min=entry.id, max=entry.id, count=1)
    return int(found[0]["times_delivered"]) if found else 0


async def finish(redis: Redis, ids: Sequence[bytes]) -> None:
    """Acknowledge the entries with these ids and delete them from the stream, atomically."""
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.xack(STREAM, CONSUMER_GROUP, *ids)
        pipeline.xdel(STREAM, *ids)
        await pipeline.execute()


async def put_aside(
    redis: Redis, entry: Entry, unusable: Mapping[bytes, str], *, delivered: int
) -> None:
    """Move the entry's unusable events to the dead-letter stream, atomically.

    ``unusable`` maps each event, as received, to the reason to keep with it. The entry is deleted,
    so its other events must be stored already.
    """
    async with redis.pipeline(transaction=True) as pipeline:
        for event, reason in unusable.items():
            moved: dict[Any, Any] = {
                **entry.fields,
                **({_FIELD: event} if event else {}),
                b"error": reason,
                b"entry_id": entry.id,
                b"deliveries": delivered,
            }
            pipeline.xadd(DEAD_LETTER_STREAM, moved)
        pipeline.xack(STREAM, CONSUMER_GROUP, entry.id)
        pipeline.xdel(STREAM, entry.id)
        await pipeline.execute()


class Backlog(NamedTuple):
    """What waits on the stream, and when each consumer of the group last read it.

    ``entries`` hold one event or a group published together; ``pending`` ones of them were read
    and are not stored yet.
    """

    entries: int
    pending: int
    oldest_pending_s: float
    dead_letters: int
    consumers_seen_s_ago: Sequence[float]


async def backlog(redis: Redis) -> Backlog:
    """The backlog at one moment; raises ``REDIS_ERRORS``, also if a key is no stream.

    Stored entries are deleted at once, so what is not pending was never read. (Redis's own count
    of unread entries is missing after some deletions.) Redis notes when each consumer reads, which
    they do at least once a second, so the consumers need not report themselves.
    """
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.xlen(STREAM)
        pipeline.xlen(DEAD_LETTER_STREAM)
        pipeline.xpending(STREAM, CONSUMER_GROUP)
        pipeline.xinfo_consumers(STREAM, CONSUMER_GROUP)
        pipeline.time()
        entries, dead, pending, consumers, now = await pipeline.execute(raise_on_error=False)
    for length in (entries, dead):
        if isinstance(length, Exception):
            raise length
    if isinstance(pending, ResponseError):  # there is no group yet, and so no consumer
        return Backlog(entries, 0, 0.0, dead, ())
    return Backlog(
        entries=entries,
        pending=pending["pending"],
        oldest_pending_s=_age_s(pending["min"], now) if pending["min"] else 0.0,
        dead_letters=dead,
        consumers_seen_s_ago=[consumer["idle"] / 1000 for consumer in consumers],
    )


def _age_s(entry_id: bytes, now: tuple[int, int]) -> float:
    """The age of an entry: its id begins with the milliseconds of Redis's clock when it was added.

    ``now`` is the same clock's seconds and microseconds.
    """
    return max(0.0, now[0] + now[1] / 1e6 - int(entry_id.split(b"-")[0]) / 1000)

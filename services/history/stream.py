"""The hand-over stream in Redis, as the consumer group and the health route see it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.contract.events import CONSUMER_GROUP, DEAD_LETTER_STREAM, EVENT_FIELD, STREAM

_FIELD: Final = EVENT_FIELD.encode()
_NO_GROUP: Final = "NOGROUP"


class Entry(NamedTuple):
    """One entry of the stream, with whatever fields it was written with."""

    id: bytes
    fields: Mapping[bytes, bytes]

    @property
    def events(self) -> list[bytes]:
        """The JSON of each of its events; a single empty one when the entry has none."""
        return self.fields.get(_FIELD, b"").split(b"\n")


async def create_group(redis: Redis) -> None:
    """Make the group, and the stream with it, unless it exists.

    It begins at the very first entry, so that what was added before the group is not missed.
    """
    try:
        await redis.xgroup_create(STREAM, CONSUMER_GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def is_missing_group(error: Exception) -> bool:
    """Whether the stream or its group is gone, as after Redis came back without its data."""
    return isinstance(error, ResponseError) and _NO_GROUP in str(error)


async def read_new(redis: Redis, *, consumer: str, count: int, block_s: float) -> list[Entry]:
    """Up to ``count`` entries never delivered before, waiting up to ``block_s`` for the first."""
    answer: Any = await redis.xreadgroup(
        CONSUMER_GROUP, consumer, {STREAM: ">"}, count=count, block=round(block_s * 1000)
    )
    return [Entry._make(entry) for _, entries in answer or () for entry in entries]


async def take_over(redis: Redis, *, consumer: str, count: int, idle_s: float) -> list[Entry]:
    """Up to ``count`` entries, oldest first, that some consumer has not acknowledged for long."""
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
        # Before version 7 an entry that was deleted meanwhile is handed over as nothing.
        taken += [Entry._make(entry) for entry in entries if entry[1] is not None]
        if start in (b"0-0", "0-0"):
            break
    return taken


async def deliveries(redis: Redis, entry: Entry) -> int:
    """How often the entry was delivered to any consumer, as Redis has counted."""
    found = await redis.xpending_range(STREAM, CONSUMER_GROUP, min=entry.id, max=entry.id, count=1)
    return int(found[0]["times_delivered"]) if found else 0


async def finish(redis: Redis, ids: Sequence[bytes]) -> None:
    """Acknowledge the entries of these ids and take them off the stream, both or neither."""
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.xack(STREAM, CONSUMER_GROUP, *ids)
        pipeline.xdel(STREAM, *ids)
        await pipeline.execute()


async def put_aside(
    redis: Redis, entry: Entry, unusable: Mapping[bytes, str], *, delivered: int
) -> None:
    """Move the entry's unusable events to the dead-letter stream; all of it or nothing.

    ``unusable`` maps each event, as it came, to the reason that will stand beside it. The entry's
    other events must have been stored: it is taken off the stream.
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
    """What waits on the stream, in entries; ``pending`` ones are in a consumer's hands."""

    entries: int
    pending: int
    oldest_pending_s: float
    dead_letters: int
    consumers: int


async def backlog(redis: Redis, *, seen_within_s: float) -> Backlog:
    """All of it at one moment; consumers are those seen so lately. Raises what the client does.

    What is finished is taken off the stream at once, so what is not pending was never read. Redis
    itself does not always know how much that is.
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
    held, oldest = 0, None
    if not isinstance(pending, ResponseError):
        held, oldest = pending["pending"], pending["min"]
    now_s = now[0] + now[1] / 1e6
    return Backlog(
        entries=entries,
        pending=held,
        # An entry's id begins with the milliseconds at which Redis, by its own clock, took it.
        oldest_pending_s=max(0.0, now_s - int(oldest.split(b"-")[0]) / 1000) if oldest else 0.0,
        dead_letters=dead,
        consumers=sum(idle_ms < seen_within_s * 1000 for idle_ms in _numbers(consumers, "idle")),
    )


async def state(redis: Redis) -> dict[str, int | float | None]:
    """How much waits on the stream, how much was put aside, and when a consumer last came by.

    ``waiting`` counts entries not stored yet, each of one event or of a group that was handed over
    together; ``in_hand`` those of them that a consumer holds.
    ``consumer_seen_s_ago`` is None when none ever came. Redis knows it from the reads that
    consumers make at least once a second, so no process has to report itself.
    """
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.xlen(STREAM)
        pipeline.xlen(DEAD_LETTER_STREAM)
        pipeline.xinfo_groups(STREAM)
        pipeline.xinfo_consumers(STREAM, CONSUMER_GROUP)
        waiting, dead, groups, consumers = await pipeline.execute(raise_on_error=False)
    return {
        "waiting": waiting,
        "in_hand": sum(_numbers(groups, "pending")),
        "dead_letters": dead,
        "consumer_seen_s_ago": min(
            (idle_ms / 1000 for idle_ms in _numbers(consumers, "idle")), default=None
        ),
    }


def _numbers(answer: object, name: str) -> Iterable[int]:
    """The member ``name`` of each; nothing where Redis knows neither the stream nor the group."""
    if isinstance(answer, ResponseError):
        return []
    if isinstance(answer, Exception):
        raise answer
    assert isinstance(answer, list)  # noqa: S101 - the shape of both XINFO answers
    return [member[name] for member in answer]

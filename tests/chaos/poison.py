"""Entries of the stream that nobody can store."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from redis import Redis

from shared.contract.events import DEAD_LETTER_STREAM, EVENT_FIELD, STREAM
from tests.chaos.faults import NoEffect
from tests.chaos.stage import Stage
from tests.history.events import body_of, random_event

_PUT_ASIDE_WITHIN_S: Final = 90.0
_POLL_S: Final = 0.1
_HUGE: Final = 2**20

Fields = dict[bytes, bytes]


def poison() -> list[Fields]:
    """One entry of each kind: unreadable, without an event, unknown, and refused by PostgreSQL."""
    rng = random.Random(7)  # noqa: S311 - test data, not a secret
    event = body_of(random_event(rng))
    unindexable = rng.randbytes(_HUGE).hex().encode()  # it cannot be compressed to fit a page
    return [
        {EVENT_FIELD.encode(): b"\xff\xfe\x00 garbage"},
        {EVENT_FIELD.encode(): b'{"type":"PredictionRecorded"'},
        {b"other": event},
        {EVENT_FIELD.encode(): event.replace(b'"version":1,', b'"version":99,', 1)},
        {EVENT_FIELD.encode(): _with_loan_id(event, rb"LP\u0000")},
        {EVENT_FIELD.encode(): _with_loan_id(event, unindexable)},
    ]


@contextmanager
def poisoned(stage: Stage) -> Iterator[str]:
    """Put one of each kind among the decisions, and another one later.

    Leaves once all are set aside, as they came; raises ``NoEffect`` when they are not.
    """
    entries = poison()
    with Redis.from_url(stage.redis.url) as redis:
        _add(redis, entries)
        yield f"{2 * len(entries)} entries, all put aside"
        _add(redis, entries)
        _wait_until_put_aside(redis, 2 * entries)


def _add(redis: Redis, entries: Sequence[Fields]) -> None:
    for entry in entries:
        redis.xadd(STREAM, dict[Any, Any](entry))


def _wait_until_put_aside(redis: Redis, entries: Sequence[Fields]) -> None:
    deadline = time.monotonic() + _PUT_ASIDE_WITHIN_S
    while (found := _put_aside(redis)) != sorted(map(_comparable, entries)):
        if time.monotonic() > deadline:
            raise NoEffect(
                f"{len(found)} of {len(entries)} poisoned entries were put aside as they came"
            )
        time.sleep(_POLL_S)


def _put_aside(redis: Redis) -> list[list[tuple[bytes, bytes]]]:
    """The fields that each entry came with, without the reason that stands beside them."""
    added = {b"error", b"entry_id", b"deliveries"}
    found: Any = redis.xrange(DEAD_LETTER_STREAM)
    return sorted(
        _comparable({name: value for name, value in fields.items() if name not in added})
        for _, fields in found
    )


def _comparable(fields: Fields) -> list[tuple[bytes, bytes]]:
    return sorted(fields.items())


def _with_loan_id(event: bytes, loan_id: bytes) -> bytes:
    before, name, after = event.partition(b'"Loan_ID":')
    return before + name + b'"' + loan_id + b'"' + after[after.index(b",") :]

"""Stream entries that cannot be stored."""

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

_DEAD_LETTERED_WITHIN_S: Final = 90.0
_POLL_S: Final = 0.1
_HUGE: Final = 2**20

Fields = dict[bytes, bytes]


def poison() -> list[Fields]:
    """Make one entry of each kind: unreadable, eventless, unknown, and refused by PostgreSQL."""
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
    """Add one entry of each kind among the decisions, and another set later.

    Returns once all are dead-lettered unchanged; raises ``NoEffect`` if they are not.
    """
    entries = poison()
    with Redis.from_url(stage.redis.url) as redis:
        _add(redis, entries)
        yield f"{2 * len(entries)} entries, all dead-lettered"
        _add(redis, entries)
        _wait_until_dead_lettered(redis, 2 * entries)


def _add(redis: Redis, entries: Sequence[Fields]) -> None:
    for entry in entries:
        redis.xadd(STREAM, dict[Any, Any](entry))


def _wait_until_dead_lettered(redis: Redis, entries: Sequence[Fields]) -> None:
    deadline = time.monotonic() + _DEAD_LETTERED_WITHIN_S
    while (found := _dead_letters(redis)) != sorted(map(_comparable, entries)):
        if time.monotonic() > deadline:
            raise NoEffect(
                f"{len(found)} of {len(entries)} poisoned entries were dead-lettered unchanged"
            )
        time.sleep(_POLL_S)


def _dead_letters(redis: Redis) -> list[list[tuple[bytes, bytes]]]:
    """Return the original fields of each dead letter, without the reason added to them."""
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

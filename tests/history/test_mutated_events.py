"""Events that no publisher would send: each costs itself alone, never its neighbours."""

import json
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import recorder
from services.history.records import COLUMNS, Row
from services.history.settings import HistorySettings
from shared.contract.events import DEAD_LETTER_STREAM, EVENT_FIELD, STREAM
from tests.history.conftest import consuming
from tests.history.events import body_of, random_event, random_events
from tests.history.storage import (
    assert_rollups_equal_a_recount,
    assert_stream_is_finished,
    ids_of,
    stored,
    stored_ids,
)
from tests.waiting import eventually_said as eventually

EXTREME_TIMES = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00")
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**31, 2**63, 2**70, 10**400, 1e308, -1e308, float("nan")),
    *("", " ", "\0", "\ud800", "\u202e", "x" * 129, "y" * 9_000, "=1+1", "1e999", "NaN"),
    *EXTREME_TIMES,
    *("0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "9999-12-31T23:59:59Z"),
    *("2026-01-01T00:00:00", "2026-02-30T00:00:00Z", 0, -62135596800, 253402300799, 10**15),
    *("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-7fff-bfff-ffffffffffff"),
    *([], {}, [None], ["\0"], [[]] * 3, {"": {}}, ["z" * 3_000] * 3),
)


def mutated(rng: random.Random) -> bytes:
    """A random event with one to three values, members or bytes changed."""
    event = json.loads(body_of(random_event(rng)))
    for _ in range(rng.choice((1, 1, 2, 3))):
        holder, name = rng.choice(list(_members(event)))
        if rng.random() < 0.1:
            del holder[name]
        else:
            alike = [value for value in _VALUES if type(value) is type(holder[name])]
            value = rng.choice(alike if alike and rng.random() < 0.7 else _VALUES)
            holder[name] = deepcopy(value)
    payload = bytearray(json.dumps(event).encode())
    if rng.random() < 0.2:
        payload[rng.randrange(len(payload))] = rng.choice(b'\0"\\{}[]:,\x80\xff90e')
    return bytes(payload).replace(b"\n", b" ")


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each member of an object or array, at any depth, with its holder."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in list(keys):
        yield value, key
        yield from _members(value[key])


async def _add(redis: Redis, *events: bytes) -> None:
    """Add one entry of these events to the stream."""
    await redis.xadd(STREAM, {EVENT_FIELD: b"\n".join(events)})


def _finished(redis: Redis) -> Callable[[], Any]:
    async def check() -> bool:
        return int(await redis.xlen(STREAM)) == 0

    return check


@pytest.mark.parametrize("time", EXTREME_TIMES)
async def test_event_with_an_extreme_time_is_put_aside_without_its_neighbours(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis, time: str
) -> None:
    """A time that no UTC date can express stops neither the consumer nor the events around it."""
    events = random_events(20, seed=91)
    extreme = json.loads(body_of(random_events(1, seed=92)[0]))
    extreme["decision"]["timestamp"] = time
    payload = json.dumps(extreme).encode()
    await _add(redis, *map(body_of, events[:5]), payload, *map(body_of, events[5:10]))
    await _add(redis, payload)
    await _add(redis, *map(body_of, events[10:]))
    async with consuming(settings):
        await eventually(stored(engine, 20))
        await eventually(_finished(redis))
    assert await stored_ids(engine) == ids_of(events)
    assert await redis.xlen(DEAD_LETTER_STREAM) == 2
    await assert_stream_is_finished(redis)


@pytest.mark.parametrize("column", ["client", "confidence"])
async def test_event_that_raises_while_it_is_stored_is_put_aside_without_its_neighbours(
    settings: HistorySettings,
    engine: AsyncEngine,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    column: str,
) -> None:
    """Whatever the driver, or adding up, raises about one row is that row's own fault."""
    events = random_events(30, seed=93)
    decode, number = recorder.decode, COLUMNS.index(column)

    def decode_one_wrongly(payload: bytes) -> Row:
        row = decode(payload)
        at_fault = payload == body_of(events[17])
        return (*row[:number], object(), *row[number + 1 :]) if at_fault else row

    monkeypatch.setattr("services.history.consumer.decode", decode_one_wrongly)
    await _add(redis, *map(body_of, events))
    async with consuming(settings):
        await eventually(_finished(redis))
    assert await stored_ids(engine) == ids_of(events[:17] + events[18:])
    assert await redis.xlen(DEAD_LETTER_STREAM) == 1
    await assert_rollups_equal_a_recount(engine)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.no_cover
async def test_mutated_events_stop_nothing_and_cost_no_other_event(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis, seed: int
) -> None:
    """Whatever is wrong with an event, it is stored or put aside, and all others are stored."""
    rng = random.Random(seed)  # noqa: S311 - test data, not a secret
    events = random_events(300, seed=94 + seed)
    for event in events:
        await _add(redis, *(mutated(rng) for _ in range(rng.randrange(5))), body_of(event))
    async with consuming(settings):
        await eventually(_finished(redis), timeout_s=60)
    assert set(ids_of(events)) <= set(await stored_ids(engine))
    assert len(await stored_ids(engine)) > 350
    assert await redis.xlen(DEAD_LETTER_STREAM) > 100
    await assert_stream_is_finished(redis)
    await assert_rollups_equal_a_recount(engine)


@pytest.mark.no_cover
async def test_mutated_events_by_http_are_stored_or_refused_as_invalid(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """Each is stored or is a 400; what is stored can be read by every route."""
    rng = random.Random(98)  # noqa: S311 - test data, not a secret
    bodies = [mutated(rng) for _ in range(300)]
    for time in EXTREME_TIMES:
        event = json.loads(body_of(random_event(rng)))
        event["decision"]["timestamp"] = time
        bodies.append(json.dumps(event).encode())
    headers = {"content-type": "application/x-ndjson"}
    statuses = [
        (await client.post("/internal/predictions", content=body, headers=headers)).status_code
        for body in bodies
    ]
    assert set(statuses) == {204, 400}
    assert statuses[-2:] == [400, 400]
    for path in ("/history?limit=100", "/statistics", "/analytics", "/history/export?format=csv"):
        assert (await client.get(path)).status_code == 200, path
    exported = (await client.get("/history/export")).text.splitlines()
    assert len(exported) == len(await stored_ids(engine)) > 20
    await assert_rollups_equal_a_recount(engine)

"""The HTTP sink, and what the health route reports about the stream."""

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.main import create_app
from services.history.settings import HistorySettings
from services.local.servers import Server
from shared.contract.events import (
    DEAD_LETTER_STREAM,
    EVENT_FIELD,
    INTERNAL_PREDICTIONS_PATH,
    STREAM,
)
from tests import keys
from tests.harness import HOST, free_port
from tests.history.conftest import consuming, quick_settings
from tests.history.events import body_of, random_events
from tests.history.storage import (
    NEWEST_REVISION,
    assert_rollups_equal_a_recount,
    ids_of,
    publish,
    stored,
    stored_ids,
)
from tests.serving import served
from tests.waiting import eventually_said as eventually

NDJSON = {"content-type": "application/x-ndjson"}


async def test_posted_events_are_stored_once_before_the_answer(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """204 means committed; the same events sent again are neither refused nor duplicated."""
    events = random_events(200, seed=41)
    for body in (b"\n".join(map(body_of, events)), b"\n".join(map(body_of, events)) + b"\n"):
        response = await client.post(INTERNAL_PREDICTIONS_PATH, content=body, headers=NDJSON)
        assert response.status_code == 204
        assert response.content == b""
        assert await stored_ids(engine) == ids_of(events)
    await assert_rollups_equal_a_recount(engine)


async def test_event_that_took_both_sinks_is_stored_once(
    client: httpx.AsyncClient, engine: AsyncEngine, redis: Redis, settings: HistorySettings
) -> None:
    """A group repeated over HTTP was delivered by the stream, too."""
    events = random_events(60, seed=42)
    await publish(redis, events[:40])
    body = b"\n".join(map(body_of, events[20:]))
    async with consuming(settings):
        await client.post(INTERNAL_PREDICTIONS_PATH, content=body, headers=NDJSON)
        await eventually(stored(engine, 60))
    assert await stored_ids(engine) == ids_of(events)
    await assert_rollups_equal_a_recount(engine)


async def test_bad_line_is_named_and_nothing_is_stored(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """All bad lines are named at once; the good ones are not stored without them."""
    good = [body_of(event) for event in random_events(3, seed=43)]
    body = b"\n".join([good[0], b"{", good[1], b'{"version": 1}', good[2]])
    response = await client.post(INTERNAL_PREDICTIONS_PATH, content=body, headers=NDJSON)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert [fault["field"] for fault in response.json()["validation_errors"]] == [
        "line 2",
        "line 4",
    ]
    assert await stored_ids(engine) == []


@pytest.mark.parametrize("body", [b"", b"\n\n"])
async def test_body_without_an_event_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    """An empty group is a mistake of the sender and is reported."""
    response = await client.post(INTERNAL_PREDICTIONS_PATH, content=body, headers=NDJSON)
    assert response.status_code == 400


async def test_value_that_the_database_refuses_is_the_senders_fault(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """A NUL cannot be stored: 400, not an endless 503, and nothing of the body is kept."""
    events = random_events(2, seed=44)
    bad = body_of(events[1]).replace(b'"client":"anonymous"', b'"client":"a\\u0000b"')
    body = body_of(events[0]) + b"\n" + bad
    response = await client.post(INTERNAL_PREDICTIONS_PATH, content=body, headers=NDJSON)
    assert response.status_code == 400
    assert await stored_ids(engine) == []


async def test_posting_without_the_database_says_try_again(
    own_postgres: Server, redis_url: str
) -> None:
    """503 with Retry-After: the sender must not take it for stored."""
    settings = quick_settings(database_url=own_postgres.url, redis_url=redis_url)
    own_postgres.process.kill()
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        body = body_of(random_events(1, seed=45)[0])
        response = await client.post(INTERNAL_PREDICTIONS_PATH, content=body, headers=NDJSON)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


async def test_posting_works_without_redis(database_url: str, engine: AsyncEngine) -> None:
    """The HTTP sink does not need the server that it stands in for."""
    settings = quick_settings(
        database_url=database_url, redis_url=f"redis://{HOST}:{free_port()}/0"
    )
    events = random_events(5, seed=46)
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        body = b"\n".join(map(body_of, events))
        response = await client.post(INTERNAL_PREDICTIONS_PATH, content=body, headers=NDJSON)
    assert response.status_code == 204
    assert await stored_ids(engine) == ids_of(events)


async def test_health_reports_what_waits_and_when_a_consumer_last_read(
    client: httpx.AsyncClient, redis: Redis, settings: HistorySettings
) -> None:
    """Before any consumer there is no such time; with one it is recent and nothing waits."""
    before = (await client.get("/health")).json()
    assert before["status"] == "ok"
    assert before["checks"]["postgres"]["detail"] == f"schema {NEWEST_REVISION}"
    assert before["checks"]["redis"]["detail"] == {
        "waiting": 0,
        "in_hand": 0,
        "dead_letters": 0,
        "consumer_seen_s_ago": None,
        "cache_failures": 0,
    }

    await publish(redis, random_events(3, seed=47))
    await redis.xadd(STREAM, {EVENT_FIELD: b"poison"})
    assert (await client.get("/health")).json()["checks"]["redis"]["detail"]["waiting"] == 4
    async with consuming(settings):

        async def put_aside() -> bool:
            return int(await redis.xlen(DEAD_LETTER_STREAM)) == 1

        await eventually(put_aside)
        detail = (await client.get("/health")).json()["checks"]["redis"]["detail"]
    assert (detail["waiting"], detail["in_hand"], detail["dead_letters"]) == (0, 0, 1)
    assert detail["consumer_seen_s_ago"] < 2

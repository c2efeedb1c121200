"""Erasure while servers fail, readers read and writers write."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.audit import take_turn, verify
from services.history.database import transaction
from services.history.main import create_app
from services.history.recorder import store
from services.history.settings import HistorySettings
from services.local.servers import Server
from shared.contract.events import PredictionRecorded
from tests import keys
from tests.history.conftest import engine_of, quick_settings
from tests.history.events import path_of, random_events, row_of, with_loan_id
from tests.history.storage import (
    assert_rollup_by_model_equals_a_recount,
    rows_of,
    store_all,
)
from tests.serving import served
from tests.waiting import eventually_said as eventually

LOAN_ID = "LP1"


@pytest.mark.no_cover
async def test_no_reader_of_any_replica_sees_a_record_after_its_erasure_was_answered(
    settings: HistorySettings, events: list[PredictionRecorded]
) -> None:
    """Readers who ask all the time race every step; who begins after the answer gets 410."""
    erased: set[str] = set()
    seen = {200: 0, 410: 0}

    async def read(client: httpx.AsyncClient, path: str) -> None:
        while True:
            was_erased = path in erased
            status = (await client.get(path)).status_code
            seen[status] += 1
            assert status == 410 or not was_erased
            if was_erased:
                return

    async with (
        served(create_app(settings), headers=keys.HEADERS) as one,
        served(create_app(settings), headers=keys.HEADERS) as other,
    ):
        for event in events[:25]:
            path = path_of(event)
            readers = [asyncio.create_task(read(c, path)) for c in (one, other) for _ in range(4)]
            await asyncio.sleep(0.02)
            assert (await one.delete(path)).status_code == 200
            erased.add(path)
            await asyncio.gather(*readers)
    assert min(seen.values()) >= 25


async def test_erasing_and_storing_again_at_once_neither_deadlock_nor_double(
    client: httpx.AsyncClient, engine: AsyncEngine, events: list[PredictionRecorded]
) -> None:
    """Whichever locks a row first, it ends erased and counted once."""
    rows = [row_of(event) for event in events]

    async def store_again() -> int:
        return sum([await store(engine, rows[start : start + 50]) for start in range(0, 250, 50)])

    storing = asyncio.gather(store_again(), store_again())
    erasing = asyncio.gather(*(client.delete(path_of(event)) for event in events[:60]))
    assert set(await storing) == {0}
    assert {response.status_code for response in await erasing} == {200}
    async with engine.connect() as connection:
        erased = await connection.execute(
            text("SELECT count(*) FROM predictions WHERE erased_at IS NOT NULL")
        )
        assert erased.scalar_one() == 60
    await assert_rollup_by_model_equals_a_recount(engine)
    assert (await verify(engine)).id == 60


@asynccontextmanager
async def with_own_redis(
    database_url: str, server: Server
) -> AsyncIterator[tuple[httpx.AsyncClient, AsyncEngine]]:
    """A client, and the database, of a service whose Redis the test may kill."""
    settings = quick_settings(database_url=database_url, redis_url=server.url)
    engine = engine_of(settings)
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        yield client, engine
    await engine.dispose()


async def test_without_redis_nothing_is_erased(database_url: str, own_redis: Server) -> None:
    """Copies may be there, so it is refused before anything is done, and done once it is back."""
    async with with_own_redis(database_url, own_redis) as (client, engine):
        [event] = random_events(1, seed=61)
        await store_all(engine, [with_loan_id(event, LOAN_ID)])
        own_redis.process.kill()
        for path in (path_of(event), f"/history?loan_id={LOAN_ID}"):
            refused = await client.delete(path)
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["code"] == "NotErased"
        assert await rows_of(engine, "audit_log") == []
        assert (await client.get(path_of(event))).status_code == 200
        own_redis.process.start()
        assert (await client.delete(path_of(event))).json()["erased"] == 1


@pytest.mark.parametrize("by_loan", [False, True])
async def test_redis_lost_in_the_middle_is_told_and_the_same_request_completes_it(
    database_url: str, own_redis: Server, by_loan: bool
) -> None:
    """Stored answers cannot be removed: nothing is done. Copies may be left: it says so."""
    async with with_own_redis(database_url, own_redis) as (client, engine):
        [event] = random_events(1, seed=62)
        await store_all(engine, [with_loan_id(event, LOAN_ID)])
        assert (await client.get(path_of(event))).status_code == 200
        path = f"/history?loan_id={LOAN_ID}" if by_loan else path_of(event)
        async with transaction(engine) as connection:
            await take_turn(connection)
            erasing = asyncio.create_task(client.delete(path))
            await eventually(lambda: _an_erasure_waits(engine))
            own_redis.process.kill()
        refused = await erasing
        assert refused.status_code == 503
        assert ("copies may be left" in refused.json()["detail"]) == by_loan
        assert len(await rows_of(engine, "audit_log")) == (1 if by_loan else 0)
        own_redis.process.start()
        assert (await client.delete(path)).json()["erased"] == (0 if by_loan else 1)
        assert (await client.get(path_of(event))).status_code == 410


async def _an_erasure_waits(engine: AsyncEngine) -> bool:
    async with engine.connect() as connection:
        waiting = await connection.execute(
            text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        )
        return int(waiting.scalar_one()) > 0


async def test_without_the_database_it_is_503(own_postgres: Server, redis_url: str) -> None:
    """With the hint to try again."""
    settings = quick_settings(database_url=own_postgres.url, redis_url=redis_url)
    own_postgres.process.stop()
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        for path in (f"/history/{uuid4()}", "/history?loan_id=LP1"):
            response = await client.delete(path)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"

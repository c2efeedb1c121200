"""Retention: what is too old is erased, once, in small steps, whatever fails meanwhile."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import retention
from services.history.audit import verify
from services.history.database import AdvisoryLock, try_lock
from services.history.main import create_app
from services.history.settings import HistorySettings
from services.local.servers import Server
from shared.contract.events import PredictionRecorded
from tests import keys
from tests.history.conftest import engine_of, quick_settings
from tests.history.events import derived_id, random_events
from tests.history.storage import (
    assert_rollup_by_model_equals_a_recount,
    assert_rollups_equal_a_recount,
    store_all,
)
from tests.serving import served
from tests.waiting import eventually_said as eventually

DAYS = 30


def keeping(settings: HistorySettings) -> HistorySettings:
    """The settings with a retention that runs all the time."""
    return settings.model_copy(update={"retention_days": DAYS, "retention_pause_s": 0.05})


def made_days_ago(
    days: float, count: int, *, seed: int, **changes: Any
) -> list[PredictionRecorded]:
    """Events about decisions of that age."""
    decided_at = datetime.now(UTC) - timedelta(days=days)
    return random_events(count, seed=seed, decided_at=decided_at, timestamp=decided_at, **changes)


def erased(engine: AsyncEngine, count: int) -> Callable[[], Awaitable[bool]]:
    """A check that holds once ``count`` decisions are erased."""

    async def check() -> bool:
        async with engine.connect() as connection:
            found = await connection.execute(text("SELECT count(erased_at) FROM predictions"))
            return int(found.scalar_one()) >= count

    return check


async def logged(engine: AsyncEngine) -> list[int]:
    """How many decisions each row of the audit log says were erased."""
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT * FROM audit_log ORDER BY id"))
        found = rows.all()
    assert {row.actor for row in found} <= {"retention"}
    return [json.loads(row.details)["erased"] for row in found]


async def listed(client: httpx.AsyncClient) -> set[str]:
    """The ids of the newest page."""
    items = (await client.get("/history?limit=100")).json()["items"]
    return {item["prediction_id"] for item in items}


def ids(events: list[PredictionRecorded]) -> set[str]:
    """The ids of the decisions."""
    return {str(event.decision.prediction_id) for event in events}


async def test_old_decisions_are_erased_in_bounded_batches_and_young_ones_stay(
    settings: HistorySettings, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch has its row in the audit log; the statistics and the roll-ups stay."""
    monkeypatch.setattr(retention, "_ROWS_AT_ONCE", 20)
    old = made_days_ago(DAYS + 1, 50, seed=71) + made_days_ago(
        DAYS + 1, 1, seed=72, prediction_id=derived_id("old")
    )
    young = made_days_ago(DAYS - 1, 30, seed=73)
    await store_all(engine, old + young)
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        statistics = (await client.get("/statistics")).json()
        assert await listed(client) == ids(old + young)
    async with served(create_app(keeping(settings)), headers=keys.HEADERS) as client:
        await eventually(erased(engine, 51))
        assert await listed(client) == ids(young)
        for event in (old[0], old[-1]):
            gone = await client.get(f"/history/{event.decision.prediction_id}")
            assert gone.status_code == 410
        assert (await client.get("/statistics")).json() == statistics
        assert "history_retention_erased_total 51.0" in (await client.get("/metrics")).text
    assert await logged(engine) == [20, 20, 11]
    assert (await verify(engine)).id == 3
    await assert_rollup_by_model_equals_a_recount(engine)


async def test_decision_that_is_stored_late_is_erased_at_the_next_turn(
    settings: HistorySettings, engine: AsyncEngine
) -> None:
    """One that lay on the stream too long is counted and erased; one erased already stays so."""
    first = made_days_ago(DAYS + 1, 5, seed=74)
    late = made_days_ago(DAYS + 40, 7, seed=75)
    await store_all(engine, first)
    async with served(create_app(keeping(settings)), headers=keys.HEADERS):
        await eventually(erased(engine, 5))
        assert await store_all(engine, first + late) == 7
        await eventually(erased(engine, 12))
    await assert_rollup_by_model_equals_a_recount(engine)
    assert sum(await logged(engine)) == 12


async def test_what_is_too_old_is_shown_in_no_list_before_it_is_erased(
    settings: HistorySettings, engine: AsyncEngine
) -> None:
    """While another process holds the lock this one erases nothing, and lists nothing old."""
    old, young = made_days_ago(DAYS + 1, 9, seed=76), made_days_ago(1, 9, seed=77)
    await store_all(engine, old + young)
    async with try_lock(engine, AdvisoryLock.RETENTION) as locked:
        assert locked
        async with served(create_app(keeping(settings)), headers=keys.HEADERS) as client:
            assert await listed(client) == ids(young)
            exported = (await client.get("/history/export")).text.splitlines()
            assert {json.loads(line)["prediction_id"] for line in exported} == ids(young)
            await asyncio.sleep(0.3)
            assert await logged(engine) == []


async def test_replicas_do_not_do_each_others_work(
    settings: HistorySettings, engine: AsyncEngine
) -> None:
    """With two of them each decision is erased, and recorded as erased, once."""
    old = made_days_ago(DAYS + 1, 200, seed=78)
    await store_all(engine, old)
    apps = [create_app(keeping(settings)) for _ in range(2)]
    async with served(apps[0], headers=keys.HEADERS), served(apps[1], headers=keys.HEADERS):
        await eventually(erased(engine, 200))
        await asyncio.sleep(0.3)
    assert await logged(engine) == [200]


async def test_without_the_setting_everything_is_kept(
    settings: HistorySettings, engine: AsyncEngine
) -> None:
    """For ever is the default."""
    old = made_days_ago(20 * 365, 5, seed=79)
    await store_all(engine, old)
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        assert await listed(client) == ids(old)
    assert await logged(engine) == []
    await assert_rollups_equal_a_recount(engine)


@pytest.mark.parametrize("which", ["database", "redis"])
async def test_failing_server_is_outlived(
    own_postgres: Server, own_redis: Server, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """It is counted and logged, and the work is done once the server is back."""
    monkeypatch.setattr(retention, "_RETRY_S", 0.1)
    settings = quick_settings(database_url=own_postgres.url, redis_url=own_redis.url)
    engine = engine_of(settings)
    await store_all(engine, made_days_ago(DAYS + 1, 10, seed=80))
    server = own_postgres if which == "database" else own_redis
    server.process.kill()
    async with served(create_app(keeping(settings)), headers=keys.HEADERS) as client:

        async def failed() -> bool:
            metrics = (await client.get("/metrics")).text
            return "history_retention_failures_total 0.0" not in metrics

        await eventually(failed)
        server.process.start()
        await eventually(erased(engine, 10))
    await engine.dispose()

"""The history service, its consumer and direct looks into the servers behind them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.cache import Cache
from services.history.consumer import Consumer
from services.history.database import open_engine
from services.history.main import create_app
from services.history.recorder import store
from services.history.settings import CACHE_PREFIX, HistorySettings
from shared.access.api_keys import parse_keys
from shared.contract.events import PredictionRecorded
from shared.observability.tracing import NO_TRACING, Tracing
from shared.redis import connect
from tests import keys
from tests.history.events import random_events, row_of
from tests.serving import served

STORED_EVENTS = 250


@pytest.fixture
def settings(database_url: str, redis_url: str) -> HistorySettings:
    """Settings on an empty database and an empty Redis, with every wait made short."""
    return quick_settings(database_url=database_url, redis_url=redis_url)


def quick_settings(*, database_url: str, redis_url: str) -> HistorySettings:
    """Settings that differ from the defaults in their waits alone."""
    return HistorySettings(
        database_url=database_url,
        redis_url=redis_url,
        api_keys=parse_keys(keys.ENTRY),
        database_connect_timeout_s=1,
        database_command_timeout_s=5,
        consumer_block_s=0.05,
        consumer_reclaim_idle_s=0.1,
        consumer_max_deliveries=3,
        consumer_retry_max_s=0.2,
    )


@pytest_asyncio.fixture
async def engine(settings: HistorySettings) -> AsyncIterator[AsyncEngine]:
    """The test's own view of the database."""
    engine = engine_of(settings)
    yield engine
    await engine.dispose()


def engine_of(settings: HistorySettings) -> AsyncEngine:
    """An engine as the services open it, but with patience for a busy machine."""
    patient = settings.model_copy(update={"database_connect_timeout_s": 30})
    return open_engine(patient, name="test", pool_size=3)


@pytest_asyncio.fixture
async def redis(settings: HistorySettings) -> AsyncIterator[Redis]:
    """The test's own view of Redis."""
    redis = connect(settings.redis_url)
    yield redis
    await redis.aclose()


@pytest_asyncio.fixture
async def client(settings: HistorySettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API."""
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        yield client


@pytest_asyncio.fixture
async def events(engine: AsyncEngine) -> list[PredictionRecorded]:
    """Events that are stored, the newest first."""
    events = random_events(STORED_EVENTS, seed=31)
    await store(engine, [row_of(event) for event in events])
    return sorted(events, key=lambda event: event.decision.prediction_id, reverse=True)


@asynccontextmanager
async def consuming(
    settings: HistorySettings, *, tracing: Tracing = NO_TRACING
) -> AsyncIterator[Consumer]:
    """A consumer at work in this process; stopped, with its last batch finished, at the end."""
    engine = engine_of(settings)
    redis, reader = connect(settings.redis_url), connect(settings.redis_url)
    cache = Cache(connect(settings.redis_url), prefix=CACHE_PREFIX)
    consumer = Consumer(
        settings, engine=engine, reader=reader, redis=redis, cache=cache, tracing=tracing
    )
    running = asyncio.create_task(consumer.run())
    try:
        yield consumer
        consumer.stop()
        await running
    finally:
        running.cancel()
        for resource in (redis, reader, cache):
            await resource.aclose()
        await engine.dispose()

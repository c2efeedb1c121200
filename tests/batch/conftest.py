"""The batch service on real servers, and a worker in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import httpx
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from services.batch.main import create_app
from services.batch.settings import BatchSettings
from services.batch.worker import Worker, open_worker
from services.history.main import create_app as create_history
from shared.access.api_keys import parse_keys
from tests import keys
from tests.harness import HOST, free_port
from tests.history.conftest import engine_of, quick_settings
from tests.serving import served


@pytest.fixture
def settings(database_url: str, redis_url: str) -> BatchSettings:
    """Settings on an empty database and an empty Redis, with every wait made short."""
    return BatchSettings(
        database_url=database_url,
        redis_url=redis_url,
        history_url=f"http://{HOST}:{free_port()}",
        api_keys=parse_keys(keys.ENTRY),
        batch_poll_s=0.02,
        batch_lease_s=1,
    )


@pytest_asyncio.fixture
async def client(settings: BatchSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API."""
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        yield client


@pytest_asyncio.fixture
async def history(settings: BatchSettings) -> AsyncIterator[httpx.AsyncClient]:
    """The history service on the same database."""
    own = quick_settings(database_url=settings.database_url, redis_url=settings.redis_url)
    async with served(create_history(own), headers=keys.HEADERS) as client:
        yield client


@pytest_asyncio.fixture
async def engine(settings: BatchSettings) -> AsyncIterator[AsyncEngine]:
    """What the consumer stores with."""
    engine = engine_of(
        quick_settings(database_url=settings.database_url, redis_url=settings.redis_url)
    )
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def database(settings: BatchSettings) -> AsyncIterator[asyncpg.Connection]:
    """The test's own view of the database."""
    connection = await asyncpg.connect(settings.database_url)
    yield connection
    await connection.close()


@asynccontextmanager
async def working(settings: BatchSettings) -> AsyncIterator[Worker]:
    """A worker at work in this process; stopped at the end."""
    async with open_worker(settings) as worker:
        running = asyncio.create_task(worker.run())
        try:
            yield worker
            worker.stop()
            await running
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

"""The inference service on a real Redis."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from services.inference.main import create_app
from services.inference.settings import InferenceSettings
from shared.access.api_keys import parse_keys
from tests import keys
from tests.harness import HOST, free_port
from tests.serving import served


@pytest.fixture
def settings(redis_url: str) -> InferenceSettings:
    """Settings with an empty Redis and no history service behind them."""
    return InferenceSettings(
        redis_url=redis_url,
        history_url=f"http://{HOST}:{free_port()}",
        api_keys=parse_keys(keys.ENTRY),
        allow_anonymous=True,
    )


@pytest_asyncio.fixture
async def client(settings: InferenceSettings) -> AsyncIterator[httpx.AsyncClient]:
    """An anonymous client of the service."""
    async with served(create_app(settings)) as client:
        yield client


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """The Redis that the service hands its events to."""
    async with Redis.from_url(redis_url) as redis:
        yield redis

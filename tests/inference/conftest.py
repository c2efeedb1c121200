"""The inference service on a real Redis."""

from collections.abc import AsyncIterator
from typing import Final

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

PATIENT_S: Final = 20.0


@pytest.fixture
def settings(redis_url: str) -> InferenceSettings:
    """Settings with an empty Redis, no history service, and deadlines that a busy machine keeps."""
    return InferenceSettings(
        idempotency_deadline_s=PATIENT_S,
        publish_redis_deadline_s=PATIENT_S,
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

from collections.abc import AsyncIterator

import pytest_asyncio
from redis.asyncio import Redis


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """The Redis that events are handed to."""
    async with Redis.from_url(redis_url) as redis:
        yield redis

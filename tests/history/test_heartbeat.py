"""The check that a consumer is running, as its container uses it."""

import asyncio
import os
import subprocess
import sys

from redis.asyncio import Redis

from services.history.heartbeat import complaint, seen_s_ago
from services.history.settings import HistorySettings
from services.history.stream import create_group, read_new
from tests.harness import HOST
from tests.history.conftest import consuming, quick_settings


async def test_consumer_that_reads_has_no_complaint(
    settings: HistorySettings, redis: Redis
) -> None:
    """Even if there is nothing to read."""
    async with consuming(settings), asyncio.timeout(10):
        while await complaint(settings):  # noqa: ASYNC110  only asking Redis can tell
            await asyncio.sleep(0.02)
        seen = await seen_s_ago(redis, settings.consumer_name)
    assert seen is not None
    assert seen < 1


async def test_consumer_that_stopped_reading_is_named(
    settings: HistorySettings, redis: Redis
) -> None:
    """Once its last read is longer ago than a batch may take."""
    await create_group(redis)
    await read_new(redis, consumer=settings.consumer_name, count=1, block_s=0.01)
    assert await complaint(settings) is None
    await asyncio.sleep(0.2)
    reason = await complaint(settings, busy_s=0)
    assert reason
    assert f"{settings.consumer_name} has not read the stream for" in reason


async def test_consumer_that_never_read_is_named(settings: HistorySettings, redis: Redis) -> None:
    """Reads of another consumer do not count."""
    await create_group(redis)
    await read_new(redis, consumer="another", count=1, block_s=0.01)
    assert await complaint(settings) == f"{settings.consumer_name} has never read the stream"


async def test_redis_that_does_not_answer_is_reported(database_url: str) -> None:
    """Nothing listens at the address."""
    away = quick_settings(database_url=database_url, redis_url=f"redis://{HOST}:1/0")
    reason = await complaint(away)
    assert reason
    assert reason.startswith("Redis does not answer: ")


async def test_command_exits_by_what_it_found(settings: HistorySettings, redis: Redis) -> None:
    """0 while the consumer of this host is running; 1 with the reason before it ever was."""
    command = [sys.executable, "-m", "services.history.heartbeat"]
    env = os.environ | {"REDIS_URL": settings.redis_url, "CONSUMER_NAME": "this-host"}
    await create_group(redis)
    before = await asyncio.to_thread(
        subprocess.run, command, env=env, capture_output=True, check=False
    )
    assert (before.returncode, before.stderr) == (1, b"this-host has never read the stream\n")
    await read_new(redis, consumer="this-host", count=1, block_s=0.01)
    after = await asyncio.to_thread(
        subprocess.run, command, env=env, capture_output=True, check=False
    )
    assert (after.returncode, after.stderr) == (0, b"")

"""Rate limits: counted in memory, shared through a real Redis, and never waiting for it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.local.servers import Server
from shared.access.rate_limit import (
    MAX_WINDOWS,
    RateLimitExceeded,
    RateLimits,
    SharedMemoryStorage,
    parse_limits,
)
from shared.redis import connect
from tests.waiting import eventually

_HUNDRED = parse_limits("100/hour")


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """The Redis through which limits are shared."""
    async with connect(redis_url) as redis:
        yield redis


def _let_through(limits: RateLimits, attempts: int) -> int:
    passed = 0
    for _ in range(attempts):
        try:
            limits.hit(_HUNDRED, bucket="predict", caller="192.0.2.1")
        except RateLimitExceeded:
            continue
        passed += 1
    return passed


def test_limit_lets_exactly_its_amount_through() -> None:
    """One process alone is exact; each rejection is counted."""
    limits = RateLimits()
    assert _let_through(limits, 130) == 100
    assert limits.rejections == {"predict": 30}


def test_callers_and_buckets_are_counted_apart() -> None:
    """One caller's greed is nobody else's loss."""
    limits = RateLimits()
    _let_through(limits, 101)
    limits.hit(_HUNDRED, bucket="predict", caller="192.0.2.2")
    limits.hit(_HUNDRED, bucket="benchmark", caller="192.0.2.1")


def test_headers_speak_of_the_limit_nearest_to_its_end() -> None:
    """A caller learns what is left before it is refused, and when it may come again after."""
    limits = RateLimits()
    both = parse_limits("5/hour;2/minute")
    headers = dict(limits.hit(both, bucket="other", caller="a"))
    assert headers[b"x-ratelimit-limit"] == b"2"
    assert headers[b"x-ratelimit-remaining"] == b"1"
    assert 0 < int(headers[b"x-ratelimit-reset"]) <= 60
    limits.hit(both, bucket="other", caller="a")
    with pytest.raises(RateLimitExceeded) as refused:
        limits.hit(both, bucket="other", caller="a")
    assert dict(refused.value.headers)[b"x-ratelimit-remaining"] == b"0"
    assert 0 < (refused.value.retry_after_s or 0) <= 60


def test_window_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller starts anew after the window; an hour is too long to wait, so the clock moves."""
    limits = RateLimits()
    assert _let_through(limits, 101) == 100
    window = next(iter(limits.storage._windows.values()))  # noqa: SLF001
    monkeypatch.setattr("shared.access.rate_limit.time", lambda: window.ends_at_s + 1)
    assert _let_through(limits, 1) == 1


def test_unlimited_is_no_limit_and_no_headers() -> None:
    """A key without a limit is not even counted."""
    assert RateLimits().hit(parse_limits("unlimited"), bucket="b", caller="c") == []


def test_counters_are_bounded() -> None:
    """A flood of addresses cannot fill the memory."""
    storage = SharedMemoryStorage()
    for number in range(MAX_WINDOWS + 5):
        storage.incr(str(number), 60)
    assert storage.reset() == MAX_WINDOWS


async def test_two_processes_share_one_limit(redis: Redis) -> None:
    """After an exchange each knows what the other let through."""
    one, other = RateLimits(), RateLimits()
    assert _let_through(one, 60) == 60
    assert _let_through(other, 30) == 30
    await one.storage.exchange(redis)
    await other.storage.exchange(redis)
    await one.storage.exchange(redis)
    assert _let_through(other, 20) == 10
    await other.storage.exchange(redis)
    assert _let_through(one, 1) == 1
    await one.storage.exchange(redis)
    assert _let_through(one, 1) == 0


async def test_limits_go_on_locally_without_redis_and_rejoin(own_redis: Server) -> None:
    """Redis away: still limited; back again: what passed meanwhile is added there."""
    limits = RateLimits()
    async with connect(own_redis.url) as redis:
        exchanging = asyncio.create_task(limits.storage.keep_exchanging(redis))
        own_redis.process.kill()
        assert _let_through(limits, 130) == 100
        await eventually(lambda: limits.storage.degraded)
        own_redis.process.start()
        await eventually(lambda: not limits.storage.degraded)
        exchanging.cancel()
        newcomer = RateLimits()
        newcomer.hit(_HUNDRED, bucket="predict", caller="192.0.2.1")
        await newcomer.storage.exchange(redis)
        assert _let_through(newcomer, 1) == 0
    assert limits.storage.degradations > 0


async def test_counts_are_kept_when_an_exchange_fails(own_redis: Server) -> None:
    """A failed exchange forgets nothing."""
    storage = SharedMemoryStorage()
    storage.incr("key", 60)
    async with connect(own_redis.url) as redis:
        own_redis.process.kill()
        with pytest.raises((RedisError, OSError)):
            await storage.exchange(redis)
        own_redis.process.start()
        await storage.exchange(redis)
        assert await redis.get("key") == b"1"
        assert 0 < await redis.pttl("key") <= 60_000


def test_storage_tells_its_counts() -> None:
    """The rest of the storage contract, as slowapi's own routes would use it."""
    storage = SharedMemoryStorage()
    assert storage.check()
    assert storage.get("key") == 0
    storage.incr("key", 60, 3)
    assert storage.get("key") == 3
    storage.clear("key")
    assert storage.get("key") == 0
    assert storage.get_expiry("key") > 0

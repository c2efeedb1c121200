"""Rate limits: counted in memory, shared through a real Redis, and never waiting for it."""

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from time import perf_counter

import pytest
import pytest_asyncio
from fastapi import FastAPI
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.local.servers import Server
from shared.access.limits import parse_limits
from shared.access.rate_limit import MAX_WINDOWS, RateLimitExceeded, RateLimits, SharedMemoryStorage
from shared.contract.events import KEY_PREFIX
from shared.observability.logs import silent
from shared.observability.metrics import Metrics
from shared.redis import connect
from shared.web.conventions import install_conventions
from shared.web.health import health_router
from tests.raw import connected
from tests.serving import served
from tests.waiting import eventually, eventually_said

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
    """A greedy caller takes nothing from another."""
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


@pytest.mark.no_cover
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
        assert await redis.get(f"{KEY_PREFIX}key") == b"1"
        assert 0 < await redis.pttl(f"{KEY_PREFIX}key") <= 60_000


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


async def test_exchange_sends_what_changed_and_only_so_much_at_a_time(own_redis: Server) -> None:
    """A flood of addresses reaches Redis over several turns; a quiet process sends nothing."""
    storage = SharedMemoryStorage()
    for number in range(2500):
        storage.incr(str(number), 60)
    async with connect(own_redis.url) as redis:
        known = []
        for _ in range(4):
            await storage.exchange(redis)
            known.append(await redis.dbsize())
        assert known == [1000, 2000, 2500, 2500]
        commands = await redis.info("commandstats")
        assert commands["cmdstat_incrby"]["calls"] == 2500
        assert commands["cmdstat_eval"]["calls"] == 25
        assert await redis.get(f"{KEY_PREFIX}0") == b"1"


async def test_ended_windows_are_dropped_a_few_at_a_time(own_redis: Server) -> None:
    """Memory follows the addresses of now, and no turn looks at all of them."""
    storage = SharedMemoryStorage()
    for number in range(2500):
        storage.incr(str(number), 0.001)
    await asyncio.sleep(0.01)
    async with connect(own_redis.url) as redis:
        for _ in range(4):
            await storage.exchange(redis)
        assert storage.reset() == 0
        assert await redis.dbsize() == 0


async def test_window_that_ends_during_an_exchange_does_not_change_the_next_one(
    own_redis: Server,
) -> None:
    """Redis answers late, about a window that is over: nothing is subtracted."""
    storage = SharedMemoryStorage()
    storage.incr("key", 0.5, amount=7)
    async with connect(own_redis.url) as redis:
        own_redis.process.pause()
        exchanging = asyncio.create_task(storage.exchange(redis))
        await asyncio.sleep(0.6)
        storage.incr("key", 60)
        own_redis.process.resume()
        await exchanging
        assert await redis.get(f"{KEY_PREFIX}key") == b"8"


async def test_stalled_redis_does_not_multiply_the_counts(own_redis: Server) -> None:
    """It carries out what it was sent while it stood still: one chunk, and not at each attempt."""
    storage = SharedMemoryStorage()
    names = [str(number) for number in range(300)]
    async with connect(own_redis.url, command_timeout_s=0.1) as redis:
        await redis.ping()
        own_redis.process.pause()
        for name in names:
            storage.incr(name, 60)
        exchanging = asyncio.create_task(storage.keep_exchanging(redis))
        await eventually(lambda: storage.degradations > 5)
        own_redis.process.resume()
        await eventually(lambda: not storage.degraded)
        exchanging.cancel()
        counted = Counter(await redis.mget(KEY_PREFIX + name for name in names))
    assert counted.keys() <= {b"1", b"2"}
    assert counted[b"2"] <= 100


def test_memory_per_address_is_bounded() -> None:
    """An IPv6 /48 has 65,536 subscribers, and each may take two counts."""
    storage = SharedMemoryStorage()
    tracemalloc.start()
    for number in range(10_000):
        storage.incr(f"LIMITER/other/2001:db8:0:{number:x}::/64/200/1/hour", 3600)
    used_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used_bytes / 10_000 < 600


async def _probe(url: str, took_s: list[float]) -> None:
    """How long /livez takes, again and again, on one connection."""
    async with connected(url) as connection:
        while True:
            began_s = perf_counter()
            await connection.send(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await connection.answer()).status == 200
            took_s.append(perf_counter() - began_s)
            await asyncio.sleep(0.005)


@pytest.mark.no_cover
async def test_many_addresses_do_not_stall_the_service(own_redis: Server) -> None:
    """Neither while they come, nor while Redis stands still, nor when it takes them all at once."""
    limits, allowed = RateLimits(), parse_limits("200/hour;1000/day")
    addresses = [f"2001:db8:{number:x}::/64" for number in range(50_000)]
    took_s: list[float] = []

    async def come(some: Sequence[str]) -> None:
        for start in range(0, len(some), 100):
            for address in some[start : start + 100]:
                limits.hit(allowed, bucket="other", caller=address)
            await asyncio.sleep(0.001)

    app = FastAPI()
    install_conventions(app, log_access=silent, metrics=Metrics())
    app.include_router(health_router(service="test", version="1", checks=lambda _: ()))
    async with (
        connect(own_redis.url) as redis,
        served(app) as client,
        limits.shared_through(redis),
    ):
        probing = asyncio.create_task(_probe(str(client.base_url), took_s))
        await come(addresses[:25_000])
        own_redis.process.pause()
        await come(addresses[25_000:])
        await eventually(lambda: limits.storage.degraded)
        own_redis.process.resume()

        async def all_known() -> bool:
            return int(await redis.dbsize()) == 100_000

        await eventually_said(all_known, timeout_s=60)
        await asyncio.sleep(0.5)
        probing.cancel()
        await asyncio.wait([probing])
    assert len(took_s) > 100
    assert sorted(took_s)[len(took_s) * 99 // 100] < 0.1

"""The cache: one computation for concurrent requests, and none that waits for Redis."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from redis.exceptions import RedisError

from services.history.cache import Cache
from services.local.servers import Server
from shared.redis import connect

DEADLINE_S = 0.1


@pytest_asyncio.fixture
async def cache(redis_url: str) -> AsyncIterator[Cache]:
    """A cache on an empty Redis."""
    cache = Cache(connect(redis_url, command_timeout_s=DEADLINE_S), prefix="test")
    yield cache
    await cache.aclose()


class Counter:
    """Computes ``answer 1``, ``answer 2`` and so on, after a moment."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self) -> bytes:
        """Return the next answer."""
        self.calls += 1
        answer = f"answer {self.calls}".encode()
        await asyncio.sleep(0.02)
        return answer


async def test_second_answer_comes_from_the_cache(cache: Cache) -> None:
    """The first call computes, the next returns the same bytes."""
    compute = Counter()
    assert await cache.get("k", compute, ttl_s=60) == (b"answer 1", False)
    assert await cache.get("k", compute, ttl_s=60) == (b"answer 1", True)
    assert await cache.get("other", compute, ttl_s=60) == (b"answer 2", False)


async def test_concurrent_calls_share_one_computation(cache: Cache) -> None:
    """A hundred requests for one key cost one computation."""
    compute = Counter()
    answers = await asyncio.gather(
        *(cache.get("k", compute, ttl_s=60, erasable=False) for _ in range(100))
    )
    assert {answer.body for answer in answers} == {b"answer 1"}
    assert compute.calls == 1


async def test_cancelled_call_does_not_cancel_the_computation_of_the_others(cache: Cache) -> None:
    """A client that disconnects does not disturb others waiting for the same answer."""
    compute = Counter()
    leaver = asyncio.create_task(cache.get("k", compute, ttl_s=60))
    stayer = asyncio.create_task(cache.get("k", compute, ttl_s=60))
    await asyncio.sleep(0.005)
    leaver.cancel()
    assert (await stayer).body == b"answer 1"


async def test_failed_computation_is_raised_and_not_cached(cache: Cache) -> None:
    """The call raises the error; the next call computes again."""

    async def fail() -> bytes:
        raise LookupError("nothing there")

    with pytest.raises(LookupError):
        await cache.get("k", fail, ttl_s=60)
    assert await cache.get("k", Counter(), ttl_s=60) == (b"answer 1", False)


async def test_answer_expires(cache: Cache) -> None:
    """An answer is served for its time to live and no longer."""
    compute = Counter()
    await cache.get("k", compute, ttl_s=1)
    await asyncio.sleep(1.1)
    assert await cache.get("k", compute, ttl_s=1) == (b"answer 2", False)


async def test_invalidation_expires_every_answer_but_the_unchanging(cache: Cache) -> None:
    """After an invalidation answers are computed afresh, except those that cannot change."""
    compute = Counter()
    await cache.get("changing", compute, ttl_s=60)
    await cache.get("unchanging", compute, ttl_s=60, unchanging=True)
    await cache.invalidate()
    assert await cache.get("changing", compute, ttl_s=60) == (b"answer 3", False)
    assert await cache.get("unchanging", compute, ttl_s=60, unchanging=True) == (b"answer 2", True)


async def test_answer_that_an_invalidation_overtakes_is_not_served_again(cache: Cache) -> None:
    """What was read before a commit and stored after its invalidation is stale at once."""
    compute = Counter()

    async def overtaken() -> bytes:
        answer = await compute()
        await cache.invalidate()
        return answer

    assert await cache.get("k", overtaken, ttl_s=60) == (b"answer 1", False)
    assert await cache.get("k", compute, ttl_s=60) == (b"answer 2", False)


@pytest.mark.parametrize("unchanging", [True, False])
async def test_forgetting_expires_every_answer(cache: Cache, unchanging: bool) -> None:
    """Afterwards nothing computed before is served, unchanging or not."""
    compute = Counter()
    await cache.get("k", compute, ttl_s=60, unchanging=unchanging)
    assert (await cache.get("k", compute, ttl_s=60, unchanging=unchanging)).hit
    await cache.forget()
    answer = await cache.get("k", compute, ttl_s=60, unchanging=unchanging)
    assert answer == (b"answer 2", False)


@pytest.mark.parametrize("unchanging", [True, False])
async def test_call_after_forgetting_does_not_join_a_computation_from_before(
    cache: Cache, unchanging: bool
) -> None:
    """What a slow reader read before is not served to others, now or later."""
    reading, forgotten = asyncio.Event(), asyncio.Event()

    async def slow() -> bytes:
        reading.set()
        await forgotten.wait()
        return b"erased since"

    async def ask(compute: Callable[[], Awaitable[bytes]]) -> bytes:
        answer = await cache.get("k", compute, ttl_s=60, unchanging=unchanging)
        return answer.body

    before = asyncio.create_task(ask(slow))
    await reading.wait()
    together = asyncio.create_task(ask(Counter()))
    await asyncio.sleep(0.05)
    await cache.forget()
    after = asyncio.create_task(ask(Counter()))
    assert await after == b"answer 1"
    forgotten.set()
    assert await before == await together == b"erased since"
    assert await ask(Counter()) == b"answer 1"


async def test_erasable_answers_are_not_shared_without_redis(own_redis: Server) -> None:
    """Without the generation it is unknown which computation began too early."""
    cache = Cache(connect(own_redis.url, command_timeout_s=DEADLINE_S), prefix="test")
    own_redis.process.kill()
    compute = Counter()
    answers = [cache.get("k", compute, ttl_s=60) for _ in range(3)]
    assert {answer.body for answer in await asyncio.gather(*answers)} == {
        *(b"answer 1", b"answer 2", b"answer 3")
    }
    with pytest.raises((RedisError, OSError)):
        await cache.forget()
    await cache.aclose()


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_without_redis_answers_are_computed_without_a_wait(
    own_redis: Server, fault: str
) -> None:
    """Redis gone or hanging: the deadline is paid once, then the cache is bypassed and counted."""
    cache = Cache(connect(own_redis.url, command_timeout_s=DEADLINE_S), prefix="test")
    compute = Counter()
    await cache.get("k", compute, ttl_s=60)
    getattr(own_redis.process, fault)()
    started_s = time.monotonic()
    assert await cache.get("k", compute, ttl_s=60) == (b"answer 2", False)
    for _ in range(5):
        assert not (await cache.get("k", compute, ttl_s=60)).hit
    assert time.monotonic() - started_s < 3 * DEADLINE_S + 6 * 0.02 + 0.3
    assert cache.failures == 1
    await cache.aclose()


async def test_cache_is_used_again_once_redis_is_back(own_redis: Server) -> None:
    """After a second of bypassing it the cache is used again."""
    cache = Cache(connect(own_redis.url, command_timeout_s=DEADLINE_S), prefix="test")
    own_redis.process.pause()
    await cache.get("k", Counter(), ttl_s=60)
    own_redis.process.resume()
    async with asyncio.timeout(10):
        while not (await cache.get("k", Counter(), ttl_s=60)).hit:  # noqa: ASYNC110 - time passing is the point
            await asyncio.sleep(0.1)
    await cache.aclose()


async def test_redis_lost_between_reading_and_storing_costs_the_answer_nothing(
    own_redis: Server,
) -> None:
    """An answer that cannot be cached is still returned."""
    cache = Cache(connect(own_redis.url, command_timeout_s=DEADLINE_S), prefix="test")
    compute: Callable[[], Awaitable[bytes]] = Counter()

    async def while_redis_dies() -> bytes:
        own_redis.process.kill()
        return await compute()

    assert await cache.get("k", while_redis_dies, ttl_s=60) == (b"answer 1", False)
    assert cache.failures == 1
    await cache.aclose()

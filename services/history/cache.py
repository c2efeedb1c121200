"""Answers cached in Redis as the bytes to send; concurrent requests share one computation."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from shared.observability.logs import get_logger
from shared.observability.metrics import Sample
from shared.observability.metrics.names import CACHE_FAILURES, CACHE_HITS, CACHE_MISSES
from shared.redis import REDIS_ERRORS, failure

_BYPASS_AFTER_FAILURE_S: Final = 1.0
_log = get_logger(__name__)


class Cached(NamedTuple):
    """The bytes of an answer, and whether they were cached."""

    body: bytes
    hit: bool


class _Found(NamedTuple):
    """The current generation, and the answer cached in it, if any.

    Without an answer from Redis there is no generation.
    """

    generation: bytes | None
    body: bytes | None


class Cache:
    """A cache that fails open: without Redis every answer is computed.

    ``redis`` is a client of the cache's own, whose command timeout bounds what a request waits for
    the cache; after a failure the cache is bypassed for a second. ``prefix`` starts every key.
    """

    def __init__(self, redis: Redis, *, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._generation_key = f"{prefix}:generation"
        self._unchanging_key = f"{prefix}:generation:unchanging"
        self._flights: dict[str, asyncio.Task[Cached]] = {}
        self._bypass_until_s = 0.0
        self.hits = 0
        self.misses = 0
        self.failures = 0
        """Commands that failed; each began a second of bypassing the cache."""

    def samples(self) -> Iterable[Sample]:
        """The cache's metrics."""
        yield Sample(CACHE_HITS, self.hits)
        yield Sample(CACHE_MISSES, self.misses)
        yield Sample(CACHE_FAILURES, self.failures)

    async def get(
        self,
        key: str,
        compute: Callable[[], Awaitable[bytes]],
        *,
        ttl_s: int,
        unchanging: bool = False,
        erasable: bool = True,
    ) -> Cached:
        """The bytes under ``key``, from the cache or else from ``compute``, cached for ``ttl_s``.

        Within this process concurrent calls for one key share one lookup and one computation.
        ``invalidate`` ends the life of every answer that is not ``unchanging``, ``forget`` that of
        every answer. A call made after ``forget`` has returned, in any process, gets no
        ``erasable`` answer whose computation began before: each call looks up such an answer for
        itself and, without Redis, computes it for itself. Raises what ``compute`` raises; then
        nothing is cached.
        """
        cached = await self._get(
            key, compute, ttl_s=ttl_s, unchanging=unchanging, erasable=erasable
        )
        if cached.hit:
            self.hits += 1
        else:
            self.misses += 1
        return cached

    async def _get(
        self,
        key: str,
        compute: Callable[[], Awaitable[bytes]],
        *,
        ttl_s: int,
        unchanging: bool,
        erasable: bool,
    ) -> Cached:
        generation_key = self._unchanging_key if unchanging else self._generation_key

        async def look_up() -> Cached:
            found = await self._find(key, generation_key)
            return await self._complete(key, found, compute, ttl_s)

        if not erasable:
            return await self._share(key, look_up)
        # Each call reads the generation before it joins another's computation, which may have
        # begun before the values were erased.
        found = await self._find(key, generation_key)
        if found.body is not None or found.generation is None:
            return await self._complete(key, found, compute, ttl_s)
        return await self._share(
            f"{found.generation!r} {key}", lambda: self._complete(key, found, compute, ttl_s)
        )

    async def invalidate(self) -> None:
        """Expire every answer computed before now, except unchanging ones.

        One increment, however much is cached. Raises ``REDIS_ERRORS``.
        """
        await self._redis.incr(self._generation_key)

    async def drop(self, key: str) -> None:
        """Remove one answer; one that is being computed may still be cached.

        Raises ``REDIS_ERRORS``.
        """
        await self._redis.delete(f"{self._prefix}:{key}")

    async def forget(self) -> None:
        """Expire every answer computed before now.

        Raises ``REDIS_ERRORS``; cached answers may still be served then.
        """
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.incr(self._generation_key)
            pipeline.incr(self._unchanging_key)
            await pipeline.execute()

    async def aclose(self) -> None:
        """Close the client."""
        await self._redis.aclose()

    async def _share(
        self, flight_key: str, fly: Callable[[], Coroutine[Any, Any, Cached]]
    ) -> Cached:
        flight = self._flights.get(flight_key)
        if flight is None:
            flight = asyncio.create_task(fly())
            self._flights[flight_key] = flight
            flight.add_done_callback(lambda done: self._land(flight_key, done))
        # Other requests may be waiting too: one that is cancelled must not cancel the computation.
        return await asyncio.shield(flight)

    def _land(self, flight_key: str, flight: asyncio.Task[Cached]) -> None:
        del self._flights[flight_key]
        if not flight.cancelled():
            flight.exception()  # marks it as retrieved, even if no request is waiting any more

    async def _find(self, key: str, generation_key: str) -> _Found:
        if time.monotonic() < self._bypass_until_s:
            return _Found(None, None)
        try:
            found: list[Any] = await self._redis.mget(generation_key, f"{self._prefix}:{key}")
        except REDIS_ERRORS as error:
            self._bypass(error)
            return _Found(None, None)
        generation: bytes = found[0] or b"0"
        stored: bytes | None = found[1]
        if stored is not None:
            stored_generation, _, body = stored.partition(b"\n")
            if stored_generation == generation:
                return _Found(generation, body)
        return _Found(generation, None)

    async def _complete(
        self, key: str, found: _Found, compute: Callable[[], Awaitable[bytes]], ttl_s: int
    ) -> Cached:
        if found.body is not None:
            return Cached(found.body, hit=True)
        body = await compute()
        if found.generation is not None:
            # The generation from before the computation: an answer invalidated meanwhile is
            # expired as soon as it is stored.
            marked = found.generation + b"\n" + body
            try:
                await self._redis.set(f"{self._prefix}:{key}", marked, ex=ttl_s)
            except REDIS_ERRORS as error:
                self._bypass(error)
        return Cached(body, hit=False)

    def _bypass(self, error: Exception) -> None:
        self._bypass_until_s = time.monotonic() + _BYPASS_AFTER_FAILURE_S
        self.failures += 1
        _log.warning("cache bypassed", reason=failure(error), error=repr(error))

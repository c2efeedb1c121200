"""Answers kept in Redis as the bytes to send, each computed once however many ask for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.observability.logs import get_logger
from shared.observability.metrics import Sample
from shared.observability.metrics.names import CACHE_FAILURES, CACHE_HITS, CACHE_MISSES

_REST_AFTER_FAILURE_S: Final = 1.0
_log = get_logger(__name__)


class Cached(NamedTuple):
    """The bytes of an answer, and whether they came from the cache."""

    body: bytes
    hit: bool


class _Found(NamedTuple):
    """The generation that an answer computed now belongs to, and the answer kept from it, if any.

    There is no generation when Redis does not tell it.
    """

    generation: bytes | None
    body: bytes | None


class Cache:
    """A cache that fails open: without Redis every answer is computed, and nobody waits for it.

    ``redis`` is a client of the cache's own whose command timeout is the longest a request ever
    waits for it; after a failure the cache rests for a second. ``prefix`` starts every key.
    """

    def __init__(self, redis: Redis, *, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._generation_key = f"{prefix}:generation"
        self._unchanging_key = f"{prefix}:generation:unchanging"
        self._flights: dict[str, asyncio.Task[Cached]] = {}
        self._rest_until_s = 0.0
        self.hits = 0
        self.misses = 0
        self.failures = 0
        """How often Redis did not serve the cache; each time began a second of rest."""

    def samples(self) -> Iterable[Sample]:
        """What is to be known of the cache from outside."""
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
        """The bytes under ``key``, from the cache or else from ``compute``, kept for ``ttl_s``.

        Within this process one key is looked up and computed once at a time; whoever asks
        meanwhile gets the same answer. ``invalidate`` ends the life of every answer that is not
        ``unchanging``, ``forget`` that of every answer. Who asks after ``forget`` returned, in
        whichever process, gets no ``erasable`` answer that was begun before; such an answer is
        looked up by everybody for themselves and, without Redis, shared by nobody. Raises what
        ``compute`` raises, and stores nothing then.
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
        # Everybody reads the generation before joining another's computation, for that may have
        # begun before the values were erased.
        found = await self._find(key, generation_key)
        if found.body is not None or found.generation is None:
            return await self._complete(key, found, compute, ttl_s)
        return await self._share(
            f"{found.generation!r} {key}", lambda: self._complete(key, found, compute, ttl_s)
        )

    async def invalidate(self) -> None:
        """Let no answer that was computed before now be served again, except unchanging ones.

        One increment, whatever the cache holds. Raises what the client raises.
        """
        await self._redis.incr(self._generation_key)

    async def forget(self) -> None:
        """Let no answer that was computed before now be served again, without exception.

        Raises what the client raises; what was computed before may be served on then.
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
        # The flight belongs to all who wait for it: one who leaves must not end it.
        return await asyncio.shield(flight)

    def _land(self, flight_key: str, flight: asyncio.Task[Cached]) -> None:
        del self._flights[flight_key]
        if not flight.cancelled():
            flight.exception()  # every waiter may have left: then nobody else asks for it

    async def _find(self, key: str, generation_key: str) -> _Found:
        if time.monotonic() < self._rest_until_s:
            return _Found(None, None)
        try:
            found: list[Any] = await self._redis.mget(generation_key, f"{self._prefix}:{key}")
        except (RedisError, OSError) as error:
            self._rest(error)
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
            # The generation that was current before computing: an answer that an invalidation
            # overtakes is stale the moment it is stored.
            marked = found.generation + b"\n" + body
            try:
                await self._redis.set(f"{self._prefix}:{key}", marked, ex=ttl_s)
            except (RedisError, OSError) as error:
                self._rest(error)
        return Cached(body, hit=False)

    def _rest(self, error: Exception) -> None:
        self._rest_until_s = time.monotonic() + _REST_AFTER_FAILURE_S
        self.failures += 1
        _log.warning("cache bypassed", error=repr(error))

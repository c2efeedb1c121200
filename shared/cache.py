"""Answers kept in Redis as the bytes to send, each computed once however many ask for it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

_REST_AFTER_FAILURE_S: Final = 1.0
_UNCHANGING: Final = b"-"
_log = logging.getLogger(__name__)


class Cached(NamedTuple):
    """The bytes of an answer, and whether they came from the cache."""

    body: bytes
    hit: bool


class Cache:
    """A cache that fails open: without Redis every answer is computed, and nobody waits for it.

    ``redis`` is a client of the cache's own whose command timeout is the longest a request ever
    waits for it; after a failure the cache rests for a second. ``prefix`` starts every key.
    """

    def __init__(self, redis: Redis, *, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._generation_key = f"{prefix}:generation"
        self._flights: dict[str, asyncio.Task[Cached]] = {}
        self._rest_until_s = 0.0
        self.failures = 0
        """How often Redis did not serve the cache; each time began a second of rest."""

    async def get(
        self,
        key: str,
        compute: Callable[[], Awaitable[bytes]],
        *,
        ttl_s: int,
        unchanging: bool = False,
    ) -> Cached:
        """The bytes under ``key``, from the cache or else from ``compute``, kept for ``ttl_s``.

        Within this process one key is looked up and computed once at a time; whoever asks
        meanwhile gets the same answer. ``invalidate`` ends the life of every answer that is not
        ``unchanging``. Raises what ``compute`` raises, and stores nothing then.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._look_up(key, compute, ttl_s, unchanging))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._land(key, done))
        # The flight belongs to all who wait for it: one who leaves must not end it.
        return await asyncio.shield(flight)

    async def invalidate(self) -> None:
        """Let no answer that was computed before now be served again, except unchanging ones.

        One increment, whatever the cache holds. Raises what the client raises.
        """
        await self._redis.incr(self._generation_key)

    async def aclose(self) -> None:
        """Close the client."""
        await self._redis.aclose()

    def _land(self, key: str, flight: asyncio.Task[Cached]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # every waiter may have left: then nobody else asks for it

    async def _look_up(
        self, key: str, compute: Callable[[], Awaitable[bytes]], ttl_s: int, unchanging: bool
    ) -> Cached:
        if time.monotonic() < self._rest_until_s:
            return Cached(await compute(), hit=False)
        stored_key = f"{self._prefix}:{key}"
        try:
            found: list[Any] = await self._redis.mget(self._generation_key, stored_key)
        except (RedisError, OSError) as error:
            self._rest(error)
            return Cached(await compute(), hit=False)
        generation: bytes | None = found[0]
        stored: bytes | None = found[1]
        # The generation that was current before computing: an answer that an invalidation
        # overtakes is stale the moment it is stored.
        mark = _UNCHANGING if unchanging else generation or b"0"
        if stored is not None:
            stored_mark, _, body = stored.partition(b"\n")
            if stored_mark == mark:
                return Cached(body, hit=True)
        body = await compute()
        try:
            await self._redis.set(stored_key, mark + b"\n" + body, ex=ttl_s)
        except (RedisError, OSError) as error:
            self._rest(error)
        return Cached(body, hit=False)

    def _rest(self, error: Exception) -> None:
        self._rest_until_s = time.monotonic() + _REST_AFTER_FAILURE_S
        self.failures += 1
        _log.warning("cache bypassed: %r", error)

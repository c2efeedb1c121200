"""Rate limits, counted in memory and shared between processes through Redis.

A check touches local memory only, so it never waits for Redis. A background task sends what this
process admitted to Redis and takes over the sum of all processes. Between two exchanges a process
knows only its own requests, so a limit can be exceeded by what the others admit in that time; that
is the price of a check that costs microseconds.

An exchange is bounded, however many addresses call: it sends only changed counts, a limited number
per turn, in chunks between which the event loop serves requests.

While Redis is away, limits are counted locally, which is logged and counted in a metric; what was
admitted meanwhile is added when it is back.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from math import ceil
from time import time
from typing import Any, ClassVar, Final

from limits import RateLimitItem
from limits.storage import Storage
from redis.asyncio import Redis
from slowapi import Limiter
from slowapi.util import get_remote_address

from shared.access.limits import Limits
from shared.contract.errors import ServiceError
from shared.contract.events import KEY_PREFIX
from shared.observability.logs import get_logger
from shared.observability.metrics import Sample
from shared.observability.metrics.names import RATE_LIMIT_DEGRADED, RATE_LIMIT_REJECTIONS
from shared.redis import REDIS_ERRORS, failure

MAX_WINDOWS: Final = 100_000
"""Most counts kept at once, some 300 bytes each; beyond that the oldest are dropped first."""

_STORAGE_URI: Final = "shared-memory://"
_EXCHANGE_INTERVAL_S: Final = 0.075
_CHUNK: Final = 100
"""Counts sent together: 0.6 ms of processor time."""
_CHUNKS_PER_TURN: Final = 10
_SWEPT_PER_TURN: Final = 1000

# Adds to counts, and returns for each the sum of all processes and when its window ends.
_ADD: Final = """
local answers = {}
for place, key in ipairs(KEYS) do
    local total = redis.call('INCRBY', key, ARGV[2 * place - 1])
    local left_ms = redis.call('PTTL', key)
    if left_ms < 0 then
        left_ms = tonumber(ARGV[2 * place])
        redis.call('PEXPIRE', key, left_ms)
    end
    answers[place] = {total, left_ms}
end
return answers
"""

_log = get_logger(__name__)


class RateLimitExceeded(ServiceError):
    """The caller has used up a limit."""

    status = 429
    title = "Too many requests"

    def __init__(self, limit: RateLimitItem, *, reset_after_s: int) -> None:
        super().__init__(
            f"The limit is {limit}; ask again in {reset_after_s} s, or use an API key with a"
            " limit of its own."
        )
        self.retry_after_s = reset_after_s
        self.headers = _headers(limit, left=0, reset_after_s=reset_after_s)
        """The headers of the limit that is used up."""


@dataclass(slots=True)
class _Window:
    count: int
    ends_at_s: float
    unsent: int


class SharedMemoryStorage(Storage):
    """Fixed-window counts in memory, exchanged with other processes by ``exchange``."""

    STORAGE_SCHEME: ClassVar[list[str]] = ["shared-memory"]  # type: ignore[misc]  # untyped base

    def __init__(self, uri: str | None = None, **options: Any) -> None:
        super().__init__(uri, **options)
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._changed: dict[str, None] = {}
        """The keys of counts that Redis does not have yet, the oldest first."""
        self._to_sweep: Iterator[str] = iter(())
        self.degraded = False
        self.degradations = 0

    @property
    def base_exceptions(self) -> type[Exception]:
        """Errors of the storage itself; memory has none."""
        return MemoryError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add ``amount`` to the count under ``key``, in a window of ``expiry`` seconds."""
        now_s = time()
        window = self._windows.get(key)
        if window is None or window.ends_at_s <= now_s:
            if window is None and len(self._windows) >= MAX_WINDOWS:
                self.clear(next(iter(self._windows)))
            window = self._windows[key] = _Window(0, now_s + expiry, 0)
            self._windows.move_to_end(key)
        window.count += amount
        window.unsent += amount
        self._changed[key] = None
        return window.count

    def get(self, key: str) -> int:
        """The count under ``key``, 0 once its window has ended."""
        window = self._windows.get(key)
        return 0 if window is None or window.ends_at_s <= time() else window.count

    def get_expiry(self, key: str) -> float:
        """When the window of ``key`` ends, in seconds since the epoch."""
        window = self._windows.get(key)
        return time() if window is None else window.ends_at_s

    def check(self) -> bool:
        """Memory is always available."""
        return True

    def reset(self) -> int:
        """Drop all counts; returns how many there were."""
        dropped = len(self._windows)
        self._windows.clear()
        self._changed.clear()
        return dropped

    def clear(self, key: str) -> None:
        """Drop the count under ``key``."""
        self._windows.pop(key, None)
        self._changed.pop(key, None)

    async def exchange(self, redis: Redis) -> None:
        """Add changed counts to Redis and take over the sums of all processes, for one turn.

        Raises ``REDIS_ERRORS`` and keeps what is not sent for the next turn.
        """
        self._sweep()
        for _ in range(_CHUNKS_PER_TURN):
            if not self._changed:
                return
            await self._send(redis, list(islice(self._changed, _CHUNK)))

    async def keep_exchanging(self, redis: Redis) -> None:
        """Exchange with Redis until cancelled; logs once when it is away."""
        while True:
            try:
                await self.exchange(redis)
            except REDIS_ERRORS as error:
                if not self.degraded:
                    _log.warning("rate limits are local", reason=failure(error), error=repr(error))
                self.degraded = True
                self.degradations += 1
            else:
                if self.degraded:
                    _log.info("rate limits are shared again")
                self.degraded = False
            await asyncio.sleep(_EXCHANGE_INTERVAL_S)

    async def _send(self, redis: Redis, keys: Sequence[str]) -> None:
        now_s = time()
        sent: list[tuple[str, _Window, int]] = []
        amounts: list[int] = []
        for key in keys:
            del self._changed[key]
            window = self._windows[key]
            left_ms = int((window.ends_at_s - now_s) * 1000)
            if left_ms > 0:
                sent.append((key, window, window.unsent))
                amounts += (window.unsent, left_ms)
        if not sent:
            return
        counts = (KEY_PREFIX + key for key, _, _ in sent)
        try:
            answers = await redis.eval(_ADD, len(sent), *counts, *amounts)
        except REDIS_ERRORS:
            self._changed |= {key: None for key, _, _ in sent if key in self._windows}
            raise
        for (_, window, unsent), (total, left_ms) in zip(sent, answers, strict=True):
            window.unsent -= unsent
            # A Redis that lost its memory knows less than this process does.
            window.count = max(window.count, total + window.unsent)
            window.ends_at_s = now_s + left_ms / 1000

    def _sweep(self) -> None:
        """Drop ended windows, looking at some in each turn and at all again and again."""
        now_s = time()
        swept = list(islice(self._to_sweep, _SWEPT_PER_TURN))
        if not swept:
            self._to_sweep = iter(list(self._windows))
        for key in swept:
            window = self._windows.get(key)
            if window is not None and window.ends_at_s <= now_s:
                self.clear(key)


class RateLimits:
    """slowapi's limiter over the storage above, without its per-route machinery.

    slowapi's own check finds limits by endpoint and reads every count twice, 28 us a request; this
    asks the same storage once per limit. Rejections of ``buckets`` are exported from the start.
    """

    def __init__(self, *buckets: str) -> None:
        limiter = Limiter(get_remote_address, storage_uri=_STORAGE_URI)
        storage = limiter.limiter.storage
        if not isinstance(storage, SharedMemoryStorage):
            raise TypeError(f"slowapi chose another storage: {storage!r}")
        self.storage = storage
        self.rejections = Counter(dict.fromkeys(buckets, 0))

    @asynccontextmanager
    async def shared_through(self, redis: Redis) -> AsyncIterator[None]:
        """Share the limits with the other processes on ``redis`` while the block runs."""
        exchanging = asyncio.create_task(self.storage.keep_exchanging(redis))
        try:
            yield
        finally:
            exchanging.cancel()
            await asyncio.wait([exchanging])

    def samples(self) -> Iterable[Sample]:
        """The metrics of the limits."""
        yield Sample(RATE_LIMIT_DEGRADED, int(self.storage.degraded))
        for bucket, rejections in list(self.rejections.items()):
            yield Sample(RATE_LIMIT_REJECTIONS, rejections, (bucket,))

    def hit(
        self, limits: Limits, *, bucket: str, caller: str, cost: int = 1
    ) -> list[tuple[bytes, bytes]]:
        """Count a request of ``caller`` to ``bucket`` as ``cost``; returns headers for the answer.

        They report the limit that is nearest to being used up. Raises ``RateLimitExceeded``; a
        refused request counts too, unless it costs more than one.
        """
        nearest: tuple[int, RateLimitItem, str] | None = None
        for limit in limits:
            key = limit.key_for(bucket, caller)
            left = limit.amount - self.storage.incr(key, limit.get_expiry(), cost)
            if nearest is None or left < nearest[0]:
                nearest = (left, limit, key)
        if nearest is None:
            return []
        left, limit, key = nearest
        reset_after_s = max(1, ceil(self.storage.get_expiry(key) - time()))
        if left < 0:
            if cost > 1:
                for each in limits:
                    key = each.key_for(bucket, caller)
                    self.storage.incr(key, each.get_expiry(), -cost)
            self.rejections[bucket] += 1
            raise RateLimitExceeded(limit, reset_after_s=reset_after_s)
        return _headers(limit, left=left, reset_after_s=reset_after_s)


def _headers(limit: RateLimitItem, *, left: int, reset_after_s: int) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-ratelimit-limit", b"%d" % limit.amount),
        (b"x-ratelimit-remaining", b"%d" % left),
        (b"x-ratelimit-reset", b"%d" % reset_after_s),
    ]

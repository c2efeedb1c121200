"""Rate limits that several processes share through Redis without ever waiting for it.

A check is local memory only. A background task exchanges counts with Redis: what this process let
pass since the last time is added there, and the sum of all processes comes back. Between two
exchanges each process knows only its own requests, so a limit can be passed by what the others
let through in that time; that is the price of a check that costs microseconds.

When Redis is away the limits go on locally, which is logged once and counted, and what was let
pass meanwhile is added when it is back.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil
from time import time
from typing import Any, ClassVar, Final

from limits import RateLimitItem, parse_many
from limits.storage import Storage
from redis.asyncio import Redis
from redis.exceptions import RedisError
from slowapi import Limiter
from slowapi.util import get_remote_address

from shared.contract.errors import ServiceError
from shared.observability.logs import get_logger
from shared.observability.metrics import Sample
from shared.observability.metrics.names import RATE_LIMIT_DEGRADED, RATE_LIMIT_REJECTIONS

EXCHANGE_INTERVAL_S: Final = 0.075
STORAGE_URI: Final = "shared-memory://"
UNLIMITED: Final = "unlimited"
MAX_WINDOWS: Final = 100_000
"""Most counters kept at once; beyond that the oldest are forgotten first."""

Limits = tuple[RateLimitItem, ...]
"""All of them hold at once; none of them is no limit."""

_log = get_logger(__name__)


class RateLimitExceeded(ServiceError):
    """The caller has used up what it may ask in this time."""

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
    """Fixed-window counters in memory, exchanged with other processes by ``exchange``."""

    STORAGE_SCHEME: ClassVar[list[str]] = ["shared-memory"]  # type: ignore[misc]  # untyped base

    def __init__(self, uri: str | None = None, **options: Any) -> None:
        super().__init__(uri, **options)
        self._windows: dict[str, _Window] = {}
        self.degraded = False
        self.degradations = 0

    @property
    def base_exceptions(self) -> type[Exception]:
        """Errors of the storage itself; memory has none."""
        return MemoryError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count ``amount`` more under ``key`` in a window of ``expiry`` seconds."""
        now_s = time()
        window = self._windows.get(key)
        if window is None or window.ends_at_s <= now_s:
            if len(self._windows) >= MAX_WINDOWS:
                del self._windows[next(iter(self._windows))]
            window = self._windows[key] = _Window(0, now_s + expiry, 0)
        window.count += amount
        window.unsent += amount
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
        """Memory is always there."""
        return True

    def reset(self) -> int:
        """Forget all counts; returns how many there were."""
        forgotten = len(self._windows)
        self._windows.clear()
        return forgotten

    def clear(self, key: str) -> None:
        """Forget the count under ``key``."""
        self._windows.pop(key, None)

    async def exchange(self, redis: Redis) -> None:
        """Add what is new to Redis and take over the sums of all processes.

        Raises ``RedisError`` or ``OSError`` and keeps what is new for the next time.
        """
        now_s = time()
        for key in [key for key, window in self._windows.items() if window.ends_at_s <= now_s]:
            del self._windows[key]
        changed = {key: window.unsent for key, window in self._windows.items() if window.unsent}
        if not changed:
            return
        pipeline = redis.pipeline(transaction=False)
        for key, unsent in changed.items():
            left_ms = max(1, int((self._windows[key].ends_at_s - now_s) * 1000))
            pipeline.incrby(key, unsent)
            pipeline.pexpire(key, left_ms, nx=True)
            pipeline.pttl(key)
        answers = await pipeline.execute()
        for (key, sent), total, left_ms in zip(
            changed.items(), answers[::3], answers[2::3], strict=True
        ):
            window = self._windows.get(key)
            if window is not None:
                window.unsent -= sent
                # A Redis that lost its memory knows less than this process does.
                window.count = max(window.count, total + window.unsent)
                window.ends_at_s = now_s + left_ms / 1000

    async def keep_exchanging(self, redis: Redis) -> None:
        """Exchange with Redis for ever; its absence is said once and outlived."""
        while True:
            try:
                await self.exchange(redis)
            except (RedisError, OSError) as error:
                if not self.degraded:
                    _log.warning("rate limits are local only, Redis is away", error=repr(error))
                self.degraded = True
                self.degradations += 1
            else:
                if self.degraded:
                    _log.info("rate limits are shared again")
                self.degraded = False
            await asyncio.sleep(EXCHANGE_INTERVAL_S)


class RateLimits:
    """slowapi's limiter over the storage above, asked without its per-route machinery.

    slowapi's own check looks limits up by endpoint and reads every counter twice, 28 us a request;
    this asks the same storage once per limit. Rejections of ``buckets`` are told from the start.
    """

    def __init__(self, *buckets: str) -> None:
        limiter = Limiter(get_remote_address, storage_uri=STORAGE_URI)
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
        """What is to be known of the limits from outside."""
        yield Sample(RATE_LIMIT_DEGRADED, int(self.storage.degraded))
        for bucket, rejections in list(self.rejections.items()):
            yield Sample(RATE_LIMIT_REJECTIONS, rejections, (bucket,))

    def hit(self, limits: Limits, *, bucket: str, caller: str) -> list[tuple[bytes, bytes]]:
        """Count a request of ``caller`` to ``bucket``; returns the headers that tell what is left.

        The headers speak of the limit that is nearest to being used up. Raises
        ``RateLimitExceeded``; a request refused counts too.
        """
        nearest: tuple[int, RateLimitItem, str] | None = None
        for limit in limits:
            key = limit.key_for(bucket, caller)
            left = limit.amount - self.storage.incr(key, limit.get_expiry())
            if nearest is None or left < nearest[0]:
                nearest = (left, limit, key)
        if nearest is None:
            return []
        left, limit, key = nearest
        reset_after_s = max(1, ceil(self.storage.get_expiry(key) - time()))
        if left < 0:
            self.rejections[bucket] += 1
            raise RateLimitExceeded(limit, reset_after_s=reset_after_s)
        return _headers(limit, left=left, reset_after_s=reset_after_s)


def _headers(limit: RateLimitItem, *, left: int, reset_after_s: int) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-ratelimit-limit", b"%d" % limit.amount),
        (b"x-ratelimit-remaining", b"%d" % left),
        (b"x-ratelimit-reset", b"%d" % reset_after_s),
    ]


def parse_limits(text: str) -> Limits:
    """Limits as slowapi writes them, e.g. ``200/hour;1000/day``; ``unlimited`` is none.

    Raises ``ValueError`` for anything else.
    """
    try:
        return () if text == UNLIMITED else tuple(parse_many(text))
    except ValueError:
        raise ValueError("must be a limit such as 100/hour or 200/hour;1000/day") from None

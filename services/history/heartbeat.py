"""Check whether this host's consumer is running: ``python -m services.history.heartbeat``.

The consumer need not listen on any port. Redis notes when each consumer last read the stream,
which a running one does at least every ``consumer_block_s``.
"""

import asyncio
import sys
from typing import Final

from redis.asyncio import Redis

from services.history.settings import HistorySettings
from shared.contract.events import CONSUMER_GROUP, STREAM
from shared.observability.logs import take_over_output
from shared.redis import REDIS_ERRORS, connect
from shared.settings import read_settings_or_exit

BUSY_S: Final = 20.0
"""How long a batch may keep a consumer from reading before the consumer counts as stuck."""


async def seen_s_ago(redis: Redis, consumer: str) -> float | None:
    """When ``consumer`` last read the stream; None if it never did.

    Raises ``REDIS_ERRORS``, also while the group does not exist yet.
    """
    for member in await redis.xinfo_consumers(STREAM, CONSUMER_GROUP):
        if member["name"] == consumer.encode():
            return float(member["idle"]) / 1000
    return None


async def complaint(settings: HistorySettings, *, busy_s: float = BUSY_S) -> str | None:
    """What is wrong with the consumer ``settings.consumer_name``, in one sentence; or None."""
    redis = connect(settings.redis_url)
    try:
        seen = await seen_s_ago(redis, settings.consumer_name)
    except REDIS_ERRORS as error:
        return f"Redis does not answer: {error!r}"
    finally:
        await redis.aclose()
    if seen is None:
        return f"{settings.consumer_name} has never read the stream"
    if seen > settings.consumer_block_s + busy_s:
        return f"{settings.consumer_name} has not read the stream for {seen:.0f} s"
    return None


def main() -> int:
    """Check once; exit code 0 if the consumer is running, else 1 with the reason."""
    take_over_output()
    reason = asyncio.run(complaint(read_settings_or_exit(HistorySettings)))
    if reason is not None:
        print(reason, file=sys.stderr)
    return 0 if reason is None else 1


if __name__ == "__main__":
    sys.exit(main())

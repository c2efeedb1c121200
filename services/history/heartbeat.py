"""Tell whether this host's consumer is at work: ``python -m services.history.heartbeat``.

The consumer listens on no port. Redis knows when each consumer last read the stream, which they
do at least every ``consumer_block_s``, so that nothing has to be reported by the consumer itself.
"""

import asyncio
import sys
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.history.settings import HistorySettings
from shared.contract.events import CONSUMER_GROUP, STREAM
from shared.observability.logs import take_over_output
from shared.redis import connect
from shared.settings import read_settings_or_exit

BUSY_S: Final = 20.0
"""How long a batch may keep a consumer from reading before it counts as stuck."""


async def seen_s_ago(redis: Redis, consumer: str) -> float | None:
    """When ``consumer`` last read the stream; None if it never did.

    Raises ``RedisError`` (also while the group does not exist yet) or ``OSError``.
    """
    for member in await redis.xinfo_consumers(STREAM, CONSUMER_GROUP):
        if member["name"] == consumer.encode():
            return float(member["idle"]) / 1000
    return None


async def complaint(settings: HistorySettings, *, busy_s: float = BUSY_S) -> str | None:
    """What is wrong with the consumer ``settings.consumer_name``, in a sentence, if anything."""
    redis = connect(settings.redis_url)
    try:
        seen = await seen_s_ago(redis, settings.consumer_name)
    except (RedisError, OSError) as error:
        return f"Redis does not tell: {error!r}"
    finally:
        await redis.aclose()
    if seen is None:
        return f"{settings.consumer_name} has never read the stream"
    if seen > settings.consumer_block_s + busy_s:
        return f"{settings.consumer_name} has not read the stream for {seen:.0f} s"
    return None


def main() -> int:
    """Check once; the exit code is 0 if the consumer is at work, else 1 with the reason."""
    take_over_output()
    reason = asyncio.run(complaint(read_settings_or_exit(HistorySettings)))
    if reason is not None:
        print(reason, file=sys.stderr)
    return 0 if reason is None else 1


if __name__ == "__main__":
    sys.exit(main())

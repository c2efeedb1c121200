"""Redis clients with deadlines, so that a server that hangs costs a bounded wait."""

from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

COMMAND_TIMEOUT_S: Final = 1.0

REDIS_ERRORS: Final = (RedisError, OSError)
"""What a command may raise, timeouts and refused connections included."""

_PROBE: Final = "writable"


def connect(
    url: str, *, command_timeout_s: float = COMMAND_TIMEOUT_S, max_connections: int = 16
) -> Redis:
    """A client that returns bytes and gives up on a command after ``command_timeout_s``.

    It connects with the first command. A blocking read needs a client of its own whose
    ``command_timeout_s`` exceeds its block time, because the deadline covers that wait. A failed
    command is not retried: only the caller knows whether that is safe.

    Its commands raise ``REDIS_ERRORS``.
    """
    return Redis.from_url(
        url,
        socket_timeout=command_timeout_s,
        socket_connect_timeout=command_timeout_s,
        max_connections=max_connections,
        retry=None,
        decode_responses=False,
    )


def connect_in_turn(url: str, *, command_timeout_s: float, max_connections: int) -> Redis:
    """A client like ``connect``'s whose callers wait for a connection while all are in use.

    They wait at most ``command_timeout_s``, and then as long again for the answer.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        timeout=command_timeout_s,
        socket_timeout=command_timeout_s,
        socket_connect_timeout=command_timeout_s,
        max_connections=max_connections,
        retry=None,
    )
    return Redis.from_pool(pool)


async def is_full(redis: Redis) -> bool:
    """Whether Redis refuses writes for want of memory. Raises ``REDIS_ERRORS``."""
    try:
        await redis.set(_PROBE, b"", px=1)
    except OutOfMemoryError:
        return True
    return False


async def check_writable(redis: Redis) -> None:
    """Return if Redis accepts writes; raises ``REDIS_ERRORS``, whose message says if it is full."""
    if await is_full(redis):
        raise OutOfMemoryError("Redis is full and refuses writes until it has memory again")


def failure(error: Exception) -> str:
    """What is wrong with Redis, as a clause."""
    if isinstance(error, OutOfMemoryError):
        return "Redis is full"
    if isinstance(error, ResponseError):
        return "Redis refuses the command"
    return "Redis does not answer"

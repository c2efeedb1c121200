"""Redis clients with deadlines, so that a wedged server costs a bounded wait and nothing else."""

from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis

COMMAND_TIMEOUT_S: Final = 1.0


def connect(
    url: str, *, command_timeout_s: float = COMMAND_TIMEOUT_S, max_connections: int = 16
) -> Redis:
    """A client that speaks bytes and gives up on a command after ``command_timeout_s``.

    Nothing is dialled before the first command. A blocking read needs a client of its own whose
    ``command_timeout_s`` exceeds its block time, for the deadline covers the wait too. A failed
    command is not repeated here: whoever calls knows whether repeating is safe.

    Raises ``redis.exceptions.RedisError`` (timeouts and refusals among them) or ``OSError``.
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
    """A client like ``connect``'s, whose callers wait for a connection while all are in use.

    The wait is at most ``command_timeout_s``; whoever wants one deadline over wait and command
    sets it around both. Raises what ``connect``'s client raises.
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

"""Redis clients with deadlines, so that a server that hangs costs a bounded wait.

An address is ``redis://``, ``rediss://`` (TLS) or ``unix://`` for one server,
``redis+sentinel://host:port,host:port/name`` for the master that Sentinels know by that name, or
``redis+cluster://host:port,host:port`` for a cluster. Of a cluster one master is used, the one that
has the stream: every key is placed where the stream is.
"""

import asyncio
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
)
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    MovedError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as ConnectionLost

from shared.contract.events import KEY_PREFIX, STREAM

COMMAND_TIMEOUT_S: Final = 1.0

REDIS_ERRORS: Final = (RedisError, OSError)
"""What a command may raise, timeouts and refused connections included."""

_PROBE: Final = f"{KEY_PREFIX}writable"
_SERVERS: Final = ("redis", "rediss", "unix")
_PORTS: Final = {"": 6379, "cluster": 6379, "sentinel": 26379}
_FIXED: Final = frozenset(
    {
        *("socket_timeout", "socket_connect_timeout", "max_connections", "timeout"),
        *("retry", "retry_on_error", "retry_on_timeout"),
        *("decode_responses", "encoding", "encoding_errors"),
    }
)
"""Options that an address may not have: the clients rely on their own values."""
_SLOT: Final = key_slot(STREAM.encode())

Nodes = Sequence[tuple[str, int]]


class Address(NamedTuple):
    """How to connect to a server, and whom to ask where it is if it has no address of its own.

    ``nodes`` are those of a cluster, or Sentinels if there is a ``master``.
    """

    options: dict[str, Any]
    nodes: Nodes
    master: str


def parse_address(url: str) -> Address:
    """The address in ``url``; raises ``ValueError``, never with a password that it may hold."""
    parts = urlsplit(url)
    server, _, kind = parts.scheme.partition("+")
    if server not in _SERVERS or kind not in _PORTS or (kind and server == "unix"):
        raise ValueError(
            "must start with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
        )
    credentials, at, hosts = parts.netloc.rpartition("@")
    master, path, nodes = "", parts.path, list[tuple[str, int]]()
    if kind == "sentinel":
        master, _, path = path.removeprefix("/").partition("/")
        if not master:
            raise ValueError("must name the master, as in redis+sentinel://host:26379/name")
    try:
        if kind:
            nodes = [_host_and_port(host, _PORTS[kind]) for host in hosts.split(",")]
            first = hosts.partition(",")[0]
            url = urlunsplit((server, f"{credentials}{at}{first}", path, parts.query, ""))
        options: dict[str, Any] = {**parse_url(url)}
        given = {name: value for name, value in options.items() if name != "connection_class"}
        options.get("connection_class", Connection)(**given)  # takes the options it knows alone
        if options.keys() & _FIXED or not (server == "unix" or re.fullmatch("/?[0-9]*/?", path)):
            raise ValueError
    except (ValueError, TypeError, RedisError):
        raise ValueError("is no address of Redis, or has an option that is not known") from None
    return Address(options, nodes, master)


def _host_and_port(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(text)
    return parts.hostname, parts.port or port


def connect(
    url: str, *, command_timeout_s: float = COMMAND_TIMEOUT_S, max_connections: int = 16
) -> Redis:
    """A client that returns bytes and gives up on a command after ``command_timeout_s``.

    It connects with the first command. A blocking read needs a client of its own whose
    ``command_timeout_s`` exceeds its block time, because the deadline covers that wait. A failed
    command is not retried: only the caller knows whether that is safe.

    Its commands raise ``REDIS_ERRORS``.
    """
    pool = {"max_connections": max_connections}
    return _client(url, ConnectionPool, SentinelConnectionPool, pool, command_timeout_s)


def connect_in_turn(url: str, *, command_timeout_s: float, max_connections: int) -> Redis:
    """A client like ``connect``'s whose callers wait for a connection while all are in use.

    They wait at most ``command_timeout_s``, and then as long again for the answer.
    """
    pool = {"max_connections": max_connections, "timeout": command_timeout_s}
    return _client(url, BlockingConnectionPool, _MasterPoolInTurn, pool, command_timeout_s)


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


class _MasterPoolInTurn(SentinelConnectionPool, BlockingConnectionPool):
    pass


def _client(
    url: str,
    server_pool: type[ConnectionPool],
    master_pool: type[SentinelConnectionPool],
    pool: dict[str, Any],
    timeout_s: float,
) -> Redis:
    options, nodes, master = parse_address(url)
    pool |= {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "retry": None}
    if not nodes:
        return Redis.from_pool(server_pool(**options, **pool))
    tls = options.pop("connection_class", Connection) is SSLConnection
    credentials = {name: options[name] for name in ("username", "password") if name in options}
    once = Retry(NoBackoff(), 0)
    ask: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "ssl": tls,
        "retry": once,
    }
    for name in ("host", "port"):
        options.pop(name, None)
    if master:
        finder: Any = Sentinel(nodes, **ask)  # type: ignore[no-untyped-call]  # untyped library
        return Redis.from_pool(master_pool(master, finder, ssl=tls, **options, **pool))
    finder = _Cluster(nodes, ask | credentials)
    of_node = _ClusterSSLConnection if tls else _ClusterConnection
    return Redis.from_pool(master_pool("", finder, connection_class=of_node, **options, **pool))


class _Cluster:
    """Finds the master that has our keys, as a pool of connections asks a ``Sentinel`` to."""

    def __init__(self, nodes: Nodes, options: dict[str, Any]) -> None:
        self._nodes = nodes
        self._options = options

    async def discover_master(self, _: str) -> tuple[str, int]:
        """The master's host and port, from the first node that answers; raises ``RedisError``."""
        last_error: Exception = MasterNotFoundError("No node of the cluster has the stream's slot.")
        for host, port in self._nodes:
            try:
                async with Redis(host=host, port=port, **self._options) as node:
                    slots: Any = await node.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]  # untyped library
            except ResponseError:
                raise
            except REDIS_ERRORS as error:
                last_error = error
                continue
            for first, last, (found_host, found_port, *_), *_replicas in slots:
                if first <= _SLOT <= last:
                    # A node may not know its own address.
                    return found_host.decode() if found_host else host, found_port
        raise last_error


class _ClusterConnection(SentinelManagedConnection):
    """Ends when its node is no longer the master, so that the next one finds the new master."""

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        """The next reply; raises ``ConnectionLost`` if the keys are elsewhere by now."""
        try:
            return await super().read_response(*arguments, **options)
        except MovedError as error:
            await self.disconnect()
            raise ConnectionLost("The keys are on another node of the cluster now.") from error


class _ClusterSSLConnection(_ClusterConnection, SSLConnection):
    pass


def why_unusable(url: str) -> str | None:
    """Why the Redis at ``url`` can never be used, as it is set up; None if it can, or is away.

    For the start of a process: it waits for the answer, about a second at most.
    """
    # The caller may be inside an event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _why_unusable(url)).result()


async def _why_unusable(url: str) -> str | None:
    options, nodes, master = parse_address(url)
    redis = connect(url)
    finder = getattr(redis.connection_pool, "sentinel_manager", None)
    sentinels: list[Redis] = getattr(finder, "sentinels", [])
    try:
        await redis.ping()
        if not nodes and (await redis.info("cluster"))["cluster_enabled"]:
            size = int((await redis.cluster("INFO"))["cluster_size"])
            return f"names one of {size} masters: write redis+cluster://" if size > 1 else None
    except AuthenticationError:
        return "the server refuses the user or the password"
    except MasterNotFoundError:
        known = not master or await _is_known(sentinels, master)
        return None if known else f"no Sentinel knows a master {master}"
    except ResponseError as error:
        return _why_refused(str(error), options)
    except REDIS_ERRORS:
        return None
    finally:
        for client in (redis, *sentinels):
            await client.aclose()
    return None


def _why_refused(answer: str, options: dict[str, Any]) -> str | None:
    if "DB index" in answer or "SELECT is not allowed" in answer:
        return f"the server has no database {options['db']}"
    if "cluster support disabled" in answer:
        return "the server is no cluster: write redis://"
    return None


async def _is_known(sentinels: Sequence[Redis], master: str) -> bool:
    """Whether a Sentinel knows ``master``, even if it is down; true if none can be asked."""
    for sentinel in sentinels:
        with suppress(*REDIS_ERRORS):
            return master in await sentinel.sentinel_masters()
    return True

"""Redis as a cluster, and under a Sentinel: processes of the same server as elsewhere."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from services.local.processes import Process
from services.local.servers import redis_executable
from tests.harness import HOST, free_port
from tests.waiting import until

WATCHED: str = "loan"
"""The name of the master that the Sentinel watches."""

_SLOTS = 16384


@dataclass(frozen=True)
class Node:
    """A server on a port of its own, and a client of it, whose commands have few types."""

    process: Process
    port: int
    client: Any


@contextmanager
def node(folder: Path, **options: object) -> Iterator[Node]:
    """One server; ``options`` are those of its configuration."""
    port = free_port()
    name = f"redis-{port}"
    (folder / name).mkdir()
    given = {"port": port, "bind": HOST, "dir": folder / name, "save": '""', **options}
    file = folder / f"{name}.conf"
    file.write_text("".join(f"{key} {value}\n" for key, value in given.items()))
    role = ["--sentinel"] if "sentinel" in options else []
    with Redis(host=HOST, port=port) as client:
        process = Process(
            name,
            [redis_executable(), file, *role],
            folder=folder,
            ready=lambda _pid: _answers(client),
        )
        process.start()
        try:
            yield Node(process, port, client)
        finally:
            process.stop()


@contextmanager
def cluster(folder: Path, *, size: int) -> Iterator[Sequence[Node]]:
    """A cluster of ``size`` masters, each with its share of the slots."""
    with ExitStack() as stack:
        buses = [free_port() for _ in range(size)]
        nodes = [
            stack.enter_context(node(folder, **{"cluster-enabled": "yes", "cluster-port": bus}))
            for bus in buses
        ]
        for number, each in enumerate(nodes):
            first, end = (_SLOTS * place // size for place in (number, number + 1))
            each.client.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
            nodes[0].client.execute_command("CLUSTER MEET", HOST, each.port, buses[number])
        until(lambda: all(_is_whole(each.client, size) for each in nodes))
        yield nodes


@contextmanager
def watched(folder: Path) -> Iterator[tuple[Node, Node]]:
    """A master with a replica that a Sentinel puts in its place, and the Sentinel."""
    with ExitStack() as stack:
        master = stack.enter_context(node(folder, appendonly="yes"))
        replica = stack.enter_context(node(folder, replicaof=f"{HOST} {master.port}"))
        until(lambda: _is_synchronised(replica.client))
        sentinel = stack.enter_context(
            node(folder, sentinel=f"monitor {WATCHED} {HOST} {master.port} 1")
        )
        for option, value in (("down-after-milliseconds", 500), ("failover-timeout", 2000)):
            sentinel.client.execute_command("SENTINEL SET", WATCHED, option, value)
        until(lambda: sentinel.client.sentinel_master(WATCHED)["num-slaves"] == 1)
        yield master, sentinel


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except AuthenticationError:
        return True
    except RedisError:
        return False


def _is_whole(client: Any, size: int) -> bool:
    info: dict[str, str] = client.execute_command("CLUSTER INFO")
    return (info["cluster_state"], info["cluster_known_nodes"]) == ("ok", str(size))


def _is_synchronised(client: Any) -> bool:
    status: str = client.info("replication")["master_link_status"]
    return status == "up"

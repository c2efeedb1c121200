"""The servers and services of a benchmark, started the way the product starts them."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final, Literal, NamedTuple

from redis import Redis

from services.local import components, servers
from services.local.processes import Process
from services.local.servers import Server
from shared.contract.events import STREAM
from tests import keys
from tests.harness import HOST, free_port

Baseline = Literal["empty", "limit", "tutorial"]
_INFERENCE_APP: Final = "services.inference.main:create_app"


@dataclass(frozen=True)
class Bench:
    """Both servers, running and durable, and how much to measure.

    ``rounds`` of ``seconds`` each, ``rows`` in the large history, ``events`` on the stream.
    """

    folder: Path
    rounds: int
    seconds: float
    rows: int
    events: int
    say: Callable[[str], None]
    postgres: Server
    redis: Server

    @property
    def headers(self) -> dict[str, str]:
        """The headers of each request, the same for every contender."""
        return {"Content-Type": "application/json", "X-API-Key": keys.SECRET}

    def environment(self, *, database: str = "postgres", redis_number: int = 0) -> dict[str, str]:
        """Return a service's environment: a database of the server, and a keyspace of Redis."""
        return components.environment(
            host=HOST,
            database_url=self.database_url(database),
            redis_url=self.redis.url.replace("db=0", f"db={redis_number}"),
            inference_url=f"http://{HOST}:1",
            history_url=f"http://{HOST}:{free_port()}",
            api_key=keys.SECRET,
        )

    def database_url(self, database: str) -> str:
        """Return the address of one database of the server."""
        return self.postgres.url.replace("/postgres?", f"/{database}?")

    def create_database(self, name: str) -> None:
        """Create a database with the newest schema."""
        servers.run_sql(self.postgres.url, f"CREATE DATABASE {name}")
        components.migrate(self.environment(database=name))

    def clear_stream(self) -> None:
        """Delete everything that was published."""
        with Redis.from_url(self.redis.url) as redis:
            redis.unlink(STREAM)


class Serving(NamedTuple):
    """A service that answers at ``url``; all its processes are in one ``session``."""

    url: str
    session: int


@contextmanager
def open_bench(
    folder: Path,
    *,
    rounds: int,
    seconds: float,
    rows: int,
    events: int,
    say: Callable[[str], None],
) -> Iterator[Bench]:
    """Open a bench in ``folder``, which is emptied before and removed after."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o711, parents=True)
    try:
        with (
            closing(servers.postgres(folder / "postgres", logs=folder)) as postgres,
            closing(servers.redis(folder / "redis", logs=folder)) as redis,
        ):
            postgres.process.start()
            redis.process.start()
            yield Bench(
                folder=folder,
                rounds=rounds,
                seconds=seconds,
                rows=rows,
                events=events,
                say=say,
                postgres=postgres,
                redis=redis,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def inference(bench: Bench, *, app: str = _INFERENCE_APP) -> Iterator[Serving]:
    """The inference service, ready; what it published is forgotten after.

    ``app`` makes another of it, served by the very command that serves the product.
    """
    port = free_port()
    command = _served_instead(inference_process(bench, port=port).command, app)
    with _serving(command, bench.folder, bench.environment(), port=port) as serving:
        yield serving
    bench.clear_stream()


def inference_process(bench: Bench, *, port: int) -> Process:
    """Return the inference service as ``make run`` starts it, not yet started."""
    return components.inference(bench.environment(), host=HOST, port=port, logs=bench.folder)


@contextmanager
def history(bench: Bench, *, database: str, redis_number: int = 0) -> Iterator[Serving]:
    """Serve the history of one database."""
    port = free_port()
    env = bench.environment(database=database, redis_number=redis_number)
    shipped = components.history(env, host=HOST, port=port, logs=bench.folder)
    with _serving(shipped.command, bench.folder, env, port=port) as serving:
        yield serving


@contextmanager
def baseline(name: Baseline, folder: Path) -> Iterator[Serving]:
    """Serve a baseline with the command that serves the product."""
    port = free_port()
    shipped = components.inference({}, host=HOST, port=port, logs=folder)
    command = _served_instead(shipped.command, f"tests.load.baselines:create_{name}_app")
    with _serving(command, folder, os.environ, port=port) as serving:
        yield serving


@contextmanager
def consumers(bench: Bench, *, database: str, count: int) -> Iterator[None]:
    """Spawn ``count`` consumers of the stream, each with a folder for its own log."""
    with ExitStack() as stack:
        for number in range(count):
            env = bench.environment(database=database) | {"CONSUMER_NAME": f"bench-{number}"}
            process = components.consumer(env, logs=bench.folder / f"consumer-{number}")
            process.spawn()
            stack.callback(process.stop)
        yield


def _served_instead(command: list[str], app: str) -> list[str]:
    return [app if part == _INFERENCE_APP else part for part in command]


@contextmanager
def _serving(
    command: list[str], folder: Path, env: Mapping[str, str], *, port: int
) -> Iterator[Serving]:
    """Serve, and wait until the service answers."""
    process = Process(
        f"serving-{port}", command, folder=folder, env=env, ready=lambda _pid: _answers(port)
    )
    try:
        process.start()
        yield Serving(f"http://{HOST}:{port}", process.pid)
    finally:
        process.stop()


def _answers(port: int) -> bool:
    """Whether it reports ready; a baseline has no such route and answers 404 once it is up."""
    connection = HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status in (200, 404)
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()

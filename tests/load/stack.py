"""The servers and services of a benchmark, started the way the product starts them."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from redis import Redis

from services.local import components, servers
from services.local.processes import Process
from services.local.servers import Server
from shared.contract.events import STREAM
from tests import keys
from tests.harness import HOST, free_port

Baseline = Literal["empty", "limit", "tutorial", "insert", "background"]
_INFERENCE_APP: Final = "services.inference.main:create_app"
_STOP_ALL_S: Final = 60.0


@dataclass(frozen=True)
class Bench:
    """Both servers, running and durable, and how much to measure.

    ``rounds`` of ``seconds`` each, ``minutes`` of observing memory, ``rows`` in the large history,
    ``events`` on the stream.
    """

    folder: Path
    postgres: Server
    redis: Server
    rounds: int = 1
    seconds: float = 1.0
    minutes: float = 0.0
    rows: int = 0
    events: int = 0
    say: Callable[[str], None] = print

    @property
    def headers(self) -> dict[str, str]:
        """The headers of each request, the same for every contender."""
        return {"Content-Type": "application/json", "X-API-Key": keys.SECRET}

    def environment(self, *, database: str = "postgres", redis_number: int = 0) -> dict[str, str]:
        """Return a service's environment: a database of the server, and a keyspace of Redis."""
        return components.environment(
            host=HOST,
            database_url=self.database_url(database),
            redis_url=self.redis_url(redis_number),
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

    def clear_stream(self, *, redis_number: int = 0) -> None:
        """Delete everything that was published."""
        with Redis.from_url(self.redis_url(redis_number)) as redis:
            redis.unlink(STREAM)

    def redis_url(self, number: int) -> str:
        """Return the address of one keyspace of Redis."""
        return self.redis.url.replace("db=0", f"db={number}")


class Serving(NamedTuple):
    """A service that answers at ``url``, and its process."""

    url: str
    pid: int


class Batches(NamedTuple):
    """The batch service, at ``url``, and each process that a batch takes by its name."""

    url: str
    pids: Mapping[str, int]


class WholeSystem(NamedTuple):
    """What ``make run`` starts: the services' addresses, and each process by its name."""

    inference_url: str
    history_url: str
    database_url: str
    pids: Mapping[str, int]


@contextmanager
def open_bench(folder: Path, **how_much: Any) -> Iterator[Bench]:
    """Open a bench in ``folder``, which is emptied before and removed after.

    ``how_much`` are the further members of ``Bench``.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o711, parents=True)
    try:
        with (
            closing(servers.postgres(folder / "postgres", logs=folder)) as postgres,
            closing(servers.redis(folder / "redis", logs=folder)) as redis,
        ):
            postgres.process.start()
            redis.process.start()
            yield Bench(folder=folder, postgres=postgres, redis=redis, **how_much)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def whole_system(bench: Bench, *, database: str) -> Iterator[WholeSystem]:
    """Everything that ``make run`` runs, started by its own command, on the bench's servers.

    ``database`` is created; what was published is forgotten after.
    """
    data = bench.folder / "run"
    data.mkdir()
    (data / "api-key").write_text(keys.SECRET)
    servers.run_sql(bench.postgres.url, f"CREATE DATABASE {database}")
    inference, history, dashboard, metrics = (free_port() for _ in range(4))
    env = os.environ | {
        "LOCAL_DATA": str(data),
        "DATABASE_URL": bench.database_url(database),
        "REDIS_URL": bench.redis.url,
        "INFERENCE_PORT": str(inference),
        "HISTORY_PORT": str(history),
        "DASHBOARD_PORT": str(dashboard),
        "METRICS_PORT": str(metrics),
        "BATCH_PORT": str(free_port()),
        "BATCH_METRICS_PORT": str(free_port()),
    }
    run = Process(
        "run",
        [sys.executable, "-m", "services.local"],
        folder=data,
        env=env,
        ready=lambda _pid: "Running after" in run.log.read_text(),
    )
    try:
        run.start(_STOP_ALL_S)
        yield WholeSystem(
            inference_url=f"http://{HOST}:{inference}",
            history_url=f"http://{HOST}:{history}",
            database_url=bench.database_url(database),
            pids={
                "postgres": bench.postgres.process.pid,
                "redis": bench.redis.process.pid,
                **{
                    file.stem: int(file.read_text())
                    for file in sorted((data / "logs").glob("*.pid"))
                },
            },
        )
    finally:
        run.stop(_STOP_ALL_S)
    bench.clear_stream()
    shutil.rmtree(data)


@contextmanager
def inference(
    bench: Bench, *, app: str = _INFERENCE_APP, redis_number: int = 0
) -> Iterator[Serving]:
    """The inference service, ready; what it published is forgotten after.

    ``app`` makes another of it, served by the very command that serves the product.
    """
    port = free_port()
    env = bench.environment(redis_number=redis_number)
    command = _served_instead(inference_process(bench, port=port).command, app)
    with _serving(command, bench.folder, env, port=port) as serving:
        yield serving
    bench.clear_stream(redis_number=redis_number)


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
def baseline(
    name: Baseline, folder: Path, *, plain: bool = False, env: Mapping[str, str] = os.environ
) -> Iterator[Serving]:
    """Serve a baseline with the command that serves the product, or ``plain``: with uvicorn's."""
    port = free_port()
    app = f"tests.load.baselines:create_{name}_app"
    if plain:
        command = [
            *(sys.executable, "-m", "uvicorn", "--factory", app, "--host", HOST),
            *("--port", str(port), "--no-access-log", "--log-level", "warning"),
        ]
    else:
        shipped = components.inference({}, host=HOST, port=port, logs=folder)
        command = _served_instead(shipped.command, app)
    with _serving(command, folder, env, port=port) as serving:
        yield serving


@contextmanager
def consumers(bench: Bench, *, database: str, count: int) -> Iterator[list[int]]:
    """Spawn ``count`` consumers of the stream, each with a folder for its own log; their ids."""
    pids = []
    with ExitStack() as stack:
        for number in range(count):
            env = bench.environment(database=database) | {"CONSUMER_NAME": f"bench-{number}"}
            process = components.consumer(
                env, host=HOST, metrics_port=free_port(), logs=bench.folder / f"consumer-{number}"
            )
            process.spawn()
            stack.callback(process.stop)
            pids.append(process.pid)
        yield pids


@contextmanager
def batches(bench: Bench, *, database: str) -> Iterator[Batches]:
    """The batch service, one worker and one consumer; what was published is forgotten after."""
    port, env = free_port(), bench.environment(database=database)
    shipped = components.batch(env, host=HOST, port=port, logs=bench.folder)
    worker = components.batch_worker(
        env, host=HOST, metrics_port=free_port(), logs=bench.folder / "batch-worker"
    )
    with (
        consumers(bench, database=database, count=1) as (consumer,),
        _serving(shipped.command, bench.folder, env, port=port) as serving,
    ):
        try:
            worker.start()
            yield Batches(
                serving.url,
                {
                    "worker": worker.pid,
                    "batch": serving.pid,
                    "consumer": consumer,
                    "postgres": bench.postgres.process.pid,
                    "redis": bench.redis.process.pid,
                },
            )
        finally:
            worker.stop()
    bench.clear_stream()


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

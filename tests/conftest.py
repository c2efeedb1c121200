"""Real servers for every test that needs one, and the applications to send."""

import csv
import gc
import logging
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from httpx._transports import default as httpx_transports
from redis import Redis
from redis import utils as redis_utils

from services.local import components, servers
from services.local.processes import run_to_end
from services.local.servers import Server
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.registry import Bundle, load_bundle
from shared import USUAL_THRESHOLDS
from tests import preloaded
from tests.applications import random_application
from tests.harness import (
    System,
    empty,
    measure_on_request,
    measuring,
    running_system,
    to_be_made,
)

_REAL_APPLICATIONS = "loans_unlabelled.csv"
_GENERATED = 367
_number = count(1)
_MIGRATED = "migrated"
"""The database that each test's own is copied from."""

_SERVERS = {"postgres_server", "redis_server", "own_postgres", "own_redis"}
_TRAINING = {"held_out", "out_of_fold", "trained"}
_SYSTEMS = {"system", "shared_system", "standing", "stage", "started"} | _TRAINING
_LONGEST_FIRST = ("system", "server", "unit")
_MEASURES_IMPORTS = "gw0"
_running = SimpleNamespace(tier="")
_fixtures_made = set[tuple[Path, str, int]]()

# Hundreds of processes import the same modules: only the first has to compile them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# The variables of `make test` are not those of a make that a test calls.
os.environ.pop("MAKEFLAGS", None)
# Before workers are started, which measure themselves.
measure_on_request()
# Each client reads the authorities' certificates anew, which takes longer than most requests; what
# they have in common is read once.
vars(httpx_transports)["create_ssl_context"] = cache(httpx.create_ssl_context)
# Each connection to Redis reads and parses the description of the package anew, for its version.
vars(redis_utils)["get_lib_version"] = cache(redis_utils.get_lib_version)
# A process of the product spends nearly all of its start on imports.
preloaded.install()
# What is imported stays: nothing is garbage before the tests are collected.
gc.disable()


@pytest.hookimpl(tryfirst=True)  # before pytest-cov's
def pytest_sessionstart(session: pytest.Session) -> None:
    """End the first of two measurements that pytest-cov begins in a worker.

    To pause the second, as ``no_cover`` does, would resume the first, at the same price.
    """
    coverage = _coverage_of(session.config)
    if coverage and "PYTEST_XDIST_WORKER" in os.environ:
        coverage.pause()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Leave it to one worker to measure what is imported: all of them import the same."""
    coverage = _coverage_of(session.config)
    if coverage and not _measures_imports():
        coverage.pause()


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their tier
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its tier: the one that it is marked with, else what its fixtures start.

    Files with the longest tests are first, and of unit tests, which are all short, files with the
    most: a worker that began one last would end long after the others.
    """
    place: dict[Path, int] = {}
    count = Counter(item.path for item in items)
    for item in items:
        tier = _tier(item)
        item.add_marker(tier)
        place[item.path] = min(
            _LONGEST_FIRST.index(tier), place.get(item.path, len(_LONGEST_FIRST))
        )

    def order(item: pytest.Item) -> tuple[int, int]:
        tier = place[item.path]
        return tier, -count[item.path] if _LONGEST_FIRST[tier] == "unit" else 0

    items.sort(key=order)


def _tier(item: pytest.Item) -> str:
    fixtures = set(getattr(item, "fixturenames", ()))
    if item.get_closest_marker("system") or fixtures & _SYSTEMS:
        return "system"
    return "server" if fixtures & _SERVERS else "unit"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave what is imported by now out of each garbage collection: it stays until the end.

    A worker's coverage has begun by now.
    """
    gc.freeze()
    gc.set_threshold(*USUAL_THRESHOLDS)
    gc.enable()
    coverage = _coverage_of(session.config)
    if coverage and not _measures_imports():
        coverage.resume()
    measure_on_request()


def _measures_imports() -> bool:
    return os.environ.get("PYTEST_XDIST_WORKER", _MEASURES_IMPORTS) == _MEASURES_IMPORTS


def _coverage_of(config: pytest.Config) -> Any:
    """What measures the coverage of this process; None if nothing does."""
    return getattr(config.pluginmanager.get_plugin("_cov"), "cov_controller", None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Iterator[None]:
    """Measure what a fixture runs once in each file: for each further test it runs the same.

    What trains as tests of the command line do is not measured at all.
    """
    coverage = _coverage_of(request.config)
    made = request.path, fixturedef.argname, getattr(request, "param_index", 0)
    repeats = made in _fixtures_made or fixturedef.argname in _TRAINING
    pausing = coverage and coverage.started and repeats
    _fixtures_made.add(made)
    if pausing:
        coverage.pause()
    try:
        return (yield)
    finally:
        if pausing:
            coverage.resume()


def pytest_xdist_auto_num_workers() -> int:
    """Three more than there are processors: many tests wait for a process to start or to end."""
    return (os.cpu_count() or 1) + 3


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Hold a unit test to its tier; coverage that was paused has begun again."""
    measure_on_request()
    _running.tier = "unit" if item.get_closest_marker("unit") else ""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """What other tests share may end after a unit test."""
    _running.tier = ""


def _no_process_in_a_unit_test(event: str, arguments: tuple[object, ...]) -> None:
    if event == "subprocess.Popen" and _running.tier == "unit":
        raise AssertionError(f"a unit test starts a process: mark it as system: {arguments[1]}")


sys.addaudithook(_no_process_in_a_unit_test)


def pytest_report_header() -> str:
    """Say which applications the tests run on."""
    path = _real_applications()
    return f"loan applications: {'generated; LOAN_DATA_DIR has none' if path is None else path}"


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """This process's logging, put back after each test: an app takes it over when it is made."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The bundle that the product ships."""
    return load_bundle(BUNDLE_ROOT, None)


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of the test run have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder for servers, which their unprivileged user can pass through."""
    folder = Path(mkdtemp(prefix="loan-tests-"))
    folder.chmod(0o711)
    yield folder
    rmtree(folder)


@pytest.fixture(scope="session")
def migrated_cluster(server_folder: Path, common_folder: Path) -> Path:
    """The data of a stopped PostgreSQL, to copy; its own database and a template are migrated."""
    made = common_folder / "postgres"
    with to_be_made(made) as missing:
        if missing:
            data = server_folder / "cluster" / made.name
            with closing(servers.postgres(data, logs=data.parent, durable=False)) as server:
                server.process.start()
                components.migrate(os.environ | measuring() | {"DATABASE_URL": server.url})
                servers.run_sql(
                    _url_of(server, "template1"), f"CREATE DATABASE {_MIGRATED} TEMPLATE postgres"
                )
            _copy(data, common_folder)
    return made


@pytest.fixture(scope="session")
def postgres_server(migrated_cluster: Path, server_folder: Path) -> Iterator[Server]:
    """One PostgreSQL for the whole run; tests take ``database_url`` or ``own_postgres``."""
    with closing(_postgres(migrated_cluster, server_folder)) as server:
        server.process.start()
        yield server


@pytest.fixture(scope="session")
def redis_server(server_folder: Path) -> Iterator[Server]:
    """One Redis for the whole run; tests take ``redis_url`` or ``own_redis``."""
    with closing(servers.redis(server_folder / "redis", logs=server_folder)) as server:
        server.process.start()
        yield server


@pytest.fixture
def server_data(server_folder: Path) -> Path:
    """A folder of the test's own, in which its user can run a PostgreSQL."""
    folder = server_folder / str(next(_number))
    folder.mkdir(mode=0o711)
    return folder


@pytest.fixture
def own_postgres(migrated_cluster: Path, server_data: Path) -> Iterator[Server]:
    """A PostgreSQL of the test's own, to kill, freeze and start again; migrated."""
    with closing(_postgres(migrated_cluster, server_data)) as server:
        server.process.start()
        yield server
        server.process.resume()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Server]:
    """A Redis of the test's own, to kill, freeze and start again."""
    with closing(servers.redis(tmp_path / "redis", logs=tmp_path)) as server:
        server.process.start()
        yield server
        server.process.resume()


@pytest.fixture
def empty_database_url(postgres_server: Server) -> Iterator[str]:
    """A new database without any table."""
    yield from _new_database(postgres_server, template="template1")


@pytest.fixture
def database_url(postgres_server: Server) -> Iterator[str]:
    """A new database at the newest schema, without any row."""
    yield from _new_database(postgres_server, template=_MIGRATED)


@pytest.fixture
def redis_url(redis_server: Server) -> str:
    """An empty Redis."""
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def shared_system(
    postgres_server: Server, server_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """One system for the whole run, on a database and a Redis of its own; tests take ``system``."""
    redis = servers.redis(server_folder / "system", logs=server_folder / "system")
    with closing(redis), contextmanager(_new_database)(postgres_server, template=_MIGRATED) as url:
        redis.process.start()
        with running_system(
            database_url=url,
            redis_url=redis.url,
            logs=tmp_path_factory.mktemp("logs"),
        ) as running:
            yield running


@pytest.fixture
def system(shared_system: System) -> Iterator[System]:
    """The shipped services and the consumer as processes, ready, with an empty history.

    A test that stops one of them starts it again. A failing test shows the logs' ends.
    """
    empty(shared_system)
    yield shared_system
    for process in shared_system.processes:
        print(process.log_tail())
        assert process.running


@pytest.fixture(scope="session")
def loan_applications() -> list[dict[str, object]]:
    """367 applications as bodies of requests: real ones where there are, else generated."""
    path = _real_applications()
    if path is None:
        rng = random.Random(_GENERATED)  # noqa: S311 - test data, not a secret
        return [
            random_application(rng) | {"Loan_ID": f"LP{number:06d}"} for number in range(_GENERATED)
        ]
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: value or None for name, value in row.items()} for row in csv.DictReader(file)
        ]


def _real_applications() -> Path | None:
    folder = os.environ.get("LOAN_DATA_DIR")
    path = Path(folder or ".") / _REAL_APPLICATIONS
    return path if folder and path.is_file() else None


def _new_database(server: Server, *, template: str) -> Iterator[str]:
    name = f"test_{next(_number)}"
    servers.run_sql(server.url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _url_of(server, name)
    servers.run_sql(server.url, f"DROP DATABASE {name} WITH (FORCE)")


def _url_of(server: Server, database: str) -> str:
    return server.url.replace("/postgres?", f"/{database}?")


def _postgres(cluster: Path, folder: Path) -> Server:
    """A PostgreSQL in ``folder`` whose data is a copy of ``cluster``; not started."""
    _copy(cluster, folder)
    return servers.postgres(folder / cluster.name, logs=folder, durable=False)


def _copy(data: Path, folder: Path) -> None:
    run_to_end(["cp", "-a", data, folder], env=os.environ)

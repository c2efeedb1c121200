"""The shipped processes, started for a test and stopped after it."""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
from redis import Redis

from services.local import components, servers
from services.local.processes import Process
from shared.contract.events import STREAM
from tests import keys
from tests.waiting import until

HOST = "127.0.0.1"

_MEASURED = "COVERAGE_PROCESS_CONFIG"
"""What makes a process measure its coverage."""
_coverage: dict[str, str] = {}
_PORTS = 100
_first_port = 10_000 + os.getpid() % 200 * _PORTS
# A range of this process's own, below those that the system gives to clients: what is free now is
# still free when the service that is told of it starts, however many run tests beside this one.
_ports = cycle(range(_first_port, _first_port + _PORTS))


@dataclass(frozen=True)
class System:
    """Both services and the consumer, on ports of their own, and a key without any limit.

    ``environment`` is what they were told.
    """

    api_key: str
    environment: Mapping[str, str]
    inference: Process
    inference_url: str
    history: Process
    history_url: str
    consumer: Process
    consumer_url: str
    """Where its metrics are."""

    @property
    def processes(self) -> tuple[Process, ...]:
        """All of them, in the order of their start."""
        return (self.history, self.consumer, self.inference)


@contextmanager
def running_system(
    *,
    database_url: str,
    redis_url: str,
    logs: Path,
    settings: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[System]:
    """The whole system, ready, on the servers given; a failing test shows the logs' ends.

    ``settings`` are variables that differ from what is shipped; ``say`` receives the logs' ends.
    """
    history_port, inference_port, metrics_port = free_port(), free_port(), free_port()
    history_url = f"http://{HOST}:{history_port}"
    inference_url = f"http://{HOST}:{inference_port}"
    env = components.environment(
        host=HOST,
        database_url=database_url,
        redis_url=redis_url,
        inference_url=inference_url,
        history_url=history_url,
        api_key=keys.SECRET,
    ) | dict(settings or {})
    system = System(
        api_key=keys.SECRET,
        environment=env,
        inference=components.inference(env, host=HOST, port=inference_port, logs=logs),
        inference_url=inference_url,
        history=components.history(env, host=HOST, port=history_port, logs=logs),
        history_url=history_url,
        consumer=components.consumer(env, host=HOST, metrics_port=metrics_port, logs=logs),
        consumer_url=f"http://{HOST}:{metrics_port}",
    )
    try:
        for process in system.processes:
            process.spawn()
        for process in system.processes:
            process.wait_ready()
        yield system
    finally:
        for process in reversed(system.processes):
            process.stop()
            say(process.log_tail())


def measure_on_request() -> None:
    """Let the processes that this one starts measure their coverage only with ``measuring()``.

    Most run code that other tests measure, and measuring doubles what a start costs.
    """
    if _MEASURED in os.environ:
        _coverage[_MEASURED] = os.environ.pop(_MEASURED)


def measuring() -> dict[str, str]:
    """The variables that let a process measure its coverage, if this test run does."""
    return dict(_coverage)


def measured_alone(module: str) -> list[str]:
    """The command that runs ``module`` and measures its coverage, not that of what it starts."""
    alone = f"import os, runpy; os.environ.pop({_MEASURED!r}, None); "
    run = f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", alone + run]


def empty(system: System) -> None:
    """Delete decisions, roll-outs and all that Redis remembers, once its stream is read."""
    with Redis.from_url(system.environment["REDIS_URL"]) as redis:
        until(lambda: _is_drained(redis))
        servers.run_sql(
            system.environment["DATABASE_URL"],
            # Of roll-outs no row can be removed as long as triggers fire.
            "SET session_replication_role = replica;"
            "TRUNCATE predictions, prediction_rollup, applicant_rollup, daily_rollup,"
            " current_outcomes, outcome_bins, outcome_groups, outcome_vintages,"
            " rollouts, rollout_states, shadow_queue, shadow_decisions, shadow_rollup",
        )
        others = set(redis.scan_iter()) - {STREAM.encode()}
        if others:
            redis.delete(*others)
    until(lambda: _serves_its_default(system.inference_url))


def _serves_its_default(url: str) -> bool:
    detail = httpx.get(f"{url}/readyz").json()["checks"]["rollout"]["detail"]
    return isinstance(detail, dict) and detail["epoch"] == 0


def _is_drained(redis: Redis) -> bool:
    groups = redis.xinfo_groups(STREAM) if redis.exists(STREAM) else []
    return bool(groups) and all(group["lag"] == group["pending"] == 0 for group in groups)


@contextmanager
def running_batches(system: System, *, logs: Path, **settings: str) -> Iterator[tuple[str, str]]:
    """The addresses of the batch service of ``system`` and of its worker's metrics, both ready."""
    port, metrics_port = free_port(), free_port()
    env = {**system.environment, **settings}
    api = components.batch(env, host=HOST, port=port, logs=logs)
    worker = components.batch_worker(env, host=HOST, metrics_port=metrics_port, logs=logs)
    try:
        for process in (api, worker):
            process.spawn()
        for process in (api, worker):
            process.wait_ready()
        yield f"http://{HOST}:{port}", f"http://{HOST}:{metrics_port}"
    finally:
        for process in (worker, api):
            process.stop()
            print(process.log_tail())


@contextmanager
def running_dashboard(system: System, *, logs: Path, **settings: str) -> Iterator[str]:
    """The address of the dashboard of ``system``, ready; a failing test shows the log's end."""
    port = free_port()
    env = os.environ | {
        "INFERENCE_URL": system.inference_url,
        "HISTORY_URL": system.history_url,
        "DASHBOARD_API_KEY": system.api_key,
        **settings,
    }
    process = components.dashboard(env, host=HOST, port=port, logs=logs)
    try:
        process.start()
        yield f"http://{HOST}:{port}"
    finally:
        process.stop()
        print(process.log_tail())


@contextmanager
def to_be_made(path: Path) -> Iterator[bool]:
    """Whether ``path``, which all processes of the test run use, is missing; one makes it."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield not path.exists()


def events_in(process: Process) -> list[dict[str, Any]]:
    """What a service has logged so far."""
    whole_lines, _, _ = process.log.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole_lines.splitlines()]


def free_port() -> int:
    """A port that nothing listens on, and that no other process of the tests is given meanwhile."""
    for port in islice(_ports, _PORTS):
        with suppress(OSError), socket.create_server((HOST, port)):
            return port
    raise OSError(f"none of the ports {_first_port} to {_first_port + _PORTS} is free")

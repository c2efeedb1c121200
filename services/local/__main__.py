"""``python -m services.local``: the whole system on this machine, until Ctrl-C.

Embedded servers keep their data in ``.local``; ``DATABASE_URL`` and ``REDIS_URL`` replace them.
"""

import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from services.local import components, preflight, servers
from services.local.config import check_settings
from services.local.processes import CannotStart, Process
from services.local.servers import Server
from services.local.settings import LocalSettings
from services.local.supervisor import Supervisor
from shared.contract.application import EXAMPLE
from shared.settings import UnusableSettings

_JSON: Final = "-H 'Content-Type: application/json'"
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run until a signal; the exit code is 0, or 1 with the reason why it cannot run."""
    try:
        for number in _STOP_SIGNALS:
            signal.signal(number, signal.default_int_handler)
        settings = check_settings()
        folder = settings.local_data.resolve()
        with preflight.only_run_in(folder):
            for name in preflight.clear_leftovers(folder / "logs"):
                _report(f"stopped {name}, which a former run had left behind")
            preflight.check_ports(settings)
            _run(settings, folder)
    except (UnusableSettings, CannotStart) as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        return 0
    return 1


def _run(settings: LocalSettings, folder: Path) -> None:
    began = time.monotonic()
    logs = folder / "logs"
    host = settings.local_host
    inference_url = components.service_url(host, settings.inference_port)
    history_url = components.service_url(host, settings.history_port)
    dashboard_url = components.service_url(host, settings.dashboard_port)
    batch_url = components.service_url(host, settings.batch_port)
    consumer_url = components.service_url(host, settings.metrics_port)
    with ExitStack() as stack:
        _report("Starting (Ctrl-C stops it)")
        database_url, database = _server(
            settings.database_url, lambda: servers.postgres(folder / "postgres", logs=logs), stack
        )
        redis_url, redis = _server(
            settings.redis_url, lambda: servers.redis(folder / "redis", logs=logs), stack
        )
        api_key = preflight.local_key(settings.key_file)
        env = components.environment(
            host=host,
            database_url=database_url,
            redis_url=redis_url,
            inference_url=inference_url,
            history_url=history_url,
            batch_url=batch_url,
            api_key=api_key,
            bundle_store=str(settings.bundle_store),
        )
        history = components.history(env, host=host, port=settings.history_port, logs=logs)
        consumer = components.consumer(
            env, host=host, metrics_port=settings.metrics_port, logs=logs
        )
        inference = components.inference(env, host=host, port=settings.inference_port, logs=logs)
        batch = components.batch(env, host=host, port=settings.batch_port, logs=logs)
        worker = components.batch_worker(
            env, host=host, metrics_port=settings.batch_metrics_port, logs=logs
        )
        dashboard = components.dashboard(env, host=host, port=settings.dashboard_port, logs=logs)
        embedded = (*database, *redis)
        services = (history, consumer, inference, batch, worker)
        supervisor = Supervisor((*embedded, *services, dashboard), _report)
        # Pushed last, so that it runs first: all stop in order before a socket is removed.
        stack.callback(_stop, supervisor)

        supervisor.start(*embedded)
        # All load their code during the migration; history is ready only after it.
        for service in (inference, history, batch, dashboard):
            service.spawn()
        components.migrate(env)
        supervisor.start(*services)
        has_dashboard = supervisor.start_optional(dashboard)
        _report(f"Running after {time.monotonic() - began:.1f} s.\n")
        if has_dashboard:
            _report(f"Dashboard  {dashboard_url}")
        _report(
            directions(
                inference_url,
                history_url,
                batch_url,
                consumer_url,
                api_key=api_key,
                folder=folder,
            )
        )
        supervisor.watch()


def _server(
    given_url: str | None, embedded: Callable[[], Server], stack: ExitStack
) -> tuple[str, list[Process]]:
    """The address to use, and the process to start for it: none if the address is given."""
    if given_url is not None:
        return given_url, []
    server = embedded()
    stack.callback(server.close)
    return server.url, [server.process]


def directions(
    inference_url: str,
    history_url: str,
    batch_url: str,
    consumer_url: str,
    *,
    api_key: str,
    folder: Path,
) -> str:
    """Return what ``make run`` prints once everything runs; README shows its commands."""
    return f"""\
Inference  {inference_url}/docs
History    {history_url}/docs
Batches    {batch_url}/docs
Metrics    {consumer_url}/metrics of the consumer; /metrics of each of the others
API key    {api_key}

Ask for a decision:
  curl -s {inference_url}/predict -H "X-API-Key: {api_key}" {_JSON} -d '{json.dumps(EXAMPLE)}'
See it recorded, and counted:
  curl -s {history_url}/history -H "X-API-Key: {api_key}"
  curl -s {history_url}/statistics -H "X-API-Key: {api_key}"

Data, logs and the key are in {folder}. Ctrl-C stops everything and keeps them.
"""


def _stop(supervisor: Supervisor) -> None:
    # A second Ctrl-C must not leave half of it running; stopping a process has a time limit.
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _report("\nStopping")
    supervisor.stop()
    _report("Stopped; the data stays.")


def _report(line: str) -> None:
    # A closed terminal must not keep the processes from being stopped in order.
    with suppress(OSError):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

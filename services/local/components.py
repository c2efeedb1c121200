"""The components of the product: how each process is started and when it is ready."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from services.local.processes import Process, run_to_end
from shared.access.api_keys import DASHBOARD_SCOPES, KEY_SCOPES, key_entry, mint_key

_PROBE_TIMEOUT_S: Final = 1.0
_FINISH_REQUESTS_S: Final = 5
"""Longer than clients keep an idle connection, so that none sends into one that is closing."""
_UPLOAD_S: Final = 300
"""How long a file may take to come."""
_EVERY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - compared with, not bound


def environment(
    *,
    host: str,
    database_url: str,
    redis_url: str,
    inference_url: str,
    history_url: str,
    api_key: str,
    batch_url: str = "http://127.0.0.1:8004",
    bundle_store: str = "",
) -> dict[str, str]:
    """The environment of every process: that of this one, addresses and keys.

    ``api_key`` has every scope and no limit. The services get a key for each other, and the
    dashboard one for what people do there, roll-outs included; both are new each time.
    Callers without a key may ask for decisions if ``host`` is a loopback address, unless
    ``ALLOW_ANONYMOUS`` says otherwise. Bundles are published in ``bundle_store`` unless
    ``BUNDLE_STORE`` says otherwise.
    """
    internal_key, internal_entry = mint_key("services", ["internal"])
    dashboard_key, dashboard_entry = mint_key("dashboard", [*DASHBOARD_SCOPES, "admin"])
    entries = [
        os.environ.get("API_KEYS", ""),
        key_entry(api_key, "local", KEY_SCOPES),
        internal_entry,
        dashboard_entry,
    ]
    return (
        {"ALLOW_ANONYMOUS": str(is_loopback(host)), "BUNDLE_STORE": bundle_store}
        | os.environ
        | {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "INFERENCE_URL": inference_url,
            "HISTORY_URL": history_url,
            "BATCH_URL": batch_url,
            "INTERNAL_API_KEY": internal_key,
            "DASHBOARD_API_KEY": dashboard_key,
            "API_KEYS": " ".join(entries),
            "SHUTDOWN_GRACE_S": str(_FINISH_REQUESTS_S),
        }
    )


def migrate(environment: Mapping[str, str]) -> None:
    """Bring the database's schema up to date; raises ``CannotStart`` with the reason."""
    run_to_end([sys.executable, "-m", "services.history.migrate"], env=environment)


def history(environment: Mapping[str, str], *, host: str, port: int, logs: Path) -> Process:
    """The history service's API."""
    return _api("history", environment, host=host, port=port, logs=logs)


def inference(environment: Mapping[str, str], *, host: str, port: int, logs: Path) -> Process:
    """The inference service."""
    return _api("inference", environment, host=host, port=port, logs=logs)


def dashboard(environment: Mapping[str, str], *, host: str, port: int, logs: Path) -> Process:
    """The dashboard."""
    return _api("dashboard", environment, host=host, port=port, logs=logs)


def batch(environment: Mapping[str, str], *, host: str, port: int, logs: Path) -> Process:
    """The batch service's API, to which a file may take minutes to come."""
    slow = {"REQUEST_TIMEOUT_S": str(_UPLOAD_S)}
    return _api("batch", {**slow, **environment}, host=host, port=port, logs=logs)


def consumer(
    environment: Mapping[str, str], *, host: str, metrics_port: int, logs: Path
) -> Process:
    """The stream consumer, with its metrics at ``metrics_port``; ready once it exposes them."""
    return _background(
        "consumer",
        "services.history.consumer",
        environment,
        host=host,
        metrics_port=metrics_port,
        logs=logs,
    )


def batch_worker(
    environment: Mapping[str, str], *, host: str, metrics_port: int, logs: Path
) -> Process:
    """The worker of batches, with its metrics at ``metrics_port``; ready once it exposes them."""
    return _background(
        "batch-worker",
        "services.batch.worker",
        environment,
        host=host,
        metrics_port=metrics_port,
        logs=logs,
    )


def _background(
    name: str,
    module: str,
    environment: Mapping[str, str],
    *,
    host: str,
    metrics_port: int,
    logs: Path,
) -> Process:
    listens = {"METRICS_HOST": host, "METRICS_PORT": str(metrics_port)}
    return Process(
        name,
        [sys.executable, "-m", module],
        folder=logs,
        env={**environment, **listens},
        ready=lambda _pid: _answers(reachable_host(host), metrics_port, "/metrics"),
    )


def reachable_host(host: str) -> str:
    """The address at which this machine reaches what listens on ``host``."""
    return "127.0.0.1" if host == _EVERY_ADDRESS else host


def service_url(host: str, port: int) -> str:
    """The address of a service that listens on ``host``, for this machine."""
    return f"http://{reachable_host(host)}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _api(name: str, environment: Mapping[str, str], *, host: str, port: int, logs: Path) -> Process:
    command = [
        *(sys.executable, "-m", "shared.web.server", f"services.{name}.main:create_app"),
        *("--host", host, "--port", str(port)),
    ]
    return Process(
        name,
        command,
        folder=logs,
        env=environment,
        ready=lambda _pid: _answers(reachable_host(host), port, "/readyz"),
    )


def _answers(host: str, port: int, path: str) -> bool:
    connection = HTTPConnection(host, port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()

"""Checks before anything is started; each failure is one sentence."""

import fcntl
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from services.local.components import reachable_host
from services.local.processes import CannotStart, stop_leftover
from services.local.servers import POSTGRES_STOP
from services.local.settings import LocalSettings
from shared.access.api_keys import KEY_SCOPES, mint_key

_KEY: Final = re.compile(rb"[!-~]+")
"""What a header can hold."""
_CONNECT_TIMEOUT_S: Final = 0.5
_STOP_ORDER: Final = {
    "dashboard": signal.SIGTERM,
    "batch-worker": signal.SIGTERM,
    "batch": signal.SIGTERM,
    "inference": signal.SIGTERM,
    "consumer": signal.SIGTERM,
    "history": signal.SIGTERM,
    "redis": signal.SIGTERM,
    "postgres": POSTGRES_STOP,
}


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Lock ``folder`` for this run; raises ``CannotStart`` if another run has locked it.

    The system releases the lock when this process ends, however it ends.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotStart(f"{folder} (LOCAL_DATA) cannot be used: {error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 16).decode().strip()
            raise CannotStart(
                f"loan-predictor is running already (process {holder}, data in {folder}): "
                "stop it with Ctrl-C, or set LOCAL_DATA to another folder."
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def local_key(path: Path) -> str:
    """The API key of this machine: made by the first run, readable by its owner only.

    Raises ``CannotStart`` if ``path`` cannot be used or holds no key.
    """
    try:
        path.touch(mode=0o600)
        if found := path.read_bytes().strip():
            if _KEY.fullmatch(found):
                return found.decode()
            raise CannotStart(f"{path} holds no API key; delete it, and a run makes another one.")
        secret, _ = mint_key("local", KEY_SCOPES)
        path.write_text(secret + "\n", encoding="ascii")
    except OSError as error:
        raise CannotStart(f"The API key in {path} cannot be used: {error}") from error
    return secret


def clear_leftovers(logs: Path) -> list[str]:
    """Stop what a killed run left running and return its names; keep its logs as ``.log.1``."""
    stopped = [
        name
        for name, stop_signal in _STOP_ORDER.items()
        if stop_leftover(name, logs, stop_signal=stop_signal)
    ]
    for log in logs.glob("*.log"):
        log.replace(log.with_suffix(".log.1"))
    return stopped


def check_ports(settings: LocalSettings) -> None:
    """Raise ``CannotStart`` if a service could not listen where the settings say."""
    for variable, port in settings.ports.items():
        if _answers(reachable_host(settings.local_host), port):
            raise CannotStart(
                f"Port {port} on {settings.local_host} is taken: stop what listens there, "
                f"or choose another with {variable}."
            )
        try:
            socket.create_server((settings.local_host, port)).close()
        except OSError as error:
            raise CannotStart(
                f"Port {port} on {settings.local_host} cannot be used ({error.strerror}): "
                f"choose another with {variable}, or another address with LOCAL_HOST."
            ) from error


def _answers(host: str, port: int) -> bool:
    """Whether something listens: binding next to a listener on every address may succeed."""
    with suppress(OSError):
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S).close()
        return True
    return False

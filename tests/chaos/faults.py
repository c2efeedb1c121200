"""Faults of the running system: each breaks something on entry and repairs it on exit.

A fault yields a remark on how it was done, where that depends on the machine.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final

import asyncpg

from services.local.processes import Process
from tests.chaos.stage import Stage

Fault = Callable[[Stage], AbstractContextManager[str]]
_CLIENT: Final = "chaos"
_END_OTHERS: Final = """
SELECT count(pg_terminate_backend(pid, 2000)) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND application_name <> $1
"""


class NoEffect(Exception):
    """The fault had no effect, so nothing was proved; the message says what is missing."""


@contextmanager
def killed(*processes: Process) -> Iterator[str]:
    """Kill the processes and their children, and start them again."""
    for process in processes:
        for pid in _family(process):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
    try:
        yield ""
    finally:
        for process in processes:
            process.start()


@contextmanager
def restarted(process: Process) -> Iterator[str]:
    """Stop the process as an operator does, and start it again."""
    process.stop()
    try:
        yield ""
    finally:
        process.start()


@contextmanager
def paused(*processes: Process) -> Iterator[str]:
    """Freeze the processes and their children: connections stay open, nothing is answered."""
    frozen = [pid for process in processes for pid in _family(process)]
    _signal_all(frozen, signal.SIGSTOP)
    try:
        yield ""
    finally:
        _signal_all(frozen, signal.SIGCONT)


@contextmanager
def out_of_connections(stage: Stage) -> Iterator[str]:
    """Idle clients hold every connection of PostgreSQL, the services' own ones included."""
    idle: list[asyncpg.Connection] = []
    with asyncio.Runner() as runner:
        try:
            runner.run(_take_every_connection(stage.postgres.url, idle))
            yield f"{len(idle)} idle clients"
        finally:
            runner.run(_close(idle))


async def _take_every_connection(url: str, idle: list[asyncpg.Connection]) -> None:
    """Take every free connection and end all others, until no others are left."""
    others = None
    while others != 0:
        with suppress(asyncpg.TooManyConnectionsError):
            while True:
                client = await asyncpg.connect(url, server_settings={"application_name": _CLIENT})
                idle.append(client)
        others = await idle[0].fetchval(_END_OTHERS, _CLIENT)


async def _close(idle: Sequence[asyncpg.Connection]) -> None:
    for client in idle:
        await client.close()


def _family(process: Process) -> list[int]:
    """Return the process, first so that it forks no more, and its children."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="],  # noqa: S607 - its path differs between systems
        capture_output=True,
        text=True,
        check=True,
    )
    pairs = (line.split() for line in listed.stdout.splitlines())
    return [process.pid, *(int(pid) for pid, parent in pairs if int(parent) == process.pid)]


def _signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

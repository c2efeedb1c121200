"""Several processes of one command, kept running until they are told to leave."""

import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Final

from shared.observability.logs import get_logger

_LOOK_EVERY_S: Final = 0.1

_log = get_logger(__name__)


def keep_running(command: Sequence[str], *, count: int) -> int:
    """Run ``count`` processes of ``command`` until SIGTERM or SIGINT; 0 once all have ended.

    Each such signal is handed on to every process as a SIGTERM. A process that is killed, or told
    to leave by somebody else, is replaced. One that ends by an error of its own would do so again:
    the others are told to leave too, and its exit code is returned.
    """
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: asked.append(number))
    processes = [_start(command) for _ in range(count)]
    leaving, exit_code = False, 0
    while processes:
        time.sleep(_LOOK_EVERY_S)
        while asked:
            asked.pop()
            leaving = True
            _tell_to_leave(processes)
        for process in [process for process in processes if process.poll() is not None]:
            processes.remove(process)
            if leaving:
                continue
            if process.returncode > 0:
                leaving, exit_code = True, process.returncode
                _tell_to_leave(processes)
            else:
                _log.warning(
                    "worker ended and is replaced",
                    process=process.pid,
                    ended_with=process.returncode,
                )
                processes.append(_start(command))
    return exit_code


def _start(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    # In a group of its own, so that Ctrl-C reaches it once, from here. What this process was given
    # to pass on, such as the lock that tells whether anything of it lives, is passed on.
    return subprocess.Popen(command, process_group=0, close_fds=False)  # noqa: S603 - our own


def _tell_to_leave(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        process.terminate()

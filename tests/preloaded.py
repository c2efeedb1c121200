"""Starts the product's processes with their imports done, which are nine tenths of a start.

A template process imports what they import, once. A copy of it, made by fork, runs the module that
``python -m`` names, in its own session, with its own environment and output. It becomes a child of
the process that asked, which waits for it and kills it as usual. A copy that runs ``make run``
has a template of its own, made by fork, too.
"""

import atexit
import ctypes
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import IO, Any, Final, NamedTuple

from services.local import components, processes
from services.local.processes import CannotStart

_ROOT: Final = Path(__file__).parents[1]
_SERVER: Final = "shared.web.server"
_RUN: Final = "services.local"
_IMPORTED: Final = {
    _RUN: ("services.local.config", "services.local.preflight", "services.local.supervisor"),
    _SERVER: ("services.inference.main", "services.history.main", "services.batch.main"),
    "services.history.consumer": ("services.history.consumer",),
    "services.history.migrate": ("services.history.migrate",),
    "services.batch.worker": ("services.batch.worker",),
}
"""What the processes that run these modules import."""
_READ_AT_START: Final = ("COVERAGE_PROCESS_CONFIG", "LD_PRELOAD", "PYTHONPATH", "TZ")
"""Variables that have no effect any more once Python runs."""
_SET_CHILD_SUBREAPER: Final = 36
_LENGTH_BYTES: Final = 4
_POLL_S: Final = 0.005
_asking: Final = Lock()
_templates: Final = list[socket.socket]()
"""This process's end of the wire to its template, once it has one."""


class _Request(NamedTuple):
    argv: list[str]
    env: dict[str, str]
    folder: str


class Copy:
    """A copy of the template: of ``subprocess.Popen`` what ``Process`` uses."""

    def __init__(self, pid: int, command: Sequence[str]) -> None:
        self.pid = pid
        self._command = command
        self._exit_code: int | None = None

    def poll(self) -> int | None:
        """The exit code (negative: a signal); None while it runs."""
        if self._exit_code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self._exit_code = os.waitstatus_to_exitcode(status)
        return self._exit_code

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended; raises ``TimeoutExpired``."""
        ends = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if timeout is not None and ends is not None and time.monotonic() > ends:
                raise subprocess.TimeoutExpired(self._command, timeout)
            time.sleep(_POLL_S)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


def install() -> None:
    """Have this process start those of the product as copies."""
    vars(processes)["Popen"] = start
    vars(components)["run_to_end"] = _run_to_end


def _run_to_end(command: Sequence[str], *, env: Mapping[str, str]) -> None:
    with TemporaryFile() as output:
        given = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        code = start(command, stdout=output, pass_fds=(), env=env, **given).wait()
        if code:
            output.seek(0)
            raise CannotStart(f"{command} failed with {code}:\n{output.read().decode()}")


def start(
    command: Sequence[str],
    *,
    stdout: IO[bytes],
    pass_fds: Sequence[int],
    env: Mapping[str, str] | None,
    **options: Any,
) -> "Copy | subprocess.Popen[bytes]":
    """Start a process as ``subprocess.Popen`` does; as a copy if nothing speaks against it."""
    given = os.environ if env is None else env
    if not (
        sys.platform == "linux"
        and command[:2] == [sys.executable, "-m"]
        and command[2] in _IMPORTED
        and (command[2] != _SERVER or command[3].partition(":")[0] in _IMPORTED[_SERVER])
        and "user" not in options
        and all(given.get(name) == os.environ.get(name) for name in _READ_AT_START)
    ):
        return subprocess.Popen(command, stdout=stdout, pass_fds=pass_fds, env=env, **options)
    sys.audit("subprocess.Popen", command[0], command, None, env)
    request = _Request(list(command[2:]), dict(given), str(Path.cwd()))
    body = json.dumps(request).encode()
    with _asking, _adopting():
        if not _templates:
            _templates.append(_new_template())
        [wire] = _templates
        socket.send_fds(wire, [len(body).to_bytes(_LENGTH_BYTES)], [stdout.fileno(), *pass_fds])
        wire.sendall(body)
        pid = int.from_bytes(wire.recv(_LENGTH_BYTES, socket.MSG_WAITALL))
    return Copy(pid, command)


def _new_template() -> socket.socket:
    """Start a template, which ends with this process."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.preloaded", str(theirs.fileno())],
            cwd=_ROOT,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


@contextmanager
def _adopting() -> Iterator[None]:
    """Meanwhile a process whose parent ends becomes this one's child, instead of the system's."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _become_a_copy(wire: socket.socket) -> str | None:
    """Make a copy for each request; return in it, with the module it has to run.

    Returns None in the template, once nobody can ask for another one.
    """
    while True:
        head, descriptors, _, _ = socket.recv_fds(wire, _LENGTH_BYTES, 2)
        if not head:
            return None
        body = wire.recv(int.from_bytes(head), socket.MSG_WAITALL)
        reading, writing = os.pipe()
        parent = os.fork()
        if not parent and not (copy := os.fork()):
            os.close(reading)
            os.close(writing)
            wire.close()
            request = _Request(*json.loads(body))
            _begin(request, descriptors[0])
            module = request.argv[0]
            return _fork_a_template(descriptors[1:]) if module == _RUN else module
        if not parent:
            os.write(writing, copy.to_bytes(_LENGTH_BYTES))
            os._exit(0)
        os.waitpid(parent, 0)  # from now on the copy is a child of who asked for it
        wire.sendall(os.read(reading, _LENGTH_BYTES))
        for descriptor in (reading, writing, *descriptors):
            os.close(descriptor)


def _begin(request: _Request, output: int) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.env)
    sys.argv = request.argv


def _fork_a_template(locks: Sequence[int]) -> str | None:
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        _templates.append(ours)
        install()
        return _RUN
    ours.close()
    for lock in locks:  # of the run alone
        os.close(lock)
    os.setsid()  # so that Ctrl-C does not reach it
    return _become_a_copy(theirs)


if __name__ == "__main__":
    for each in sorted({name for names in _IMPORTED.values() for name in (*names, _SERVER)}):
        import_module(each)
    gc.freeze()  # so that a copy's looks for garbage do not copy memory
    if module := _become_a_copy(socket.socket(fileno=int(sys.argv[1]))):
        if module != _RUN:  # of a package its __main__ runs, which is not imported
            sys.modules.pop(module)
        runpy.run_module(module, run_name="__main__", alter_sys=True)

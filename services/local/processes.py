"""A child process that can be found again even after its parent was killed.

Each process holds an exclusive lock on its pid file as long as it, or anything it forked, lives:
the lock belongs to a file descriptor that it inherits. A later run can therefore tell a leftover
from another program with the same process id, and a restart waits until the last backend of a
killed server has ended.
"""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import Final, NamedTuple, TypedDict

from shared.observability.logs import readable

STOP_GRACE_S: Final = 10.0
START_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.02


class User(NamedTuple):
    """An account to run a process as."""

    name: str
    number: int
    group: int


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: tuple[int, ...]


class CannotStart(Exception):
    """A required process or server does not start; the message is the sentence to show."""


class Process:
    """A foreground child process in a session of its own, so that Ctrl-C does not reach it.

    ``name`` is used in messages and for ``<name>.log`` and ``<name>.pid`` in ``folder``.
    ``ready`` returns whether the process with that id can be used; without it, running is enough.
    ``user`` is the account to run as, for programs that refuse to run as root.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        env: Mapping[str, str] | None = None,
        ready: Callable[[int], bool] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: User | None = None,
    ) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self.log = folder / f"{name}.log"
        self._pid_file = folder / f"{name}.pid"
        self._env = None if env is None else dict(env)
        self._ready = ready
        self._stop_signal = stop_signal
        self._user = user
        self._child: Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the process started last; raises ``RuntimeError`` before the first start."""
        if self._child is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code of the process started last (negative: a signal); None while it runs."""
        return None if self._child is None else self._child.poll()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def spawn(self, *, wait_s: float = STOP_GRACE_S) -> None:
        """Start it without waiting until it is ready; its output is appended to its log.

        Raises ``CannotStart`` if a former process of this name, or anything it forked, still runs
        after ``wait_s``, or if the command cannot be run.
        """
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        lock = _wait_for_lock(self._pid_file, timeout_s=wait_s)
        if lock is None:
            raise CannotStart(f"{self.name}: an earlier process of it is still running")
        try:
            with self.log.open("ab") as log:
                self._child = Popen(  # noqa: S603 - the commands are this package's own
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    start_new_session=True,
                    pass_fds=[lock],
                    **_identity(self._user),
                )
            os.truncate(lock, 0)
            os.write(lock, f"{self._child.pid}\n".encode())
        except OSError as error:
            raise CannotStart(f"{self.name} cannot be started: {error}") from error
        finally:
            os.close(lock)

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return once it is ready; raises ``CannotStart`` with the log's end otherwise."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            if not self.running:
                raise CannotStart(f"{self.name} ended with {self.exit_code}.\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise CannotStart(
                    f"{self.name} was not ready within {timeout_s:.0f} s.\n{self.log_tail()}"
                )
            time.sleep(_POLL_S)

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it and wait until it is ready."""
        self.spawn()
        self.wait_ready(timeout_s)

    def is_ready(self) -> bool:
        """Whether it runs and can be used."""
        return self.running and (self._ready is None or self._ready(self.pid))

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Ask it to end, and kill it if it has not within ``grace_s``; returns once it ended."""
        if not self.running:
            return
        self.send(self._stop_signal)
        try:
            self._wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does; returns once it ended."""
        if self.running:
            self.send(signal.SIGKILL)
            self._wait(None)

    def pause(self) -> None:
        """Pause it: it keeps its connections and answers nothing."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue a paused process."""
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self._child is not None:
            self._child.send_signal(number)

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log, formatted for a person, below the log's path."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        end = readable("\n".join(text.splitlines()[-lines:]))
        tail = "\n".join(f"    {line}" for line in end.splitlines())
        return f"The end of {self.log}:\n{tail or '    (empty)'}"

    def _wait(self, timeout_s: float | None) -> None:
        if self._child is not None:
            self._child.wait(timeout_s)


def stop_leftover(
    name: str, folder: Path, *, stop_signal: signal.Signals, grace_s: float = STOP_GRACE_S
) -> bool:
    """End the process of this name that a killed run left running; whether there was one.

    Raises ``CannotStart`` if it does not end even when killed.
    """
    pid_file = folder / f"{name}.pid"
    if not pid_file.exists():
        return False
    if _is_free(pid_file, timeout_s=0):
        return False
    for number, wait_s in ((stop_signal, grace_s), (signal.SIGKILL, STOP_GRACE_S)):
        with suppress(OSError, ValueError):
            os.kill(int(pid_file.read_text()), number)
        if _is_free(pid_file, timeout_s=wait_s):
            return True
    raise CannotStart(f"{name}: the process of an earlier run cannot be stopped")


def run_to_end(
    command: Sequence[str | Path], *, env: Mapping[str, str], user: User | None = None
) -> None:
    """Run a command to its end; raises ``CannotStart`` with its output if it fails."""
    name = " ".join(Path(str(part)).name for part in command[:3])
    try:
        done = subprocess.run(  # noqa: S603 - the commands are this package's own
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env,
            check=False,
            **_identity(user),
        )
    except OSError as error:
        raise CannotStart(f"{name} cannot be run: {error}") from error
    if done.returncode != 0:
        raise CannotStart(f"{name} failed with {done.returncode}:\n{readable(done.stdout)}")


def _identity(user: User | None) -> _Identity:
    if user is None:
        return {}
    return {"user": user.number, "group": user.group, "extra_groups": ()}


def _wait_for_lock(path: Path, *, timeout_s: float) -> int | None:
    """A descriptor of ``path`` that holds its lock, or None if another process keeps it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(_POLL_S)
        else:
            return descriptor


def _is_free(pid_file: Path, *, timeout_s: float) -> bool:
    lock = _wait_for_lock(pid_file, timeout_s=timeout_s)
    if lock is not None:
        os.close(lock)
    return lock is not None

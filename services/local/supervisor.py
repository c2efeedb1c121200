"""Keeps a set of processes running, and stops them in order."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from services.local.processes import CannotStart, Process

_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_STABLE_S: Final = 60.0
"""A process that ran for this long starts again after the first pause."""
_POLL_S: Final = 0.2


class Supervisor:
    """Processes in the order of their dependencies: each needs only those before it.

    A process that ends is started again after a pause, which doubles each time up to
    ``_LONGEST_PAUSE_S``; the others go on meanwhile, so that a service that keeps failing never
    stops the servers. ``report`` is called with each line that a person should read.
    """

    def __init__(self, processes: Sequence[Process], report: Callable[[str], None]) -> None:
        self._processes = list(processes)
        self._report = report
        self._began_s = time.monotonic()
        self._pauses_s: dict[Process, float] = {}
        self._started_s: dict[Process, float] = {}
        self._restart_at_s: dict[Process, float] = {}

    def start(self, *processes: Process) -> None:
        """Start these together and return once all are ready; raises ``CannotStart``.

        One that was spawned before is only waited for; if it has ended, none of the others starts.
        """
        for process in processes:
            if process.exit_code is not None:
                process.wait_ready()  # raises, with its reason
        for process in processes:
            if not process.running:
                process.spawn()
        for process in processes:
            process.wait_ready()
            elapsed_s = time.monotonic() - self._began_s
            self._report(f"  {process.name:<12} ready after {elapsed_s:4.1f} s")

    def start_optional(self, process: Process) -> bool:
        """Start a process that the others can do without; whether it is ready.

        If not, the reason is reported and the process is not started again.
        """
        try:
            self.start(process)
        except CannotStart as error:
            process.stop()
            self._processes.remove(process)
            self._report(f"{error}\nEverything else runs without {process.name}.")
            return False
        return True

    def watch(self) -> None:
        """Start again what ends, until this process is stopped."""
        while True:
            self.look()
            time.sleep(_POLL_S)

    def look(self) -> None:
        """Report each process that has ended, and start those whose pause is over."""
        for process in self._processes:
            if not process.running:
                self._revive(process)

    def stop(self) -> None:
        """Stop all that run, the last first."""
        for process in reversed(self._processes):
            process.stop()

    def _revive(self, process: Process) -> None:
        now_s = time.monotonic()
        restart_at_s = self._restart_at_s.get(process)
        if restart_at_s is None:
            self._plan(process, f"{process.name} ended with {process.exit_code}", now_s)
        elif now_s >= restart_at_s:
            del self._restart_at_s[process]
            try:
                process.spawn()
            except CannotStart as error:
                self._plan(process, str(error), now_s)
            else:
                self._started_s[process] = now_s
                self._report(f"{process.name} was started again")

    def _plan(self, process: Process, reason: str, now_s: float) -> None:
        """Plan the next start, after twice the former pause unless the process was stable."""
        stable = now_s - self._started_s.get(process, self._began_s) >= _STABLE_S
        former_s = 0.0 if stable else self._pauses_s.get(process, 0.0)
        pause_s = min(2 * former_s, _LONGEST_PAUSE_S) or _FIRST_PAUSE_S
        self._pauses_s[process] = pause_s
        self._restart_at_s[process] = now_s + pause_s
        self._report(f"{reason}; starting it again in {pause_s:g} s (log: {process.log})")

"""Keeps a set of processes running, and stops them in order."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from services.local.processes import CannotStart, Process

_FIRST_DELAY_S: Final = 0.5
_CRASH_LOOP_DEATHS: Final = 5
_CRASH_LOOP_WINDOW_S: Final = 60.0
_POLL_S: Final = 0.2


class Supervisor:
    """Processes in the order of their dependencies: each needs only those before it.

    What dies is started again, each time after twice the former delay; dying five times within a
    minute is a crash loop, and ends the run. ``dispensable`` ones come last and are given up
    instead: the system works without them. ``say`` is told everything a person should know.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        say: Callable[[str], None],
        *,
        dispensable: Sequence[Process] = (),
    ) -> None:
        self._processes = (*processes, *dispensable)
        self._dispensable = set(dispensable)
        self._given_up: set[Process] = set()
        self._say = say
        self._began = time.monotonic()
        self._deaths: dict[str, list[float]] = {}
        self._restart_at: dict[str, float] = {}

    def start(self, *processes: Process) -> None:
        """Start these together and return once all are ready; raises ``CannotStart``.

        One that was spawned before is only waited for.
        """
        for process in processes:
            if not process.running:
                process.spawn()
        for process in processes:
            process.wait_ready()
            self._say(f"  {process.name:<10} ready after {time.monotonic() - self._began:4.1f} s")

    def try_to_start(self, process: Process) -> bool:
        """Start a dispensable process; whether it is ready. If not, that is said and it is left."""
        try:
            self.start(process)
        except CannotStart as error:
            self._give_up(process, error)
            return False
        return True

    def watch(self) -> None:
        """Start again what dies; returns never, and raises ``CannotStart`` on a crash loop."""
        while True:
            self.look()
            time.sleep(_POLL_S)

    def look(self) -> None:
        """Notice who died, and start again whose delay is over."""
        for process in self._processes:
            if process.running or process in self._given_up:
                continue
            try:
                self._revive(process)
            except CannotStart as error:
                if process not in self._dispensable:
                    raise
                self._give_up(process, error)

    def stop(self) -> None:
        """Stop all that run, the last first."""
        for process in reversed(self._processes):
            process.stop()

    def _revive(self, process: Process) -> None:
        """Plan the next start of what has died, or start it if its delay is over."""
        now = time.monotonic()
        if process.name not in self._restart_at:
            delay_s = self._record_death(process, now)
            self._restart_at[process.name] = now + delay_s
            self._say(
                f"{process.name} ended with {process.exit_code}; "
                f"starting it again in {delay_s:g} s (log: {process.log})"
            )
        elif now >= self._restart_at[process.name]:
            del self._restart_at[process.name]
            process.spawn()
            self._say(f"{process.name} was started again")

    def _give_up(self, process: Process, reason: CannotStart) -> None:
        self._given_up.add(process)
        process.stop()
        self._say(f"{reason}\nEverything else runs without {process.name}.")

    def _record_death(self, process: Process, now: float) -> float:
        """The delay before the next start; raises ``CannotStart`` when there shall be none."""
        recent = [
            death
            for death in self._deaths.get(process.name, [])
            if now - death < _CRASH_LOOP_WINDOW_S
        ]
        self._deaths[process.name] = [*recent, now]
        if len(recent) + 1 == _CRASH_LOOP_DEATHS:
            raise CannotStart(
                f"{process.name} ended {_CRASH_LOOP_DEATHS} times within "
                f"{_CRASH_LOOP_WINDOW_S:g} s, the last time with {process.exit_code}.\n"
                f"{process.log_tail()}"
            )
        return _FIRST_DELAY_S * 2.0 ** len(recent)

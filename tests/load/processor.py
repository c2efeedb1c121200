"""Processor time of other processes, as the system reports it."""

import os
from pathlib import Path
from typing import Final

_PROCESSES: Final = Path("/proc")
_SESSION, _USER, _SYSTEM = 3, 11, 12
"""Positions in ``/proc/PID/stat`` after the command's name; see proc(5)."""


def is_counted() -> bool:
    """Whether this system reports processor time in ``/proc``, as Linux does."""
    return (_PROCESSES / "self" / "stat").exists()


def session_s(session: int) -> float:
    """Return the seconds of processor time used so far by the living processes of a session."""
    ticks = 0
    for process in _PROCESSES.iterdir():
        if process.name.isdigit():
            fields = _fields(process)
            if fields and int(fields[_SESSION]) == session:
                ticks += int(fields[_USER]) + int(fields[_SYSTEM])
    return ticks / os.sysconf("SC_CLK_TCK")


def _fields(process: Path) -> list[str]:
    try:
        # A command's name may hold spaces and brackets; only numbers follow the last bracket.
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []  # the process has ended meanwhile

"""What other processes use, as Linux reports it in ``/proc``."""

import os
from pathlib import Path
from typing import Final

_PROCESSES: Final = Path("/proc")
_PARENT, _USER, _LAST_TIME = 1, 11, 14
"""Positions in ``/proc/PID/stat`` after the command's name; see proc(5). From user to last: time of
the process and of the children that it has waited for."""
_BYTES_PER_KIB: Final = 1024


def is_counted() -> bool:
    """Whether this system reports processor time in ``/proc``, as Linux does."""
    return (_PROCESSES / "self" / "stat").exists()


def used_s(root: int) -> float:
    """Return the seconds of processor time used by a process and its descendants, ended or not."""
    ticks = sum(
        sum(map(int, _stat(pid)[_USER : _LAST_TIME + 1])) for pid in _with_descendants(root)
    )
    return ticks / os.sysconf("SC_CLK_TCK")


def written_bytes(root: int) -> int:
    """Return the bytes that a process and its descendants sent to the disk."""
    return sum(_number(pid, "io", "write_bytes") for pid in _with_descendants(root))


def own_bytes(root: int) -> int:
    """Return the resident memory of a process and its descendants, without what they share."""
    return _BYTES_PER_KIB * sum(
        _number(pid, "status", "RssAnon") for pid in _with_descendants(root)
    )


def _with_descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for process in _PROCESSES.iterdir():
        if process.name.isdigit() and (stat := _stat(int(process.name))):
            children.setdefault(int(stat[_PARENT]), []).append(int(process.name))
    found = [root]
    for pid in found:
        found += children.get(pid, ())
    return found


def _stat(pid: int) -> list[str]:
    # A command's name may hold spaces and brackets; only numbers follow the last bracket.
    return _text(pid, "stat").rpartition(")")[2].split()


def _number(pid: int, file: str, name: str) -> int:
    """The number on the line ``name: number`` of a file; 0 without one."""
    for line in _text(pid, file).splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def _text(pid: int, file: str) -> str:
    try:
        return (_PROCESSES / str(pid) / file).read_text()
    except OSError:
        return ""  # the process has ended meanwhile

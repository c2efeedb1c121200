"""How the workers that serve one port let each other know what they have counted.

Each has a place in a folder that the process above them made: a file with everything that it has
counted, written anew every second, when somebody asks, and at the end. A worker that starts takes a
place that a dead one left, and goes on from its counts. So no counter ever goes back, and there are
never more files than there were workers at once. What a killed worker had counted in its last
second, and nobody was told of, is lost.
"""

import fcntl
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeAlias

from pydantic_core import from_json, to_json

from shared.observability.logs import get_logger
from shared.observability.metrics.samples import Distribution, Snapshot, Value, lasting, together

FOLDER_VARIABLE: Final = "METRICS_OF_WORKERS"
"""Environment variable that names the folder to the workers; who serves alone has none."""

_LATEST_S: Final = 5.0
"""For how long what a worker wrote is of this moment. It writes much oftener, while it lives."""

_log = get_logger(__name__)


@contextmanager
def worker_folder() -> Iterator[None]:
    """A folder for the workers that this process starts while the block runs."""
    with tempfile.TemporaryDirectory(prefix="loan-metrics-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER_VARIABLE]


class Place:
    """The place that this worker holds, in ``folder``; all of it reads or writes files."""

    def __init__(self, file: Path, lock: int) -> None:
        self._file = file
        self._lock = lock
        self._former = lasting(_read(file))
        self._writing = threading.Lock()
        self._fails = False

    def write(self, read: Callable[[], Snapshot]) -> Snapshot:
        """Write down what ``read`` tells, with what was counted here before, and return it."""
        # One at a time, so that nothing older is written over what is newer.
        with self._writing:
            counted = together(read(), [self._former])
            unfinished = self._file.with_suffix(".new")
            try:
                unfinished.write_bytes(_encode(counted))
                unfinished.replace(self._file)
            except OSError as error:
                if not self._fails:
                    _log.warning(
                        "other workers are not told what is counted here", error=str(error)
                    )
                self._fails = True
            else:
                self._fails = False
            return counted

    def others(self) -> Iterable[Snapshot]:
        """What each other place says: counts of the living and the dead, the rest of the living."""
        for file in self._file.parent.glob("*.json"):
            if file != self._file:
                yield _read(file)

    def leave(self) -> None:
        """Leave the counts to whoever comes next."""
        os.close(self._lock)


def take_place(folder: Path) -> Place:
    """The first place that no living worker holds; the system frees it when this process ends."""
    for number in count():
        lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return Place(folder / f"{number}.json", lock)
    raise AssertionError("the numbers have come to an end")


_Series: TypeAlias = tuple[str, tuple[str, ...], Value]


def _encode(counted: Snapshot) -> bytes:
    series: list[_Series] = [(name, labels, value) for (name, labels), value in counted.items()]
    return to_json({"written_at_s": monotonic(), "series": series})


def _read(file: Path) -> Snapshot:
    """What a place says; nothing before its first worker has written."""
    try:
        said: Mapping[str, Any] = from_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    counted = {
        (name, tuple(labels)): Distribution(tuple(value[0]), value[1])
        if isinstance(value, list)
        else value
        for name, labels, value in said["series"]
    }
    return counted if monotonic() - said["written_at_s"] < _LATEST_S else lasting(counted)

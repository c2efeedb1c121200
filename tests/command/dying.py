"""Work that kills the process it is done in, for the tests of an engine."""

import os
import signal
from pathlib import Path

from services.command.score import Report, Task, Work


def score_or_die(work: Work, mark: Path, task: Task) -> Report:
    """Do the work; the first process that gets the second chunk is killed instead."""
    if task.number == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work(task)


def die(chunk: int) -> int:
    """Kill the process, whatever the chunk."""
    os.kill(os.getpid(), signal.SIGKILL)
    return chunk

"""Standard output whose reader may go away, as ``head`` does once it has seen enough."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ends_with_its_reader(code: int) -> Iterator[None]:
    """Raise ``SystemExit(code)``, silently, once nothing reads standard output any more."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer is written at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(code) from None

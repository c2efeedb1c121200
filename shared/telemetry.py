"""How the processes report on themselves."""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

from fastapi.telemetry import TelemetryConfig

# Left on, the framework looks for OpenTelemetry providers anew on every request.
NO_TELEMETRY: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False}


class TimeStamp:
    """Times in UTC as ISO 8601 with milliseconds; the text of a second is made only once."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def __call__(self, unix_s: float) -> str:
        """The text of ``unix_s`` seconds since the epoch."""
        second = int(unix_s)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int(unix_s % 1 * 1000):03d}Z"


class UtcFormatter(logging.Formatter):
    """One line per record, its time in UTC."""

    def __init__(self) -> None:
        super().__init__()
        self._stamp = TimeStamp()

    def format(self, record: logging.LogRecord) -> str:
        """The line of ``record``, with a traceback below it if it has one."""
        line = (
            f"{self._stamp(record.created)} {record.levelname} {record.name} {record.getMessage()}"
        )
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class LineWriter:
    """Writes all lines of one turn of the event loop together: one system call for all of them.

    Outside a running loop each line is written at once.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: list[str] = []

    def __call__(self, line: str) -> None:
        """Take ``line``, to be written before the loop waits again."""
        self._lines.append(line)
        if len(self._lines) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self._flush)
        except RuntimeError:
            self._flush()

    def _flush(self) -> None:
        text = "\n".join(self._lines) + "\n"
        self._lines.clear()
        self._stream.write(text)
        self._stream.flush()


class _Handler(logging.Handler):
    def __init__(self, write: LineWriter) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(self.format(record))


LogAccess = Callable[[str], None]
"""Takes what is to be said of one request."""


def configure_logging(level: str) -> LogAccess:
    """Send this process's log to standard error, one line per event, from ``level`` up.

    Returns the access log. It shares the stream but not the library's record of each event, which
    cost a seventh of the time of a request; it is silent above INFO.
    """
    write = LineWriter(sys.stderr)
    handler = _Handler(write)
    handler.setFormatter(UtcFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Each request to another service would otherwise be a line of its own.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if not logging.getLogger().isEnabledFor(logging.INFO):
        return lambda _: None
    return access_log(write)


def access_log(write: LineWriter) -> LogAccess:
    """The access log on ``write``: each line begins with its time."""
    stamp = TimeStamp()
    return lambda said: write(f"{stamp(time.time())} INFO access {said}")

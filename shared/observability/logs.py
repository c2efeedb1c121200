"""Logs: one event per line, as JSON for programs or in colour for a person.

Every event has ``time`` (UTC), ``level``, ``logger`` and ``event``, whether this product, a
library, a Python warning or an uncaught exception reports it.
"""

import asyncio
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, MutableMapping
from threading import get_ident
from time import gmtime, strftime, time
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import structlog
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from structlog.stdlib import BoundLogger, ProcessorFormatter

LogFormat = Literal["json", "console"]


class LogSettings(BaseSettings):
    """Level and format of a process's log, from environment variables."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    log_format: LogFormat | None = Field(
        default=None,
        description="json or console; by default console on a terminal and json elsewhere.",
    )


def get_logger(name: str) -> BoundLogger:
    """The logger of a module: ``log.warning("what happened", with_which="values")``.

    The event is a constant text, so that it can be searched for and counted.
    """
    logger: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logger


_GATHER_S: Final = 0.05

# For what Python itself reports without a logger.
_log = get_logger("python")


class TimeStamp:
    """Formats times in UTC as ISO 8601 with milliseconds; reuses the text of the same time."""

    def __init__(self) -> None:
        self._second = self._millisecond = -1
        self._to_second = self._text = ""

    def __call__(self, unix_s: float) -> str:
        """The text of ``unix_s`` seconds since the epoch."""
        millisecond = int(unix_s * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            second, rest = divmod(millisecond, 1000)
            if second != self._second:
                self._second = second
                self._to_second = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
            self._text = f"{self._to_second}.{rest:03d}Z"
        return self._text


class LineWriter:
    """Writes a line at once, or lines that can wait 50 ms together.

    A killed process loses the waiting lines.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._thread = get_ident()
        self._waiting: list[Callable[[], str]] = []

    def soon(self, lines: Callable[[], str]) -> None:
        """Call ``lines`` within 50 ms and write the whole lines that it returns.

        Only in the thread that created this writer, inside a running event loop.
        """
        if not self._waiting:
            asyncio.get_running_loop().call_later(_GATHER_S, self._write_waiting)
        self._waiting.append(lines)

    def now(self, line: str) -> None:
        """Write ``line`` after the waiting lines; from another thread, before them."""
        if get_ident() == self._thread:
            self._write_waiting()
        self._write(f"{line}\n")

    def _write_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._write("".join([lines() for lines in waiting]))

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _Handler(logging.Handler):
    def __init__(self, write: LineWriter) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write.now(self.format(record))


LogAccess = Callable[[str, str, str, str, int, float, str | None], None]
"""Logs a request; the parameters are those of ``log_access``."""


def configure_logging(settings: LogSettings) -> LogAccess:
    """Send this process's log to standard error, one line per event; returns the access log."""
    write = LineWriter(sys.stderr)
    log_format = settings.log_format or ("console" if sys.stderr.isatty() else "json")
    handler = _Handler(write)
    handler.setFormatter(line_formatter(log_format, colors=sys.stderr.isatty()))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    # Otherwise each request to another service is a line of its own.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if not logging.getLogger().isEnabledFor(logging.INFO):
        return silent
    return json_access_log(write) if log_format == "json" else log_access


def take_over_output() -> None:
    """Log also warnings and uncaught exceptions, from the start of a process on.

    Unusable settings of the log are reported by the process later; until then the defaults apply.
    """
    try:
        settings = LogSettings()
    except ValidationError:
        settings = LogSettings.model_construct()
    configure_logging(settings)
    warnings.showwarning = _on_warning
    sys.excepthook = _on_exception
    sys.unraisablehook = _on_unraisable
    threading.excepthook = _on_exception_in_thread


def line_formatter(log_format: LogFormat, *, colors: bool = False) -> logging.Formatter:
    """Formats an event as a line; a traceback is one member, without any variable's value."""
    if log_format == "json":
        return ProcessorFormatter(
            processors=[
                _standard_members(),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(separators=(",", ":")),
            ]
        )
    return ProcessorFormatter(processors=[_standard_members(), _console(colors=colors)])


def readable(log: str) -> str:
    """The JSON lines of a log as on a console; a line that is no event is unchanged."""
    console = _console(colors=False)
    return "\n".join(_readable(line, console) for line in log.splitlines())


def _readable(line: str, console: structlog.dev.ConsoleRenderer) -> str:
    try:
        event = json.loads(line)
    except ValueError:
        return line
    return console(None, "", event) if isinstance(event, dict) and "event" in event else line


def _console(*, colors: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=colors,
        timestamp_key="time",
        sort_keys=False,
        pad_event_to=0,
        # The default shows the variables of each frame, applicants' data among them.
        exception_formatter=structlog.dev.plain_traceback,
    )


def json_access_log(write: LineWriter) -> LogAccess:
    """The access log as JSON on ``write``.

    Formatted by hand, at 0.9 us a line where structlog takes 22, because every request pays for
    it; a request is only appended to a list. No value can need escaping: the id, the client's name
    and the method (the parser knows a few dozen) are plain characters by their own rules, and the
    route is a template of this code.
    """
    stamp = TimeStamp()
    requests: list[tuple[float, str, str, str, str, int, float, str | None]] = []

    def log(
        request_id: str,
        client: str,
        method: str,
        route: str,
        status: int,
        duration_s: float,
        prediction_id: str | None,
    ) -> None:
        if not requests:
            write.soon(lines)
        requests.append(
            (time(), request_id, client, method, route, status, duration_s, prediction_id)
        )

    def lines() -> str:
        made = "".join(
            [
                f'{{"time":"{stamp(at_s)}","level":"info","logger":"access","event":"request",'
                f'"request_id":"{request_id}","client":"{client}","method":"{method}",'
                f'"route":"{route}","status":{status},"duration_s":{duration_s:.6f}'
                + ("}\n" if decided is None else f',"prediction_id":"{decided}"}}\n')
                for at_s, request_id, client, method, route, status, duration_s, decided in requests
            ]
        )
        requests.clear()
        return made

    return log


_access = get_logger("access")


def log_access(
    request_id: str,
    client: str,
    method: str,
    route: str,
    status: int,
    duration_s: float,
    prediction_id: str | None,
) -> None:
    """Log a request with structlog, in the format of the log.

    ``route`` is a template, because a path may name a loan; ``prediction_id`` is that of the
    decision in the answer, if there is one.
    """
    decided = {} if prediction_id is None else {"prediction_id": prediction_id}
    _access.info(
        "request",
        request_id=request_id,
        client=client,
        method=method,
        route=route,
        status=status,
        duration_s=round(duration_s, 6),
        **decided,
    )


def silent(*_: object) -> None:
    """An access log that logs nothing."""


def _standard_members() -> Callable[[Any, str, MutableMapping[str, Any]], dict[str, Any]]:
    """Puts the members that every event has first."""
    stamp = TimeStamp()

    def processor(_: Any, __: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
        record: logging.LogRecord = event.pop("_record")
        del event["_from_structlog"]
        return {
            "time": stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event.pop("event"),
            **event,
        }

    return processor


def _on_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001 - the signature is Python's
    line: str | None = None,  # noqa: ARG001
) -> None:
    _log.warning(
        "Python warning",
        category=category.__name__,
        message=str(message),
        at=f"{filename}:{lineno}",
    )


def _on_exception(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    _log.critical("uncaught exception", exc_info=(kind, error, traceback))


def _on_exception_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _on_exception(args.exc_type, args.exc_value, args.exc_traceback)


def _on_unraisable(args: "sys.UnraisableHookArgs") -> None:
    _log.error(
        "exception ignored",
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        where=args.err_msg,
    )

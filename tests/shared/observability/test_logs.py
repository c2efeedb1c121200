"""The log: one event per line, in one form, those of requests written together."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from shared.observability.logs import (
    LineWriter,
    LogFormat,
    LogSettings,
    TimeStamp,
    configure_logging,
    get_logger,
    json_access_log,
    line_formatter,
    log_access,
    readable,
)

_STANDARD = ["time", "level", "logger", "event"]
_INCOME = "48213"


class CountingStream(io.StringIO):
    """A stream that counts how often it is written to."""

    writes = 0

    def write(self, text: str) -> int:
        """Write ``text``."""
        self.writes += 1
        return super().write(text)


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture
def stream() -> CountingStream:
    """Where the lines go."""
    return CountingStream()


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _formatted(record: logging.LogRecord, log_format: LogFormat = "json") -> str:
    return line_formatter(log_format).format(record)


def _failure() -> logging.LogRecord:
    """A record of an exception, raised where an applicant's income is at hand."""

    def fail(income: int) -> None:
        raise ValueError("a bug" if income else "no bug")

    try:
        fail(int(_INCOME))
    except ValueError:
        return logging.LogRecord("here", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    raise AssertionError


def test_every_source_has_the_same_members_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Only the logger distinguishes this product's own events from a library's."""
    configure_logging(LogSettings())
    get_logger("ours").warning("server away", server="redis", pause_s=0.5)
    logging.getLogger("theirs").warning("away: %s", "refused")
    ours, theirs = _lines(capsys.readouterr().err)
    assert list(ours) == [*_STANDARD, "server", "pause_s"]
    assert list(theirs) == _STANDARD
    assert (ours["level"], ours["logger"], ours["event"]) == ("warning", "ours", "server away")
    assert (theirs["logger"], theirs["event"]) == ("theirs", "away: refused")


def test_time_is_its_own_millisecond() -> None:
    """The text of a time is kept, and never used for another."""
    stamp = TimeStamp()
    assert [stamp(at) for at in (1_700_000_000.25, 1_700_000_000.75, 1_700_000_001.0)] == [
        "2023-11-14T22:13:20.250Z",
        "2023-11-14T22:13:20.750Z",
        "2023-11-14T22:13:21.000Z",
    ]


def test_traceback_is_one_member_of_one_line() -> None:
    """A program that reads the log line by line gets all of it, and no variable's value."""
    [event] = _lines(_formatted(_failure()))
    assert event["event"] == "failed"
    assert event["exception"].startswith("Traceback")
    assert event["exception"].endswith("ValueError: a bug")
    assert _INCOME not in event["exception"]


def test_console_shows_a_traceback_below_the_line_without_variables() -> None:
    """A person reads no more than a program does."""
    shown = _formatted(_failure(), "console")
    first, *rest = shown.splitlines()
    assert "failed" in first
    assert "here" in first
    assert rest[0].startswith("Traceback")
    assert rest[-1] == "ValueError: a bug"
    assert _INCOME not in shown


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_line_break_in_a_value_makes_no_line_of_its_own(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    """Neither form lets what others sent pass for an event."""
    configure_logging(LogSettings(log_format=log_format))
    get_logger("here").info("said", error='a\n{"event":"forged"}')
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_form_follows_the_stream_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour on a terminal, JSON elsewhere; LOG_FORMAT has the last word."""
    shown = {}
    cases: list[tuple[str, io.StringIO, LogFormat | None]] = [
        ("file", io.StringIO(), None),
        ("terminal", Terminal(), None),
        ("file, named", io.StringIO(), "console"),
        ("terminal, named", Terminal(), "json"),
    ]
    for name, where, log_format in cases:
        monkeypatch.setattr(sys, "stderr", where)
        configure_logging(LogSettings(log_format=log_format))
        get_logger("here").info("heard", number=1)
        shown[name] = where.getvalue()
    assert shown["file"].startswith("{")
    assert shown["terminal, named"].startswith("{")
    assert "\x1b[" in shown["terminal"]
    assert "\x1b[" not in shown["file, named"]
    assert "heard" in shown["file, named"]
    assert "number=1" in shown["file, named"]


def test_event_is_written_at_once(stream: CountingStream) -> None:
    """Before the loop starts, as at any time, an event is not held back."""
    LineWriter(stream).now("starting")
    assert stream.getvalue() == "starting\n"


async def test_line_of_another_thread_is_written_at_once(stream: CountingStream) -> None:
    """It neither waits for the loop nor gets in its way."""
    write = LineWriter(stream)
    write.soon(lambda: "of the loop\n")
    await asyncio.to_thread(write.now, "of a thread")
    assert stream.getvalue() == "of a thread\n"
    await _until_written(stream)
    assert stream.getvalue() == "of a thread\nof the loop\n"


async def test_lines_that_can_wait_are_written_together(stream: CountingStream) -> None:
    """A hundred requests answered in one moment cost one write, and no line is lost."""
    log = json_access_log(LineWriter(stream))
    for number in range(100):
        log(*(_REQUEST | {"request_id": str(number)}).values())
    assert stream.writes == 0
    await _until_written(stream)
    assert stream.writes == 1
    assert [line["request_id"] for line in _lines(stream.getvalue())] == [
        str(number) for number in range(100)
    ]


async def test_event_is_written_after_what_waited(stream: CountingStream) -> None:
    """Lines have the order of their events; the last event of a process is the last line."""
    write = LineWriter(stream)
    write.soon(lambda: "answered\n")
    write.now("failed")
    write.soon(lambda: "answered again\n")
    write.now("stopped")
    assert stream.getvalue().splitlines() == ["answered", "failed", "answered again", "stopped"]


async def _until_written(stream: CountingStream) -> None:
    """Wait for the next line, or those that come with it."""
    before = stream.writes
    async with asyncio.timeout(5):
        while stream.writes == before:  # noqa: ASYNC110 - a stream cannot notify
            await asyncio.sleep(0.001)


_REQUEST: dict[str, Any] = {
    "request_id": "order-66",
    "client": "anonymous",
    "method": "POST",
    "route": "/predict/{model}",
    "status": 200,
    "duration_s": 0.000_123_456_7,
    "prediction_id": None,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prediction_id": "01a20afb-7957-74b4-90e3-62e561575793"},
        {"request_id": "aZ09._~:=+/-" * 10, "client": "bank-7", "method": "M-SEARCH"},
        {"status": 503, "duration_s": 61.5},
        {"status": 499, "duration_s": 0.0},
    ],
)
async def test_access_line_made_by_hand_is_the_one_that_structlog_makes(
    capsys: pytest.CaptureFixture[str], stream: CountingStream, changes: dict[str, Any]
) -> None:
    """Same members in the same order, same values of the same kinds; only the time is its own."""
    configure_logging(LogSettings(log_format="json"))
    request = (_REQUEST | changes).values()
    log_access(*request)
    json_access_log(LineWriter(stream))(*request)
    await _until_written(stream)
    [expected], [made] = _lines(capsys.readouterr().err), _lines(stream.getvalue())
    assert len(made.pop("time")) == len(expected.pop("time"))
    assert list(made.items()) == list(expected.items())
    assert [type(value) for value in made.values()] == [type(v) for v in expected.values()]


def test_access_log_is_silent_above_info(capsys: pytest.CaptureFixture[str]) -> None:
    """LOG_LEVEL=WARNING means warnings only."""
    configure_logging(LogSettings(log_level="WARNING"))(*_REQUEST.values())
    get_logger("here").info("not heard")
    get_logger("here").warning("heard")
    [line] = _lines(capsys.readouterr().err)
    assert line["event"] == "heard"


_LAST_WORDS = """
import gc, threading, warnings
from shared.observability.logs import take_over_output
take_over_output()
warnings.warn("old habit")
class Careless:
    def __del__(self):
        raise OSError("too late")
Careless(); gc.collect()
thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()
raise ValueError("the end")
"""


@pytest.mark.system
@pytest.mark.parametrize("settings", [{}, {"LOG_LEVEL": "SHOUT"}])
def test_what_nobody_logs_is_logged_all_the_same(settings: dict[str, str]) -> None:
    """Warnings and uncaught exceptions are events like any other, each on one line."""
    done = subprocess.run(
        [sys.executable, "-c", _LAST_WORDS],
        env={"PATH": "", **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    events = _lines(done.stderr)
    assert [(event["level"], event["event"]) for event in events] == [
        ("warning", "Python warning"),
        ("error", "exception ignored"),
        ("critical", "uncaught exception"),
        ("critical", "uncaught exception"),
    ]
    assert events[0]["message"] == "old habit"
    last_lines = [event["exception"].splitlines()[-1] for event in events[1:]]
    assert last_lines == [
        "OSError: too late",
        "ZeroDivisionError: division by zero",
        "ValueError: the end",
    ]


def test_json_log_can_be_shown_to_a_person() -> None:
    """Where the end of a log is shown, a traceback has its lines; other lines stay as they are."""
    text = "\n".join((_formatted(_failure()), "LOG:  database system is ready", "[1]", '"x"'))
    first, *rest = readable(text).splitlines()
    assert "failed" in first
    assert rest[0].startswith("Traceback")
    assert rest[-4:] == ["ValueError: a bug", "LOG:  database system is ready", "[1]", '"x"']

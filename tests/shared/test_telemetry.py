"""The log: one line per event, written a turn of the event loop at a time."""

import asyncio
import io
import logging
import re
import sys

import pytest

from shared.telemetry import (
    LineWriter,
    TimeStamp,
    UtcFormatter,
    access_log,
    configure_logging,
)


class CountingStream(io.StringIO):
    """A stream that counts how often it is written to."""

    writes = 0

    def write(self, text: str) -> int:
        """Write ``text``."""
        self.writes += 1
        return super().write(text)


@pytest.fixture
def stream() -> CountingStream:
    """Where the lines go."""
    return CountingStream()


def test_line_has_utc_time_level_name_and_message() -> None:
    """One line says when, how grave, where and what."""
    record = logging.LogRecord("here", logging.WARNING, "file", 1, "away: %s", ("refused",), None)
    line = UtcFormatter().format(record)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING here away: refused", line)


def test_time_is_its_own_second() -> None:
    """The text of a second is kept, and never used for another second."""
    stamp = TimeStamp()
    assert [stamp(at) for at in (1_700_000_000.25, 1_700_000_000.75, 1_700_000_001.0)] == [
        "2023-11-14T22:13:20.250Z",
        "2023-11-14T22:13:20.750Z",
        "2023-11-14T22:13:21.000Z",
    ]


def test_exception_brings_its_traceback() -> None:
    """What went wrong can be read below the line."""
    try:
        raise ValueError("a bug")
    except ValueError:
        record = logging.LogRecord("here", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    line = UtcFormatter().format(record)
    assert "failed\nTraceback" in line
    assert line.endswith("ValueError: a bug")


def test_line_outside_a_loop_is_written_at_once(stream: CountingStream) -> None:
    """Before the loop starts nothing is held back."""
    LineWriter(stream)("starting")
    assert stream.getvalue() == "starting\n"


async def test_lines_of_one_turn_are_written_together(stream: CountingStream) -> None:
    """A hundred requests answered in one turn cost one write, and no line is lost."""
    write = access_log(LineWriter(stream))
    for number in range(100):
        write(f"GET /livez 200 {number}")
    assert stream.writes == 0
    await asyncio.sleep(0)
    assert stream.writes == 1
    lines = stream.getvalue().splitlines()
    assert len(lines) == 100
    assert lines[99].endswith("Z INFO access GET /livez 200 99")


def test_access_log_is_silent_above_info(capsys: pytest.CaptureFixture[str]) -> None:
    """LOG_LEVEL=WARNING means warnings only."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging("WARNING")("GET / 200")
        logging.getLogger("here").warning("heard")
    finally:
        root.handlers[:], root.level = handlers, level
    assert capsys.readouterr().err.endswith("WARNING here heard\n")

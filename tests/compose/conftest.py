"""One stack for the whole run, and its measurements, printed at the end."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.compose.engine import Stack, run
from tests.compose.load import Verdict

_notes = pytest.StashKey[list[str]]()
_verdicts = pytest.StashKey[list[Verdict]]()
_COLUMNS = ("fault", "requests", "answered", "stored", "missing", "doubled", "unanswered")


def pytest_configure(config: pytest.Config) -> None:
    """Start with no measurements."""
    config.stash[_notes] = []
    config.stash[_verdicts] = []


def pytest_sessionstart() -> None:
    """Report a missing engine once, instead of failing every test."""
    if run("docker", "info").returncode != 0:
        pytest.exit("these tests need a Docker engine, and none answers", returncode=2)


@pytest.fixture
def notes(pytestconfig: pytest.Config) -> list[str]:
    """Sentences to print at the end."""
    return pytestconfig.stash[_notes]


@pytest.fixture
def verdicts(pytestconfig: pytest.Config) -> list[Verdict]:
    """Rows of the table to print at the end."""
    return pytestconfig.stash[_verdicts]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the measurements, if any of these tests ran."""
    if not config.stash[_notes]:
        return
    terminalreporter.section("measured")
    for note in config.stash[_notes]:
        terminalreporter.line(note)
    if config.stash[_verdicts]:
        terminalreporter.line(_row(*_COLUMNS) + "  failed")
    for verdict in config.stash[_verdicts]:
        failed = ", ".join(f"{times} x {what}" for what, times in verdict.failures.items())
        cells = [getattr(verdict, column) for column in _COLUMNS]
        terminalreporter.line(_row(*cells) + f"  {failed or 'none'}")


def _row(fault: object, *cells: object) -> str:
    return f"{fault!s:<26}" + "".join(f"{cell!s:>12}" for cell in cells)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Build and start the whole stack; remove its containers and data at the end."""
    stack = Stack(Path(tmp_path_factory.mktemp("stack")))
    stack.destroy()
    try:
        stack.compose("up", "--detach", "--build")
        stack.wait_healthy()
        yield stack
    finally:
        print(stack.compose("logs", "--tail", "50"))
        stack.destroy()


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway whose key has every scope."""
    headers = {"x-api-key": stack.api_key}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=30) as client:
        yield client

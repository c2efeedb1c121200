"""A child process is started, watched and ended, and never lost sight of."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.local.processes import CannotStart, Process, run_to_end, stop_leftover

pytestmark = pytest.mark.system

_SLEEP = "import time; print('up', flush=True); time.sleep(60)"
_IGNORES_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + _SLEEP
_FORKS = "import os, time; os.fork(); print('up', os.getpid(), flush=True); time.sleep(60)"
_STARTS_A_CHILD_AND_IS_KILLED = """
import os, signal, sys
from pathlib import Path
from services.local.processes import Process
Process("child", [sys.executable, "-c", sys.argv[2]], folder=Path(sys.argv[1])).start()
os.kill(os.getpid(), signal.SIGKILL)
"""

Start = Callable[..., Process]


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Start]:
    """Make a process of a line of Python; whatever runs at the test's end is killed."""
    made = []

    def make(line: str, *, ready_when_up: bool = False, name: str = "child") -> Process:
        log = tmp_path / f"{name}.log"
        process = Process(
            name,
            [sys.executable, "-c", line],
            folder=tmp_path,
            ready=(lambda _pid: "up" in log.read_text()) if ready_when_up else None,
        )
        made.append(process)
        return process

    yield make
    for process in made:
        process.kill()


def test_stop_ends_the_process_by_its_stop_signal(python: Start) -> None:
    """A process that heeds the signal is gone when stop returns."""
    process = python(_SLEEP, ready_when_up=True)
    process.start()
    process.stop()
    assert not process.running
    assert process.exit_code == -signal.SIGTERM


def test_process_that_ignores_the_stop_signal_is_killed_after_the_grace(python: Start) -> None:
    """Stop always returns, with the process gone."""
    process = python(_IGNORES_SIGTERM, ready_when_up=True)
    process.start()
    process.stop(grace_s=0.2)
    assert process.exit_code == -signal.SIGKILL


def test_process_runs_in_a_session_of_its_own(python: Start) -> None:
    """Ctrl-C in the terminal therefore reaches only the supervisor."""
    process = python(_SLEEP)
    process.start()
    assert os.getsid(process.pid) == process.pid != os.getsid(0)


def test_process_that_ends_before_it_is_ready_is_reported_with_its_last_words(
    python: Start,
) -> None:
    """The log's end says why."""
    process = python("import sys; sys.exit('no such table')", ready_when_up=True)
    with pytest.raises(CannotStart, match=r"child ended with 1\.\n(?s:.*)no such table"):
        process.start()


def test_process_that_never_gets_ready_is_reported_after_the_timeout(python: Start) -> None:
    """Waiting has an end."""
    process = python("import time; time.sleep(60)", ready_when_up=True)
    with pytest.raises(CannotStart, match=r"was not ready within 0 s\.\n(?s:.*)\(empty\)"):
        process.start(timeout_s=0.1)


def test_command_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    """No traceback for what an installation may lack."""
    process = Process("child", [tmp_path / "missing"], folder=tmp_path)
    with pytest.raises(CannotStart, match=r"child cannot be started: .*missing"):
        process.start()
    assert not process.running


def test_process_never_started_has_no_number_and_can_be_stopped(python: Start) -> None:
    """Stopping all is safe however far the start has come."""
    process = python(_SLEEP)
    process.stop()
    process.kill()
    process.send(signal.SIGTERM)
    assert process.exit_code is None
    with pytest.raises(RuntimeError, match="child was never started"):
        _ = process.pid


def test_paused_process_does_nothing_until_it_is_resumed(python: Start) -> None:
    """Frozen is not ended: its count stands still, then goes on."""
    process = python("import time\nwhile True: print('up', flush=True); time.sleep(0.01)")
    process.start()
    _until(lambda: process.log.stat().st_size > 0)
    process.pause()
    time.sleep(0.1)
    size = process.log.stat().st_size
    time.sleep(0.1)
    assert process.log.stat().st_size == size
    process.resume()
    _until(lambda: process.log.stat().st_size > size)


def test_process_waits_for_the_children_of_its_killed_predecessor(
    python: Start,
) -> None:
    """Two servers on the same data would destroy it."""
    process = python(_FORKS)
    process.start()
    _until(lambda: process.log.read_text().count("up") == 2)
    process.kill()
    with pytest.raises(CannotStart, match="an earlier process of it is still running"):
        process.spawn(wait_s=0.1)
    [orphan] = {int(pid) for pid in re.findall(r"\d+", process.log.read_text())} - {process.pid}
    os.kill(orphan, signal.SIGKILL)
    process.start()
    assert process.running


def test_leftover_of_a_killed_run_is_stopped(tmp_path: Path) -> None:
    """A supervisor killed by -9 leaves children behind; the next run ends them."""
    _leave_behind(_SLEEP, tmp_path)
    assert stop_leftover("child", tmp_path, stop_signal=signal.SIGTERM)
    assert not stop_leftover("child", tmp_path, stop_signal=signal.SIGTERM)


def test_leftover_that_ignores_its_stop_signal_is_killed(tmp_path: Path) -> None:
    """The next run starts whatever the state of the last one."""
    _leave_behind(_IGNORES_SIGTERM, tmp_path)
    assert stop_leftover("child", tmp_path, stop_signal=signal.SIGTERM, grace_s=0.2)


def test_stranger_with_the_number_of_a_former_process_is_left_alone(
    python: Start, tmp_path: Path
) -> None:
    """After a restart of the machine the number may be anyone's."""
    stranger = python(_SLEEP, name="stranger")
    stranger.start()
    (tmp_path / "child.pid").write_text(f"{stranger.pid}\n")
    assert not stop_leftover("child", tmp_path, stop_signal=signal.SIGKILL)
    assert stranger.running


def test_nothing_is_left_over_where_nothing_ever_ran(tmp_path: Path) -> None:
    """A first run finds nothing to stop."""
    assert not stop_leftover("child", tmp_path, stop_signal=signal.SIGTERM)


def test_failed_command_is_reported_with_what_it_said() -> None:
    """Its code and its words are the message."""
    with pytest.raises(CannotStart, match=r"failed with 3:\nsaid why"):
        run_to_end(
            [sys.executable, "-c", "print('said why'); raise SystemExit(3)"], env=dict(os.environ)
        )


def test_command_that_cannot_be_run_is_reported(tmp_path: Path) -> None:
    """Whatever is missing is named."""
    with pytest.raises(CannotStart, match=r"missing cannot be run: "):
        run_to_end([tmp_path / "missing"], env={})


def _leave_behind(line: str, folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", _STARTS_A_CHILD_AND_IS_KILLED, str(folder), line], check=False
    )
    _until(lambda: "up" in (folder / "child.log").read_text())


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        time.sleep(0.01)

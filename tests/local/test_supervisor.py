"""What dies is started again, what keeps dying ends the run, and stopping has an order."""

import sys
import time
from pathlib import Path

import pytest

from services.local.processes import CannotStart, Process
from services.local.supervisor import Supervisor

_SAYS_WHEN_STOPPED = """
import signal, sys, time
def stop(*_):
    with open(sys.argv[1], "a") as file: print(sys.argv[2], file=file)
    sys.exit()
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
time.sleep(60)
"""


@pytest.fixture
def said() -> list[str]:
    """What the supervisor told a person."""
    return []


def test_processes_are_stopped_in_the_reverse_order_of_their_start(
    said: list[str], tmp_path: Path
) -> None:
    """Each needs only those before it; one that was never started is passed over."""
    stopped = tmp_path / "stopped"
    names = ["first", "second", "third"]
    processes = [_says_when_stopped(name, stopped) for name in names]
    idle = Process("idle", ["sleep", "60"], folder=tmp_path)
    supervisor = Supervisor([*processes, idle], said.append)
    processes[2].spawn()
    supervisor.start(*processes)
    supervisor.stop()
    assert stopped.read_text().split() == names[::-1]


def test_killed_process_is_started_again_and_that_is_said(said: list[str], tmp_path: Path) -> None:
    """A person sees that it happened and where to look."""
    process = Process("child", ["sleep", "60"], folder=tmp_path)
    supervisor = Supervisor([process], said.append)
    supervisor.start(process)
    process.kill()
    deadline = time.monotonic() + 5
    supervisor.look()
    while len(said) < 3 and time.monotonic() < deadline:
        supervisor.look()
        time.sleep(0.05)
    assert process.running
    assert said[1:] == [
        f"child ended with -9; starting it again in 0.5 s (log: {process.log})",
        "child was started again",
    ]
    supervisor.stop()


def test_crash_loop_ends_the_run_with_the_reason(
    said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starting forever what cannot run would hide the fault."""
    monkeypatch.setattr("services.local.supervisor._FIRST_DELAY_S", 0.01)
    process = Process("child", ["sh", "-c", "sleep 0.05; echo broken"], folder=tmp_path)
    supervisor = Supervisor([process], said.append)
    supervisor.start(process)
    with pytest.raises(CannotStart, match=r"child ended 5 times within 60 s(?s:.*)broken"):
        supervisor.watch()
    assert sum("ended with" in line for line in said) == 4


def test_dispensable_process_that_keeps_dying_is_given_up_and_the_rest_goes_on(
    said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its reason, and without another try."""
    monkeypatch.setattr("services.local.supervisor._FIRST_DELAY_S", 0.01)
    needed = Process("needed", ["sleep", "60"], folder=tmp_path)
    extra = Process("extra", ["sh", "-c", "sleep 0.05; echo broken"], folder=tmp_path)
    supervisor = Supervisor([needed], said.append, dispensable=[extra])
    supervisor.start(needed)
    assert supervisor.try_to_start(extra)
    deadline = time.monotonic() + 10
    while "without extra" not in said[-1] and time.monotonic() < deadline:
        supervisor.look()
        time.sleep(0.01)
    assert "extra ended 5 times within 60 s" in said[-1]
    assert "broken" in said[-1]
    told = len(said)
    supervisor.look()
    assert len(said) == told
    assert needed.running
    supervisor.stop()


def test_dispensable_process_that_does_not_start_is_left(said: list[str], tmp_path: Path) -> None:
    """Whoever starts it is told that it is not there."""
    extra = Process("extra", ["false"], folder=tmp_path, ready=lambda _pid: False)
    supervisor = Supervisor([], said.append, dispensable=[extra])
    assert not supervisor.try_to_start(extra)
    assert said[-1].startswith("extra ended with 1.")
    assert said[-1].endswith("Everything else runs without extra.")
    supervisor.look()
    assert not extra.running


def _says_when_stopped(name: str, stopped: Path) -> Process:
    log = stopped.with_name(f"{name}.log")
    return Process(
        name,
        [sys.executable, "-c", _SAYS_WHEN_STOPPED, stopped, name],
        folder=stopped.parent,
        ready=lambda _pid: "up" in log.read_text(),
    )

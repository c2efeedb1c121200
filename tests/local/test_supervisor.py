"""What ends is started again, however often, and stopping has an order."""

import sys
import time
from pathlib import Path

import pytest

from services.local.processes import CannotStart, Process
from services.local.supervisor import Supervisor
from tests.waiting import until

pytestmark = pytest.mark.system

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
    """What the supervisor reported to a person."""
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


def test_process_that_ended_before_the_others_start_is_the_reason_why_none_does(
    said: list[str], tmp_path: Path
) -> None:
    """It is not started once more, either."""
    failed = Process("failed", ["sh", "-c", "echo broken; exit 3"], folder=tmp_path)
    other = Process("other", ["sleep", "60"], folder=tmp_path)
    failed.spawn()
    until(lambda: not failed.running)
    with pytest.raises(CannotStart, match=r"^failed ended with 3\."):
        Supervisor([other, failed], said.append).start(other, failed)
    assert not other.running
    assert failed.log.read_text() == "broken\n"
    assert said == []


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


def test_process_that_keeps_ending_is_started_again_after_growing_pauses(
    said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the longest one; nothing else is stopped for it, and each start is reported."""
    monkeypatch.setattr("services.local.supervisor._FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("services.local.supervisor._LONGEST_PAUSE_S", 0.1)
    server = Process("server", ["sleep", "60"], folder=tmp_path)
    service = Process("service", ["sh", "-c", "exit 3"], folder=tmp_path)
    supervisor = Supervisor([server, service], said.append)
    server.spawn()
    service.spawn()
    deadline = time.monotonic() + 10
    while len(said) < 14 and time.monotonic() < deadline:
        supervisor.look()
        time.sleep(0.005)
    assert said[::2][:7] == [
        f"service ended with 3; starting it again in {pause_s:g} s (log: {service.log})"
        for pause_s in (0.01, 0.02, 0.04, 0.08, 0.1, 0.1, 0.1)
    ]
    assert set(said[1::2]) == {"service was started again"}
    assert server.running
    supervisor.stop()


def test_process_that_ran_for_long_is_started_again_soon(
    said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends once a day does not wait longer each day."""
    monkeypatch.setattr("services.local.supervisor._FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("services.local.supervisor._STABLE_S", 0.0)
    process = Process("child", ["true"], folder=tmp_path)
    supervisor = Supervisor([process], said.append)
    process.spawn()
    deadline = time.monotonic() + 10
    while len(said) < 6 and time.monotonic() < deadline:
        supervisor.look()
        time.sleep(0.005)
    assert all("again in 0.01 s" in line for line in said[:6:2])
    supervisor.stop()


def test_process_that_cannot_be_spawned_is_tried_again(said: list[str], tmp_path: Path) -> None:
    """A program that is replaced during the run is missing for a moment."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    process = Process("child", [program], folder=tmp_path)
    supervisor = Supervisor([process], said.append)
    process.spawn()
    process.kill()
    gone = program.rename(tmp_path / "gone")
    deadline = time.monotonic() + 10
    while len(said) < 2 and time.monotonic() < deadline:
        supervisor.look()
        time.sleep(0.05)
    assert "child cannot be started" in said[1]
    assert "starting it again in 1 s" in said[1]
    gone.rename(program)
    while not process.running and time.monotonic() < deadline:
        supervisor.look()
        time.sleep(0.05)
    assert process.running
    supervisor.stop()


def test_optional_process_that_does_not_start_is_left(said: list[str], tmp_path: Path) -> None:
    """With its reason, and without another try."""
    extra = Process("extra", ["false"], folder=tmp_path, ready=lambda _pid: False)
    supervisor = Supervisor([extra], said.append)
    assert not supervisor.start_optional(extra)
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

"""``python -m services.local``, the program behind ``make run``, as a person uses it."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import pytest

from services.local.processes import Process
from services.local.servers import Server
from services.scoring.manifest import BUNDLE_ROOT, read_current_version
from tests.harness import HOST, free_port, measured_alone, measuring
from tests.waiting import until

pytestmark = pytest.mark.system

_COMMAND = [sys.executable, "-m", "services.local"]
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Run:
    """A run in a folder of its own, not started."""

    process: Process
    env: dict[str, str]
    data: Path

    @property
    def said(self) -> str:
        """What it printed since its last start."""
        return self.process.log.read_text()

    @property
    def history_url(self) -> str:
        """Where its history service listens."""
        return f"http://{HOST}:{self.env['HISTORY_PORT']}"

    def start(self) -> None:
        """Start it and wait until it says that everything runs."""
        self.process.log.unlink(missing_ok=True)
        self.process.start(_TIMEOUT_S)

    def refuse(self) -> str:
        """Run it to its end, which must come by itself, and return its complaint."""
        done = subprocess.run(
            _COMMAND, env=self.env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        assert done.returncode == 1
        return done.stderr


@pytest.fixture
def run(server_data: Path) -> Iterator[Run]:
    """A run on embedded servers and free ports, stopped at the test's end."""
    made = _run_in(server_data)
    yield made
    made.process.send(signal.SIGCONT)
    made.process.stop(_TIMEOUT_S)
    print(made.said if made.process.log.exists() else "never started")


@pytest.fixture(scope="module")
def started(server_folder: Path) -> Iterator[Run]:
    """A run that has started, for the tests that leave it running or start it again."""
    folder = server_folder / "started"
    folder.mkdir(mode=0o711)
    made = _run_in(folder)
    made.start()
    yield made
    made.process.stop(_TIMEOUT_S)
    print(made.said)


def _run_in(folder: Path, *, measured: bool = False, **extra: str) -> Run:
    env = {
        key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "REDIS_URL")
    }
    env |= {
        "LOCAL_DATA": str(folder / "data"),
        "INFERENCE_PORT": str(free_port()),
        "HISTORY_PORT": str(free_port()),
        "DASHBOARD_PORT": str(free_port()),
        "METRICS_PORT": str(free_port()),
        "BATCH_PORT": str(free_port()),
        "BATCH_METRICS_PORT": str(free_port()),
        **extra,
    }
    log = folder / "run.log"
    process = Process(
        "run",
        measured_alone("services.local") if measured else _COMMAND,
        folder=folder,
        env=env | measuring() if measured else env,
        ready=lambda _pid: "Ctrl-C stops everything" in log.read_text(),
        stop_signal=signal.SIGINT,
    )
    return Run(process, env, folder / "data")


def test_decision_by_the_printed_command_is_kept_for_the_next_run(started: Run) -> None:
    """After Ctrl-C, and after a kill, whose leftovers would keep the data to themselves."""
    before = _history(started)
    decision = _paste_curl(started.said)
    assert decision["prediction"] in ("Approved", "Rejected")
    kept = [decision["prediction_id"], *before]
    _until(lambda: _history(started) == kept)
    _until(lambda: _paste_curl(started.said, "/statistics")["total_predictions"] == len(kept))

    started.process.stop(_TIMEOUT_S)
    assert started.process.exit_code == 0
    assert "Stopped; the data stays." in started.said
    assert _all_closed(started)
    assert _verify_audit(started)[0] == 1

    started.start()
    assert "which a former run had left behind" not in started.said
    assert _history(started) == kept

    started.process.kill()
    assert httpx.get(f"{started.history_url}/readyz").status_code == 200
    started.start()
    for name in ("dashboard", "inference", "consumer", "history", "redis", "postgres"):
        assert f"stopped {name}, which a former run had left behind" in started.said
    assert _history(started) == kept


def test_audit_log_of_the_running_system_is_verified_without_a_setting(
    run: Run, started: Run
) -> None:
    """The command behind make verify-audit finds the embedded database, or says that none runs."""
    code, said = _verify_audit(run)
    assert code == 1
    assert re.fullmatch(
        r"No database can be reached: nothing runs in .*\. Start `make run`, .*\n", said
    )
    key = (started.data / "api-key").read_text().strip()
    erase = f"{started.history_url}/history?loan_id=LP1"
    erased = httpx.delete(erase, headers={"x-api-key": key}).json()
    noted = f"{erased['audit']['id']}:{erased['audit']['hash']}"
    code, said = _verify_audit(started)
    assert (code, said.split()[-1]) == (0, noted)
    assert _verify_audit(started, noted)[0] == 0
    assert _verify_audit(started, f"1:{'0' * 64}")[0] == 1


def _verify_audit(run: Run, *noted: str) -> tuple[int, str]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "services.local.with_local_database",
            "services.history.audit",
            *noted,
        ],
        env=run.env,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_dashboard_is_the_first_address_and_shows_what_was_decided(started: Run) -> None:
    """Without signing in on this machine; its key is its own and is not printed."""
    url = f"http://{HOST}:{started.env['DASHBOARD_PORT']}"
    printed = started.said.partition("Running after")[2]
    assert re.findall(r"http://\S+", printed)[0] == url
    page = httpx.get(f"{url}/statistics")
    assert page.status_code == 200
    assert "Statistics" in page.text
    health = httpx.get(f"{url}/health").json()
    assert {check["status"] for check in health["checks"].values()} == {"up"}


def test_dashboard_that_fails_takes_nothing_else_down_nor_does_a_run_its_given_servers(
    server_data: Path, database_url: str, redis_url: str, redis_server: Server
) -> None:
    """The reason is said, and decisions go on; given servers replace the embedded ones."""
    broken = server_data / "broken"
    broken.mkdir()
    (broken / "nicegui.py").write_text("raise ImportError('nicegui is broken')")
    run = _run_in(
        server_data,
        measured=True,
        PYTHONPATH=str(broken),
        DATABASE_URL=database_url,
        REDIS_URL=redis_url,
    )
    try:
        run.start()
        assert "dashboard ended with 1." in run.said
        assert "nicegui is broken" in run.said
        assert "Everything else runs without dashboard." in run.said
        assert _paste_curl(run.said)["success"]
    finally:
        run.process.stop(_TIMEOUT_S)
    assert sorted(path.name for path in run.data.iterdir()) == ["api-key", "lock", "logs"]
    assert redis_server.process.is_ready()


def test_second_run_says_that_one_is_running_and_disturbs_nothing(started: Run) -> None:
    """One sentence, and the first run goes on."""
    complaint = started.refuse()
    assert re.fullmatch(r"loan-predictor is running already \(process \d+, .*\n", complaint)
    assert httpx.get(f"{started.history_url}/readyz").status_code == 200


def test_taken_port_is_one_sentence_and_nothing_is_started(run: Run) -> None:
    """It names the port and the variable that changes it."""
    port = int(run.env["INFERENCE_PORT"])
    with socket.create_server((HOST, port)):
        complaint = run.refuse()
    assert complaint.startswith(f"Port {port} on {HOST} is taken: ")
    assert "INFERENCE_PORT" in complaint
    assert [path.name for path in run.data.iterdir()] == ["lock"]


def test_setting_without_sense_is_named(run: Run) -> None:
    """No traceback for a slip of the keyboard."""
    run.env["HISTORY_PORT"] = "eight"
    assert run.refuse().startswith("HISTORY_PORT: must be a whole number")


def test_consumer_that_keeps_ending_is_started_again_and_stops_nothing_else(started: Run) -> None:
    """After growing pauses; a decision made meanwhile is recorded after all."""
    logs = started.data / "logs"
    servers = [(logs / f"{name}.pid").read_text() for name in ("postgres", "redis")]
    for pause_s in ("0.5", "1", "2", "4"):
        _kill_consumer(started, pause_s)
        _until_recorded(started, _paste_curl(started.said))
    _kill_consumer(started, "8")
    assert _paste_curl(started.said)["success"]
    assert servers == [(logs / f"{name}.pid").read_text() for name in ("postgres", "redis")]
    assert started.process.running


def _kill_consumer(run: Run, pause_s: str) -> None:
    file = run.data / "logs" / "consumer.pid"
    _until(lambda: file.read_text() != "")  # it is empty for a moment while a process starts
    os.kill(int(file.read_text()), signal.SIGKILL)
    line = f"consumer ended with -9; starting it again in {pause_s} s"
    _until(lambda: line in run.said)


def _until_recorded(run: Run, decision: dict[str, object]) -> None:
    _until(lambda: decision["prediction_id"] in _history(run))


def test_service_that_cannot_start_ends_the_run_with_its_reason(run: Run, tmp_path: Path) -> None:
    """Everything that had been started is stopped again."""
    root = Path(copytree(BUNDLE_ROOT, tmp_path / "bundle"))
    [model, *_] = root.glob(f"{read_current_version(root)}/*.onnx")
    model.write_bytes(b"altered")
    run.env["BUNDLE_ROOT"] = str(root)
    complaint = run.refuse()
    assert complaint.startswith("inference ended with 1.")
    assert f"{model.name} is altered" in complaint
    assert _all_closed(run)


def _paste_curl(said: str, path: str = "/predict") -> Any:
    """Do what the printed command for ``path`` does, and return the answer's body."""
    [line] = re.findall(rf"^  curl -s (\S+{path} .*)$", said, flags=re.MULTILINE)
    url, *options = shlex.split(line)
    given = list(zip(options[::2], options[1::2], strict=True))
    # curl names the body of -d a form without a content type, and a form is refused.
    headers = {"Content-Type": "application/x-www-form-urlencoded"} | dict(
        value.split(": ") for option, value in given if option == "-H"
    )
    body = dict(given).get("-d")
    assert {option for option, _ in given} <= {"-H", "-d"}
    answer = httpx.request(
        "GET" if body is None else "POST", url, headers=headers, content=body, timeout=20
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def _history(run: Run) -> list[str]:
    return [record["prediction_id"] for record in _paste_curl(run.said, "/history")["items"]]


def _all_closed(run: Run) -> bool:
    """Whether nothing listens any more where its services did."""
    for variable in (
        *("INFERENCE_PORT", "HISTORY_PORT", "DASHBOARD_PORT", "METRICS_PORT"),
        *("BATCH_PORT", "BATCH_METRICS_PORT"),
    ):
        with socket.socket() as connection:
            if connection.connect_ex((HOST, int(run.env[variable]))) == 0:
                return False
    return True


def _until(condition: Callable[[], bool]) -> None:
    until(condition, timeout_s=_TIMEOUT_S, poll_s=0.1)

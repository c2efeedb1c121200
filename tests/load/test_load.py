"""The load tools on a small real run, and the proof that nothing acknowledged is lost."""

import asyncio
import json
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from services.local import servers
from tests.harness import System, free_port
from tests.load import ladder, load, sender
from tests.load.proof import compare, describe, prove
from tests.load.results import Results
from tests.load.schedule import Schedule
from tests.load.sender import NEVER_SENT, Plan
from tests.serving import served

_ROOT = Path(__file__).parents[2]


def test_acknowledged_and_stored_once_is_proved() -> None:
    """Decisions that this run did not make are harmless."""
    proof = compare(["a", "b"], ["b", "c", "a"])
    assert proof.holds
    assert describe(proof) == ("PROVED: 2 acknowledged, 3 stored meanwhile, 0 missing, 0 doubled")


def test_missing_and_doubled_decisions_are_named() -> None:
    """A decision may be missing, stored twice, or acknowledged to two requests."""
    proof = compare(["a", "b", "c", "c"], ["a", "a", "c"])
    assert not proof.holds
    assert (proof.missing, proof.doubled) == (("b",), ("a", "c"))
    assert "missing b" in describe(proof)


@pytest.fixture
def local_run(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """The system, as if `make run` had started it with settings of its own.

    The tool's own ceiling is measured for a moment only: it takes all processors.
    """
    monkeypatch.setattr(sender, "_CEILING_S", 0.5)
    for name, url in (("INFERENCE", system.inference_url), ("HISTORY", system.history_url)):
        monkeypatch.setenv(f"{name}_PORT", url.rpartition(":")[2])
    monkeypatch.setenv("LOCAL_DATA", str(tmp_path))
    (tmp_path / "api-key").write_text(system.api_key + "\n")
    return system


def test_run_is_proved_against_the_history_and_a_removed_record_is_missed(
    local_run: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped processes make 200 decisions, found by the ports and the key of `make run`.

    Then one record is deleted.
    """
    system = local_run
    assert load.main(["--rate", "50", "--seconds", "4", "--prove"]) == 0
    printed = capsys.readouterr().out
    assert "own ceiling" in printed
    assert "PROVED: 200 acknowledged, 200 stored meanwhile, 0 missing, 0 doubled" in printed
    (kept,) = (tmp_path / "load").glob("*.json")
    outcome = json.loads(kept.read_text())
    assert outcome["summary"]["answered"] == outcome["proof"]["acknowledged"] == 200
    assert kept.with_suffix(".svg").read_text().startswith("<?xml")

    page = httpx.get(
        f"{system.history_url}/history",
        params={"limit": 2},
        headers={"x-api-key": system.api_key},
        timeout=30,
    )
    lost, stored = (record["prediction_id"] for record in page.json()["items"])
    database_url = system.environment["DATABASE_URL"]
    servers.run_sql(database_url, f"DELETE FROM predictions WHERE id = '{lost}'")  # noqa: S608 - an id
    found = prove(
        [lost, stored],
        history_url=system.history_url,
        key=system.api_key,
        since=datetime.now(UTC) - timedelta(hours=1),
        drained_within_s=30,
    )
    assert (found.acknowledged, found.stored) == (2, 199)
    assert (found.missing, found.doubled) == ((lost,), ())


@pytest.mark.parametrize("tool", [load, ladder])
def test_what_does_not_answer_as_this_product_is_not_loaded(
    tool: ModuleType, local_run: System, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another service, an address where nothing listens, or one that refuses the key."""
    nothing = f"http://127.0.0.1:{free_port()}"
    for arguments, reason in (
        (["--url", local_run.history_url], "is this product's history, not its inference"),
        (["--url", nothing], f"{nothing} does not answer as this product"),
        (["--key", "lp_unknown"], "does not answer as this product: Send a valid API key"),
    ):
        assert tool.main(arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert reason in printed.err
    page = httpx.get(f"{local_run.history_url}/history", headers={"x-api-key": local_run.api_key})
    assert page.json()["items"] == []


@pytest.mark.system
def test_make_passes_rate_seconds_and_proof_on() -> None:
    command = [
        "make",
        "--no-print-directory",
        "--dry-run",
        "load",
        "RATE=200",
        "SECONDS=10",
        "PROVE=1",
    ]
    said = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout
    assert said.rstrip().endswith("-m tests.load.load --rate 200 --seconds 10 --prove")


async def test_errors_are_counted_by_kind_and_every_request_accounted_for() -> None:
    """Refusals are counted by status; none of them is an answer."""
    app = FastAPI()
    answers = iter([200, 503, 429, 503, 200])

    @app.post("/predict")
    async def predict() -> JSONResponse:
        return JSONResponse({"prediction_id": "x"}, status_code=next(answers))

    async with served(app) as client:
        results = await _send(_plan(f"{client.base_url}/predict"), requests=5)
    assert (len(results.samples), results.ids) == (2, ["x", "x"])
    assert results.errors == {"status 503": 2, "status 429": 1}


async def test_unreachable_service_is_an_error_by_name() -> None:
    """Nothing is answered, and nothing hangs."""
    results = await _send(_plan(f"http://127.0.0.1:{free_port()}/predict"), requests=3)
    assert results.errors == {"ConnectError": 3}


async def test_stalled_service_keeps_the_open_requests_bounded_and_the_rest_unsent() -> None:
    """One request holds the only slot past the end of the schedule: the others are never sent."""
    app = FastAPI()
    asked = []
    release = asyncio.Event()

    @app.post("/predict")
    async def predict() -> dict[str, str]:
        asked.append(1)
        await release.wait()
        return {"prediction_id": "x"}

    async with served(app) as client:
        plan = _plan(f"{client.base_url}/predict", in_flight=1, overrun_s=0)
        running = asyncio.create_task(_send(plan, requests=5))
        await asyncio.sleep(0.8)
        release.set()
        results = await running
    assert len(asked) == len(results.samples) == 1
    assert results.errors == {NEVER_SENT: 4}


@pytest.mark.usefixtures("local_run")
def test_ladder_names_the_last_rate_that_held(capsys: pytest.CaptureFixture[str]) -> None:
    """On the shipped processes, with a step that no machine climbs twice."""
    arguments = ["--start", "5", "--step", "40000", "--seconds", "4", "--processes", "1"]
    assert ladder.main([*arguments, "--p99-ms", "30000"]) == 0
    assert "The knee is at 5 requests a second." in capsys.readouterr().out


def _plan(
    url: str,
    *,
    key: str | None = None,
    processes: int = 1,
    in_flight: int = 16,
    overrun_s: float = 30.0,
) -> Plan:
    return Plan(
        url=url,
        key=key,
        processes=processes,
        in_flight=in_flight,
        overrun_s=overrun_s,
        wants_ids=True,
        seed=1,
    )


async def _send(plan: Plan, *, requests: int) -> Results:
    """Send ``requests`` within half a second from this process."""
    found = Results()

    def schedule() -> Schedule:
        return Schedule(time.monotonic(), rate=requests / 0.5, duration_s=0.5)

    await sender.send(plan, schedule, process=0, report=found.add)
    return found

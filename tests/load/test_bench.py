"""The benchmark tools: what they parse, compare, fill and print."""

import asyncio
import json
import shutil
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import cast

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter
from redis import Redis
from sqlalchemy import func, select

from services.history.database import open_engine
from services.history.settings import HistorySettings
from services.history.tables import predictions
from services.inference.main import create_app as create_inference_app
from services.local.servers import Server
from services.scoring.reasons import refusal_reasons
from shared.contract.application import EXAMPLE
from shared.contract.events import STREAM, Decision
from tests.batch.files import applications, as_csv
from tests.history.storage import assert_rollups_equal_a_recount
from tests.load import (
    baselines,
    batch_benchmarks,
    bench,
    consumer_benchmarks,
    filling,
    history_benchmarks,
    observation_benchmarks,
    report,
    scoring_benchmarks,
    stack,
    system_benchmarks,
    wrk,
)
from tests.load.decision_benchmarks import applications_to
from tests.load.measurement import Measurement, at_least, at_most, measured, ratio
from tests.load.stack import Bench
from tests.load.wrk import NotMeasured, parse
from tests.prometheus import Exposition
from tests.serving import served

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed here")

_REPORT = {
    "requests": 5000,
    "duration_us": 2_000_000,
    "p50_us": 1500,
    "p99_us": 4000,
    "errors": {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0},
}


def _output(**changes: object) -> str:
    return f"Running 2s test @ http://host\n  1 threads\n{json.dumps(_REPORT | changes)}\n"


def test_wrk_output_is_parsed() -> None:
    """The rate is that of the requests over the real duration."""
    found = parse(_output(), what="a route")
    assert (found.rate, found.p50_s, found.p99_s) == (2500.0, 0.0015, 0.004)


@pytest.mark.parametrize("kind", ["connect", "read", "write", "status", "timeout"])
def test_one_failed_request_fails_the_run(kind: str) -> None:
    """Fast refusals must never pass for fast answers."""
    errors = _REPORT["errors"] | {kind: 1}  # type: ignore[operator]  # it is a dict
    with pytest.raises(NotMeasured, match=f"1 {kind} errors"):
        parse(_output(errors=errors), what="a route")


def test_run_without_a_report_or_an_answer_is_not_measured() -> None:
    """Neither output without the report nor a report of nothing counts."""
    for output in ("unable to connect", _output(requests=0)):
        with pytest.raises(NotMeasured, match="a route"):
            parse(output, what="a route")


@pytest.mark.system
@needs_wrk
def test_wrk_sends_the_given_bodies_and_counts_refusals(tmp_path: Path) -> None:
    """A real run on the limit route; a body that it refuses fails the run, or stops its start."""
    good, bad = json.dumps(EXAMPLE), '{"ApplicantIncome": "none"}'
    with stack.baseline("limit", tmp_path) as serving:

        def target(*bodies: str) -> wrk.Target:
            headers = {"Content-Type": "application/json"}
            return wrk.target(tmp_path, serving.url, "/predict", headers=headers, bodies=bodies)

        assert target(good, good).run(connections=2, seconds=1).requests > 0
        with pytest.raises(NotMeasured, match="status errors"):
            target(good, bad).run(connections=2, seconds=1)
        with pytest.raises(NotMeasured, match="answers 422"):
            target(bad)


def test_missing_wrk_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what is missing and how to install it, and starts nothing."""
    monkeypatch.setenv("PATH", "")
    assert bench.main(["tutorial"]) == 2
    assert capsys.readouterr().err.strip() == wrk.NOT_INSTALLED


def test_unknown_benchmark_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is started."""
    with pytest.raises(SystemExit):
        bench.main(["speed"])
    assert "tutorial" in capsys.readouterr().err


@pytest.mark.parametrize("create", [baselines.create_limit_app, baselines.create_tutorial_app])
async def test_baselines_answer_the_products_decision(create: type[FastAPI]) -> None:
    """Same body, same answer: only then is the comparison fair."""
    transport = httpx.ASGITransport(app=create())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/predict", json=EXAMPLE)
        decision = TypeAdapter(Decision).validate_json(answer.content)
        refused = await client.post("/predict", json={"ApplicantIncome": -1})
    assert decision.input_data.Loan_ID == EXAMPLE["Loan_ID"]
    assert refused.status_code == 422


@pytest.mark.parametrize("create", [baselines.create_insert_app, baselines.create_background_app])
async def test_storing_baselines_answer_the_decision_and_insert_it(
    create: Callable[[], FastAPI], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether before or after the answer: the transport ends when both are done."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    async with served(create()) as client:
        answer = await client.post("/predict", json=EXAMPLE)
    decision = TypeAdapter(Decision).validate_json(answer.content)
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT id, prediction FROM decisions")
    await connection.close()
    assert [tuple(row) for row in rows] == [(decision.prediction_id, decision.prediction)]


@pytest.mark.system
@needs_wrk
async def test_whole_system_is_loaded_until_all_is_stored(
    postgres_server: Server, redis_server: Server, redis_url: str, tmp_path: Path
) -> None:
    """Each of its processes is known by name, and what is answered becomes a visible row."""
    assert redis_url == redis_server.url
    small = Bench(folder=tmp_path, postgres=postgres_server, redis=redis_server)
    with (
        stack.whole_system(small, database="loaded") as system,
        Redis.from_url(redis_url) as redis,
    ):
        assert {"consumer", "history", "inference", "postgres", "redis"} <= system.pids.keys()
        target = applications_to(small, system.inference_url, "/predict")
        contender = system_benchmarks.Contender(
            target, system.pids, lambda: redis.xlen(STREAM) == 0
        )
        loaded = await asyncio.to_thread(system_benchmarks.load, small, contender, connections=2)
        delays = await system_benchmarks.visible_after_ms(small, system, target)
    assert loaded.run.requests > 0
    assert min(loaded.us["inference"], loaded.us["consumer"]) > 0
    assert len(delays) > 1


def test_growth_is_from_the_second_minute_to_the_last() -> None:
    """The first minute is for starting; a spike within a minute does not count."""
    sizes = {10: 1, 60: 100, 90: 100, 100: 900, 200: 500, 250: 103, 290: 103, 300: 900}
    seen = [(float(at_s), {"inference": size}) for at_s, size in sizes.items()]
    assert system_benchmarks.growth(seen)["inference"] == pytest.approx(3)
    with pytest.raises(NotMeasured, match="two minutes"):
        system_benchmarks.growth(seen[:1])


async def test_empty_baseline_reads_and_writes() -> None:
    """Both routes answer."""
    transport = httpx.ASGITransport(app=baselines.create_empty_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/")).status_code == (await client.post("/")).status_code == 200


async def test_unobserved_service_decides_but_logs_and_counts_nothing(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answer: only then is the difference the cost of observing."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("ALLOW_ANONYMOUS", "true")
    # Not pytest's capture, which is closed while the log still writes to it.
    log = StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    async with served(observation_benchmarks.create_unobserved_app()) as client:
        answer = await client.post("/predict", json=EXAMPLE)
        exposed = Exposition((await client.get("/metrics")).text)
    assert TypeAdapter(Decision).validate_json(answer.content).success
    assert "http_request_duration_seconds" not in exposed.names
    assert exposed.sum_of("decisions_total") == exposed.sum_of("decision_stage_seconds_count") == 0
    assert "/predict" not in log.getvalue()
    async with served(create_inference_app()) as client:
        await client.post("/predict", json=EXAMPLE)
        exposed = Exposition((await client.get("/metrics")).text)
    assert exposed.sum_of("http_request_duration_seconds_count") == 1
    assert exposed.sum_of("decisions_total") == 1
    assert "/predict" in log.getvalue()


async def test_filled_history_has_distinct_rows_and_the_rollups_of_a_recount(
    database_url: str,
) -> None:
    """More rows than the sample has, so that a mere copy would show as duplicates."""
    rows = 3_000
    await filling.fill(database_url, rows=rows)
    settings = HistorySettings(database_url=database_url)
    engine = open_engine(settings, name="test", pool_size=1)
    async with engine.connect() as connection:
        columns = predictions.c
        counted = await connection.execute(
            select(
                func.count(),
                func.count(columns.loan_id.distinct()) - func.count(columns.loan_id),
                func.count(columns.decided_at.distinct()),
            )
        )
    assert counted.one() == (rows, 0, rows)
    await assert_rollups_equal_a_recount(engine)
    await engine.dispose()
    assert await history_benchmarks.decided_again(database_url, rows=rows) > 0


def test_events_are_drained(
    postgres_server: Server, redis_server: Server, redis_url: str, tmp_path: Path
) -> None:
    """The shipped consumer stores all of them; how fast does not matter here."""
    assert redis_url == redis_server.url
    small = Bench(folder=tmp_path, events=1000, postgres=postgres_server, redis=redis_server)
    small.create_database(consumer_benchmarks.DRAINED)
    events = consumer_benchmarks.real_events(small.events)
    assert consumer_benchmarks.drain_rate(small, events, consumers=1) > 0


@pytest.mark.system
def test_batch_is_stored_and_each_process_known(
    postgres_server: Server, redis_server: Server, redis_url: str, tmp_path: Path
) -> None:
    """The shipped service, worker and consumer store every row of a file."""
    assert redis_url == redis_server.url
    small = Bench(folder=tmp_path, postgres=postgres_server, redis=redis_server)
    small.create_database(batch_benchmarks.STORED)
    found = batch_benchmarks.stored(small, as_csv(applications(500)), rows=500)
    assert found.rate > 0
    assert min(found.us["worker"], found.us["consumer"]) > 0


@pytest.mark.system
def test_scoring_is_measured_by_model_and_as_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion, every model that has no scorecard, and the command's rate and memory."""
    monkeypatch.setattr(scoring_benchmarks, "_WORKERS", 1)
    monkeypatch.setattr(scoring_benchmarks, "BATCH_ROWS", 8192)
    unused = cast("Server", None)
    found = scoring_benchmarks.scoring(Bench(tmp_path, unused, unused, seconds=0.01, rows=1))
    assert len(found) > 3
    assert all(measurement.median > 0 for measurement in found)


def test_ratio_is_taken_round_by_round() -> None:
    """A round in which everything is slow changes nothing."""
    found = ratio("r", [50, 5, 60], [100, 10, 100], bound=at_least(0.5), detail="")
    assert (found.median, found.lowest, found.highest) == (0.5, 0.5, 0.6)
    assert found.met


def _measurements() -> list[Measurement]:
    return [
        measured("kept", [1.0, 2.0, 3.0], unit="x", bound=at_least(2), detail="a"),
        measured("missed", [131.0], unit="MiB", bound=at_most(130), detail="b"),
        measured("reported", [432.1], unit="bytes", bound=None, detail="c"),
    ]


def test_table_shows_each_measurement_its_bound_and_whether_it_is_met() -> None:
    """It shows the spread where there is one."""
    lines = report.summary(_measurements()).splitlines()[2:]
    assert [line.split() for line in lines] == [
        ["kept", "2x", "(1-3)", "≥", "2x", "yes"],
        ["missed", "131", "MiB", "≤", "130", "MiB", "NO"],
        ["reported", "432", "bytes", "report"],
    ]
    assert [found.name for found in report.missed(_measurements())] == ["missed"]


def test_section_is_replaced_and_the_rest_of_the_document_stays(tmp_path: Path) -> None:
    """Writing twice gives the same document as writing once."""
    document = tmp_path / "performance.md"
    begin, end = report.markers(report.MADE_BY)
    document.write_text(f"# Before\n{begin}\nold\n{end}\nafter\n")
    measured_under = report.conditions("3 rounds")
    report.write_section(document, _measurements(), measured_under)
    once = document.read_text()
    report.write_section(document, _measurements(), measured_under)
    assert document.read_text() == once
    assert once.startswith(f"# Before\n{begin}\nMeasured")
    assert once.endswith(f"{end}\nafter\n")
    assert "| missed | 131 MiB | ≤ 130 MiB | NO | b |" in once
    assert "old" not in once


def test_document_without_the_section_is_refused(tmp_path: Path) -> None:
    """Neither the table nor the document is lost."""
    document = tmp_path / "other.md"
    document.write_text("# Other\n")
    with pytest.raises(ValueError, match="no section"):
        report.write_section(document, _measurements(), report.conditions("3 rounds"))
    assert document.read_text() == "# Other\n"


def test_json_keeps_measurements_and_conditions(tmp_path: Path) -> None:
    """Programs can follow the measurements over time."""
    path = tmp_path / "new" / "bench.json"
    report.write_json(path, _measurements(), report.conditions("3 rounds"))
    kept = json.loads(path.read_text())
    assert [(found["name"], found["met"]) for found in kept["measurements"]] == [
        ("kept", True),
        ("missed", False),
        ("reported", None),
    ]
    assert kept["conditions"]["cores"] > 0


async def test_service_without_reasons_decides_all_the_same(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answer but for the reasons: only then is the difference their cost."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("ALLOW_ANONYMOUS", "true")
    # So that the end of the test puts it back.
    monkeypatch.setattr("services.scoring.engine.refusal_reasons", refusal_reasons)
    refused = EXAMPLE | {"Credit_History": 0}
    answers = []
    for create_app in (create_inference_app, observation_benchmarks.create_app_without_reasons):
        async with served(create_app()) as client:
            answers.append((await client.post("/predict", json=refused)).json())
    shipped, without = answers
    assert shipped["prediction"] == without["prediction"] == "Rejected"
    assert shipped["reasons"]
    assert without["reasons"] is None

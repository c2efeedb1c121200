"""Outcomes: each report is recorded once, a later one supersedes, and both stay visible."""

import asyncio
import csv
import io
import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import event as observing
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import audit
from services.history.main import create_app
from services.history.outcomes.intake import MAX_OF_LOAN, digest_of
from services.history.outcomes.rollups import OutcomeChange, add_up
from services.history.queries import read_page
from services.history.schemas import Filters
from services.history.settings import HistorySettings
from services.history.tables import predictions
from services.training.recorded import Recorded, export_lines, read_recorded
from shared.access.api_keys import mint_key, parse_keys
from shared.contract.events import PredictionRecorded
from shared.contract.outcomes import OUTCOME_KINDS
from tests import keys
from tests.history.events import derived_id, path_of, random_event, random_events, with_loan_id
from tests.history.storage import rows_of, store_all
from tests.serving import served

DECIDED = datetime(2026, 1, 20, 12, tzinfo=UTC)
NDJSON = {"content-type": "application/x-ndjson"}
CSV = {"content-type": "text/csv"}


def report(event: PredictionRecorded, outcome: str = "repaid", **members: Any) -> dict[str, Any]:
    """A report about the decision of ``event``, a month after it."""
    observed_at = event.decision.timestamp + timedelta(days=31)
    return {
        "prediction_id": str(event.decision.prediction_id),
        "outcome": outcome,
        "observed_at": observed_at.isoformat(),
    } | members


async def post(client: httpx.AsyncClient, content: Any) -> dict[str, Any]:
    """The receipt of reports sent as JSON."""
    answer = await client.post("/outcomes", json=content)
    assert answer.status_code == 200, answer.text
    receipt: dict[str, Any] = answer.json()
    return receipt


def counts(receipt: dict[str, Any]) -> tuple[int, int, int, int]:
    """What became of the reports."""
    accepted, unchanged, superseded, faulty = (
        receipt[name] for name in ("accepted", "unchanged", "superseded", "faulty")
    )
    return accepted, unchanged, superseded, faulty


def decided_events(count: int, *, seed: int) -> list[PredictionRecorded]:
    """Events of decisions in four months of the past year."""
    rng = random.Random(seed)  # noqa: S311 - test data, not a secret
    return [
        random_event(rng, decided_at=DECIDED + timedelta(days=rng.uniform(0, 110)))
        for _ in range(count)
    ]


async def assert_outcome_rollups_equal_a_recount(engine: AsyncEngine) -> None:
    """Every count is what counting the current outcomes again gives; none is left over."""
    async with engine.connect() as connection:
        current = await connection.execute(
            text(
                "SELECT p.*, latest.outcome, latest.observed_at FROM predictions p JOIN"
                " (SELECT DISTINCT ON (decision) decision, outcome, observed_at FROM outcomes"
                "  ORDER BY decision, observed_at DESC, id DESC) latest ON latest.decision = p.id"
            )
        )
        recounted = add_up(
            OutcomeChange(row, row.outcome, row.observed_at, sign=1) for row in current.all()
        )
    tables = ("outcome_bins", "outcome_groups", "outcome_vintages")
    for table, expected in zip(tables, recounted, strict=True):
        kept = {
            tuple(values[: -len(counted)]): list(counted)
            for values, counted in (
                (list(row.values()), [row[n] for n in row if n == "outcomes" or "_sum" in n])
                for row in await rows_of(engine, table)
            )
            if any(counted)
        }
        assert kept == dict(expected), table


async def test_outcome_is_shown_with_its_decision(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """In the record, in lists and in both exports; also right after the record was cached."""
    event = events[5]
    assert (await client.get(path_of(event))).json()["outcomes"] == []
    observed_at = datetime.now(UTC).replace(microsecond=0)
    sent = report(
        event,
        "late_90",
        observed_at=observed_at.isoformat(),
        matures_at="2030-01-01",
        source="loans-db",
    )
    receipt = await post(client, sent)
    assert counts(receipt) == (1, 0, 0, 0)

    [shown] = (await client.get(path_of(event))).json()["outcomes"]
    assert shown.pop("recorded_at")
    assert shown == {
        "outcome": "late_90",
        "observed_at": observed_at.isoformat().replace("+00:00", "Z"),
        "matures_at": "2030-01-01T00:00:00Z",
        "source": "loans-db",
    }
    listed = (await client.get("/history?limit=100")).json()["items"]
    exported = (await client.get("/history/export")).text.splitlines()
    for records in (listed, list(map(json.loads, exported))):
        assert {r["prediction_id"]: len(r["outcomes"]) for r in records if r["outcomes"]} == {
            sent["prediction_id"]: 1
        }
    table = csv.DictReader(io.StringIO((await client.get("/history/export?format=csv")).text))
    rows = {row["id"]: row for row in table}
    assert rows[sent["prediction_id"]]["outcome"] == "late_90"
    assert rows[sent["prediction_id"]]["outcome_source"] == "loans-db"
    assert {row["outcome"] for row in rows.values()} == {"late_90", ""}


async def test_same_report_changes_nothing_and_a_later_one_supersedes_visibly(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """The current one was observed last; of two observed at once it was recorded last."""
    [event] = decided_events(1, seed=61)
    await store_all(engine, [event])
    first = report(event, "repaid", observed_at="2026-06-01")
    at_once = first | {"outcome": "default"}
    later = report(event, "late_90", observed_at="2026-07-01")
    earlier = report(event, "late_90", observed_at="2026-05-31")
    for sent, expected, current in (
        (first, (1, 0, 0, 0), "repaid"),
        (first, (0, 1, 0, 0), "repaid"),
        (at_once, (1, 0, 1, 0), "default"),
        (first, (0, 1, 0, 0), "default"),
        (later, (1, 0, 1, 0), "late_90"),
        (earlier, (1, 0, 0, 0), "late_90"),
        ([first, at_once, later, earlier], (0, 4, 0, 0), "late_90"),
    ):
        assert counts(await post(client, sent)) == expected
        assert (await client.get(path_of(event))).json()["outcomes"][0]["outcome"] == current
        await assert_outcome_rollups_equal_a_recount(engine)
    shown = (await client.get(path_of(event))).json()["outcomes"]
    assert [each["outcome"] for each in shown] == ["late_90", "default", "repaid", "late_90"]


async def test_rows_of_outcomes_are_only_ever_added(
    client: httpx.AsyncClient, engine: AsyncEngine, events: list[PredictionRecorded]
) -> None:
    await post(client, report(events[0], observed_at=datetime.now(UTC).isoformat()))
    for statement in ("UPDATE outcomes SET outcome = 'repaid'", "DELETE FROM outcomes"):
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError, match="rows of outcomes are only ever added"):
                await connection.execute(text(statement))


async def test_outcomes_by_loan_are_of_all_its_decisions_or_of_the_latest(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """Which of them has to be said; a decision with an id of its own is found, too."""
    events = [with_loan_id(event, "A-1") for event in decided_events(3, seed=62)]
    events += [
        with_loan_id(event, "A-1")
        for event in random_events(
            1, seed=63, decided_at=DECIDED, prediction_id=derived_id("of a key")
        )
    ]
    await store_all(engine, events)
    by_loan = {"loan_id": "A-1", "outcome": "repaid", "observed_at": "2026-06-01"}
    assert (await client.post("/outcomes", json=by_loan)).status_code == 400
    assert counts(await post(client, by_loan | {"which": "latest"})) == (1, 0, 0, 0)
    latest = max(events, key=lambda event: event.decision.timestamp)
    assert (await client.get(path_of(latest))).json()["outcomes"]
    assert counts(await post(client, by_loan | {"which": "all"})) == (3, 1, 0, 0)
    assert counts(await post(client, report(events[3], observed_at="2026-06-01"))) == (0, 1, 0, 0)
    await assert_outcome_rollups_equal_a_recount(engine)


async def test_loan_of_very_many_decisions_is_a_fault(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """One short report must not become a transaction without a bound."""
    events = random_events(MAX_OF_LOAN + 1, seed=64, timestamp=DECIDED)
    await store_all(engine, [with_loan_id(event, "A-1") for event in events])
    sent = {"loan_id": "A-1", "which": "all", "outcome": "repaid", "observed_at": "2026-06-01"}
    receipt = await post(client, sent)
    assert counts(receipt) == (0, 0, 0, 1)
    assert "by its prediction_id" in receipt["faults"][0]["message"]
    assert counts(await post(client, sent | {"which": "latest"})) == (1, 0, 0, 0)


async def test_decisions_that_a_report_cannot_be_of_are_named_and_all_others_recorded(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """An unknown decision is not swallowed; each fault says where and what."""
    events = decided_events(2, seed=65)
    await store_all(engine, events)
    tomorrow = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    faulty: list[tuple[dict[str, Any], str, str]] = [
        (report(events[0], prediction_id=str(uuid4())), "prediction_id", "no decision"),
        (report(events[0], prediction_id=str(UUID(int=7 << 76 | 1 << 63))), "prediction_id", "no"),
        (report(events[0], observed_at=tomorrow), "observed_at", "future"),
        (report(events[0], observed_at="2025-01-01"), "observed_at", "before"),
    ]
    receipt = await post(client, [report(events[1]), *(sent for sent, _, _ in faulty)])
    assert counts(receipt) == (1, 0, 0, len(faulty))
    found = sorted(receipt["faults"], key=lambda fault: fault["index"])
    assert [fault["index"] for fault in found] == list(range(1, len(faulty) + 1))
    for fault, (sent, name, message) in zip(found, faulty, strict=True):
        assert (fault["field"], fault["line"]) == (name, None), sent
        assert message in fault["message"], sent
    assert len(await rows_of(engine, "outcomes")) == 1


async def test_outcome_that_is_final_before_its_decision_is_refused_by_that_field(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """The day of the decision itself is accepted; so is what is observed later than it is final."""
    [event] = decided_events(1, seed=74)
    await store_all(engine, [event])
    day = event.decision.timestamp.date()
    early = report(event, matures_at=(day - timedelta(days=1)).isoformat())
    receipt = await post(client, early)
    [fault] = receipt["faults"]
    assert (fault["field"], fault["message"]) == ("matures_at", "is before the day of the decision")
    assert await rows_of(engine, "outcomes") == []
    assert counts(await post(client, report(event, matures_at=day.isoformat()))) == (1, 0, 0, 0)


async def test_json_that_cannot_be_read_is_refused_and_lines_of_a_file_are_left_out(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """The faults are the same; only of a file, which people make, the good lines count."""
    [event, other] = decided_events(2, seed=73)
    await store_all(engine, [event, other])
    good = report(other)
    for sent, name, message in (
        (report(event, "repayed"), "outcome", "must be"),
        (report(event, observed_at="2026-06-01T12:00:00"), "observed_at", "zone"),
        (report(event, observed_at=1_780_000_000), "observed_at", "zone"),
        (report(event, source="Jane Doe"), "source", "must match"),
        (report(event, observed="x"), "observed", "observed_at"),
        (report(event, loan_id="A-1"), "report", "either"),
        (report(event, which="all"), "report", "not allowed without it"),
        ({"outcome": "repaid", "observed_at": "2026-06-01"}, "report", "either"),
        ("repaid", "report", "object"),
        ({name: good[name] for name in ("prediction_id", "outcome")}, "observed_at", "required"),
    ):
        refused = await client.post("/outcomes", json=[good, sent])
        [fault] = refused.json()["validation_errors"]
        assert (refused.status_code, fault["field"]) == (400, f"1.{name}"), sent
        assert message in fault["message"], sent
        assert await rows_of(engine, "outcomes") == []
        body = json.dumps(sent)
        refused = await client.post("/outcomes", content=body, headers=NDJSON)
        assert refused.json()["validation_errors"][0]["field"] == f"line 1.{name}"
        if isinstance(sent, dict):
            refused = await client.post("/outcomes", json=sent)
            assert refused.json()["validation_errors"][0]["field"] == name
    body = f"{json.dumps(sent)}\n{json.dumps(good)}"
    receipt = (await client.post("/outcomes", content=body, headers=NDJSON)).json()
    assert counts(receipt) == (1, 0, 0, 1)
    assert (receipt["faults"][0]["line"], receipt["faults"][0]["field"]) == (1, "observed_at")


async def test_lines_and_tables_are_recorded_in_groups_and_faults_have_their_line(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """More than a JSON array may have; the audit log has one entry per group."""
    events = decided_events(1200, seed=66)
    await store_all(engine, events)
    kinds = [random.Random(1).choice(OUTCOME_KINDS) for _ in events]  # noqa: S311 - test data
    sent = [report(event, kind) for event, kind in zip(events, kinds, strict=True)]
    assert (await client.post("/outcomes", json=sent)).status_code == 400

    lines = [json.dumps(each) for each in sent]
    body = "\n".join([*lines[:2], "", "{", *lines[2:]])
    receipt = (await client.post("/outcomes", content=body, headers=NDJSON)).json()
    assert counts(receipt) == (1200, 0, 0, 1)
    assert (receipt["faults"][0]["line"], receipt["faults"][0]["index"]) == (4, None)
    logged = await rows_of(engine, "audit_log")
    assert [json.loads(row["details"])["accepted"] for row in logged] == [1000, 200]
    assert {(row["actor"], row["action"]) for row in logged} == {("tests", "record outcomes")}

    table = io.StringIO()
    writer = csv.writer(table, delimiter=";")
    writer.writerow(["Prediction ID", "remark", "outcome", "Observed-At"])
    writer.writerows([e["prediction_id"], "x", e["outcome"], e["observed_at"]] for e in sent)
    writer.writerow(["unknown", "", "repaid", "2026-06-01"])
    receipt = (await client.post("/outcomes", content=table.getvalue(), headers=CSV)).json()
    assert counts(receipt) == (0, 1200, 0, 1)
    assert receipt["faults"][0]["line"] == 1202
    await assert_outcome_rollups_equal_a_recount(engine)
    for content, headers in (("", NDJSON), ("a,b\n1,2\n", CSV), ("[]", {}), ("{", {}), ("1", {})):
        answer = await client.post("/outcomes", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "InvalidInput"), content
    refused = await client.post("/outcomes", content="x", headers={"content-type": "text/plain"})
    assert refused.status_code == 415
    assert "text/csv" in refused.json()["detail"]


async def test_random_reports_in_any_order_leave_counts_that_equal_a_recount(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """With corrections, repetitions, several reports of one decision in a group, and at once."""
    events = decided_events(60, seed=67)
    await store_all(engine, events)
    rng = random.Random(68)  # noqa: S311 - test data, not a secret
    total: Counter[str] = Counter()
    for _ in range(6):
        sent = [
            report(
                rng.choice(events),
                rng.choice(OUTCOME_KINDS),
                observed_at=f"2026-{rng.randint(6, 10)}".replace("-6", "-06")
                .replace("-7", "-07")
                .replace("-8", "-08")
                .replace("-9", "-09")
                + "-01",
            )
            for _ in range(120)
        ]
        total.update({k: v for k, v in (await post(client, sent)).items() if k == "accepted"})
        await assert_outcome_rollups_equal_a_recount(engine)
    assert len(await rows_of(engine, "outcomes")) == total["accepted"]


async def test_audit_entry_proves_which_outcomes_were_recorded(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """Its subject is the digest of the rows with its time; the chain is intact."""
    events = decided_events(20, seed=69)
    await store_all(engine, events)
    receipt = await post(client, [report(event) for event in events])
    [entry] = await rows_of(engine, "audit_log")
    rows = await rows_of(engine, "outcomes")
    assert {row["recorded_at"] for row in rows} == {entry["occurred_at"]}
    assert entry["subject"] == digest_of(rows)
    assert entry["subject"] != digest_of([*rows[:-1], rows[-1] | {"outcome": "default"}])
    assert json.loads(entry["details"]) == {"accepted": 20, "unchanged": 0, "superseded": 0}
    noted = audit.Head(receipt["audit"]["id"], bytes.fromhex(receipt["audit"]["hash"]))
    assert await audit.verify(engine, noted) == noted


async def test_erased_decision_keeps_its_outcome_and_its_counts_without_the_person(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """Corrections still count; only the counts by group stay as they were before the erasure."""
    [event] = decided_events(1, seed=70)
    await store_all(engine, [event])
    await post(client, report(event, "repaid", observed_at="2026-06-01"))
    groups = await rows_of(engine, "outcome_groups")
    assert (await client.delete(path_of(event))).status_code == 200
    assert counts(await post(client, report(event, "default", observed_at="2026-07-01"))) == (
        *(1, 0, 1),
        0,
    )
    assert (await client.get(path_of(event))).status_code == 410
    assert [row["outcome"] for row in await rows_of(engine, "outcomes")] == ["repaid", "default"]
    assert [row["outcome"] for row in await rows_of(engine, "current_outcomes")] == ["default"]
    assert await rows_of(engine, "outcome_groups") == groups
    bins = {row["outcome"]: row["outcomes"] for row in await rows_of(engine, "outcome_bins")}
    assert bins == {"repaid": 0, "default": 1}


async def test_filters_by_outcome_leave_what_passes_them(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """By the current outcome; with other filters, in the list, the export and for retraining."""
    events = decided_events(40, seed=71)
    await store_all(engine, events)
    ids = [str(event.decision.prediction_id) for event in events]
    await post(client, [report(event, "repaid") for event in events[:20]])
    await post(client, [report(event, "fraud", observed_at="2026-10-01") for event in events[:5]])

    async def found(**parameters: Any) -> set[str]:
        listed = (await client.get("/history", params=parameters | {"limit": 100})).json()["items"]
        lines = (await client.get("/history/export", params=parameters)).text.splitlines()
        exported = {json.loads(line)["prediction_id"] for line in lines}
        assert exported == {record["prediction_id"] for record in listed}
        return exported

    assert await found(outcome="fraud") == set(ids[:5])
    assert await found(outcome="repaid") == set(ids[5:20])
    assert await found(has_outcome="true") == set(ids[:20])
    assert await found(has_outcome="false") == set(ids[20:])
    assert await found(outcome="default") == set()
    rejected = {str(e.decision.prediction_id) for e in events if e.decision.prediction_code == 0}
    assert await found(outcome="repaid", prediction="Rejected") == set(ids[5:20]) & rejected
    assert (await client.get("/history?outcome=bad")).status_code == 400

    def learnt() -> Recorded:
        [key] = keys.HEADERS.values()
        with export_lines(str(client.base_url), key=key) as lines:
            return read_recorded(lines, known=(), now=datetime.now(UTC))

    recorded = await asyncio.to_thread(learnt)
    assert recorded.left_out == {"refused": len(set(ids[:20]) & rejected)}
    assert recorded.labels.count(0) == len(set(ids[:5]) - rejected)
    assert recorded.labels.count(1) == len(set(ids[5:20]) - rejected)


async def test_recording_outcomes_needs_its_scope(
    settings: HistorySettings, events: list[PredictionRecorded]
) -> None:
    reader, entry = mint_key("reader", ["history:read", "history:erase"])
    app = create_app(settings.model_copy(update={"api_keys": parse_keys(entry)}))
    async with served(app, headers={"x-api-key": reader}) as client:
        refused = await client.post("/outcomes", json=report(events[0]))
    assert refused.status_code == 403
    assert "outcomes:write" in refused.json()["detail"]


MANY = 20_000
_OTHERS = ", ".join(column.name for column in predictions.columns if column.name != "id")
_COPIES = f"""
INSERT INTO predictions (id, {_OTHERS})
SELECT overlay(id::text PLACING lpad(to_hex(n), 12, '0') FROM 25)::uuid, {_OTHERS}
FROM predictions, generate_series(1, {MANY}) n
"""  # noqa: S608 - names and a number of its own
_CURRENT = f"""
INSERT INTO current_outcomes
SELECT id, decided_at, CASE WHEN number % {MANY // 10} = 7 THEN 'fraud' ELSE 'repaid' END
FROM (SELECT id, decided_at, row_number() OVER (ORDER BY id) AS number FROM predictions) numbered
WHERE number < {MANY - 50}
"""  # noqa: S608 - as above


async def test_page_filtered_by_outcome_reads_few_blocks_of_many(engine: AsyncEngine) -> None:
    """Whether the outcome is rare, frequent or absent; the whole table has several times more."""
    await store_all(engine, random_events(1, seed=72))
    executed: list[tuple[str, Any]] = []

    def note(_c: Any, _u: Any, statement: str, parameters: Any, *_: Any) -> None:
        executed.append((statement, parameters))

    async with engine.connect() as connection:
        for statement in (_COPIES, _CURRENT, "ANALYZE predictions, current_outcomes"):
            await connection.execute(text(statement))
        observing.listen(engine.sync_engine, "before_cursor_execute", note)
        for filters, rows in (
            (Filters(outcome="fraud"), 10),
            (Filters(outcome="repaid"), 20),
            (Filters(outcome="default"), 0),
            (Filters(has_outcome=True), 20),
            (Filters(has_outcome=False), 20),
        ):
            found = await read_page(connection, filters, since=None, before=None, limit=20)
            assert len(found) == rows, filters
            statement, parameters = executed[-1]
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
            plan = (await connection.exec_driver_sql(explain, parameters)).scalar_one()[0]["Plan"]
            assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 300, filters

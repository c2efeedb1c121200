"""Storing: what goes in comes out again, once, and the roll-ups count it."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import queries
from services.history.database import Unstorable, is_outage
from services.history.recorder import Undecodable, decode, store
from services.history.records import COLUMNS, record_of
from services.history.schemas import Filters
from services.history.tables import predictions
from services.local import servers
from shared.contract.application import FIELDS, Application
from shared.contract.events import Decision, ModelInfo
from shared.contract.ids import first_uuid7_at, is_uuid7
from tests.history.events import body_of, derived_id, random_event, random_events, row_of
from tests.history.storage import assert_rollups_equal_a_recount, ids_of, store_all, stored_ids
from tests.waiting import eventually_said as eventually

_LINGER = """
CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_sleep(0.2);
    RETURN NULL;
END $$;
CREATE TRIGGER linger AFTER INSERT ON applicant_rollup EXECUTE FUNCTION linger()
"""
_END_SESSION = """
DO $$
DECLARE idle int;
BEGIN
    LOOP
        PERFORM pg_stat_clear_snapshot();
        SELECT pid INTO idle FROM pg_stat_activity
            WHERE datname = current_database() AND state = 'idle in transaction';
        EXIT WHEN idle IS NOT NULL;
    END LOOP;
    PERFORM pg_terminate_backend(idle, 5000);
END $$
"""
_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


async def test_each_commit_is_logged_with_the_ids_of_its_requests(
    engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Also of those stored before, so that each request leads to its commit."""
    caplog.set_level("INFO")
    first, second, third = random_events(3, seed=20)
    await store_all(engine, [first, second])
    await store_all(engine, [second, third])
    commits = [
        cast("dict[str, Any]", record.msg)
        for record in caplog.records
        if record.name == "services.history.recorder"
    ]
    assert commits == [
        {"event": "stored", "rows": 2, "request_ids": [first.request_id, second.request_id]},
        {"event": "stored", "rows": 1, "request_ids": [second.request_id, third.request_id]},
    ]


async def test_stored_decision_is_given_back_as_it_was_answered(engine: AsyncEngine) -> None:
    """Every member of the decision comes back from the columns with the same value."""
    events = random_events(300, seed=21)
    assert await store(engine, [row_of(event) for event in events]) == 300
    async with engine.connect() as connection:
        for event in events:
            row = await queries.read_one(connection, event.decision.prediction_id)
            assert row is not None
            record = json.loads(record_of(row).model_dump_json())
            assert record.pop("client") == event.client
            assert record.pop("request_id") == event.request_id
            assert record.pop("recorded_at")
            assert record.pop("outcomes") == []
            assert record == json.loads(event.decision.model_dump_json())


@pytest.mark.parametrize(
    "changes",
    [
        {"input_data": Application(ApplicantIncome=0.0)},
        {"prediction_id": derived_id("stored")},
        {"model_info": ModelInfo(name="m", version="v", accuracy=0.8, arm="x13:candidate")},
        {"imputed": [], "warnings": ["", "{}", 'a "b", \\c', "Zürich \U0001f3e0"]},
        {"timestamp": datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC)},
        {"timestamp": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-11)))},
    ],
    ids="-".join,
)
async def test_unusual_values_come_back_equal(engine: AsyncEngine, changes: dict[str, Any]) -> None:
    """Missing inputs, derived ids, empty and quoted texts, old times and times in other zones."""
    event = random_events(1, seed=35, **changes)[0]
    assert await store(engine, [row_of(event)]) == 1
    async with engine.connect() as connection:
        row = await queries.read_one(connection, event.decision.prediction_id)
    assert row is not None
    record = record_of(row)
    assert all(getattr(record, name) == value for name, value in event.decision)


@hypothesis_settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(texts=st.lists(_TEXT, max_size=4), probability=st.floats(0, 1), seed=st.integers())
async def test_any_text_and_any_probability_survive_storing(
    engine: AsyncEngine, texts: list[str], probability: float, seed: int
) -> None:
    """Quotes, backslashes, commas, empty texts and every digit of a float come back unchanged."""
    event = random_event(random.Random(seed), warnings=texts, confidence=probability)  # noqa: S311 - test data
    await store(engine, [row_of(event)])
    async with engine.connect() as connection:
        row = await queries.read_one(connection, event.decision.prediction_id)
    assert row is not None
    assert record_of(row).warnings == texts
    assert record_of(row).confidence == probability


async def test_storing_again_adds_nothing(engine: AsyncEngine) -> None:
    """A row stored before, or twice in one call, is counted once."""
    rows = [row_of(event) for event in random_events(100, seed=22)]
    assert await store(engine, rows[:60] + rows[:30]) == 60
    assert await store(engine, rows) == 40
    assert await store(engine, rows) == 0
    await assert_rollups_equal_a_recount(engine)


async def test_writers_that_overlap_neither_deadlock_nor_double(engine: AsyncEngine) -> None:
    """Three writers with the same rows in different orders end with each row counted once."""
    rng = random.Random(23)  # noqa: S311 - test data, not a secret
    events = random_events(2000, seed=23)
    rows = [row_of(event) for event in events]

    async def write() -> int:
        mine = rng.sample(rows, len(rows))
        batches = [mine[start : start + 200] for start in range(0, len(mine), 200)]
        return sum([await store(engine, batch) for batch in batches])

    assert sum(await asyncio.gather(write(), write(), write())) == 2000
    assert await stored_ids(engine) == ids_of(events)
    await assert_rollups_equal_a_recount(engine)


async def test_refused_row_leaves_nothing_of_its_batch(engine: AsyncEngine) -> None:
    """A batch is stored whole or not at all, and the error says that the values are at fault."""
    events = random_events(10, seed=24)
    events[5] = events[5].model_copy(update={"client": "a\0b"})
    with pytest.raises(Unstorable):
        await store(engine, [row_of(event) for event in events])
    assert await stored_ids(engine) == []
    await assert_rollups_equal_a_recount(engine)


async def test_session_ended_before_commit_is_an_outage(
    engine: AsyncEngine, database_url: str
) -> None:
    """The driver calls this a fault of its own; nothing is stored then, and trying again helps."""
    rows = [row_of(event) for event in random_events(10, seed=27)]
    servers.run_sql(database_url, _LINGER)
    storing = asyncio.create_task(store(engine, rows))
    await eventually(_lingering(engine))
    # The loop stands still meanwhile: it reads the statement's end and the session's in one go.
    servers.run_sql(database_url, _END_SESSION)
    with pytest.raises(DBAPIError) as caught:
        await storing
    assert is_outage(caught.value)
    assert await stored_ids(engine) == []
    assert await store(engine, rows) == 10
    await assert_rollups_equal_a_recount(engine)


def _lingering(engine: AsyncEngine) -> Callable[[], Awaitable[bool]]:
    """A check that holds while the database lingers over the last statement before COMMIT."""
    sleeping = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )

    async def check() -> bool:
        async with engine.connect() as connection:
            return bool((await connection.execute(sleeping)).scalar_one())

    return check


def test_row_has_the_columns_of_the_table() -> None:
    """A row has one value per column that an event fills; the database fills the others."""
    event = random_events(1, seed=25)[0]
    row = dict(zip(COLUMNS, decode(body_of(event)), strict=True))
    assert set(predictions.columns.keys()) - set(row) == {"recorded_at", "erased_at"}
    assert row["id"] == event.decision.prediction_id
    assert row["property_area"] == event.decision.input_data.Property_Area
    assert row["warnings"] == (event.decision.warnings or None)


async def test_event_of_a_newer_service_is_stored_by_an_older_reader(engine: AsyncEngine) -> None:
    """A fifth model, another category and a member this reader lacks cost no decision."""
    event = json.loads(body_of(random_events(1, seed=32)[0]))
    decision = event["decision"]
    decision["model_info"]["name"] = "a_fifth_model"
    inputs = decision["input_data"]
    inputs |= {field.name: "Another" for field in FIELDS if field.kind == "category"}
    inputs |= {"Credit_History": 2}
    expected = dict(inputs)
    inputs["Added"] = {"by": "a newer service"}
    assert await store(engine, [decode(json.dumps(event).encode())]) == 1
    async with engine.connect() as connection:
        row = await queries.read_one(connection, UUID(decision["prediction_id"]))
        assert row is not None
        record = json.loads(record_of(row).model_dump_json())
        filters = Filters(model="a_fifth_model")
        [found] = await queries.read_page(connection, filters, since=None, before=None, limit=9)
        assert found == row
        [total] = await queries.read_totals(connection)
        [applicant] = await queries.read_applicants(connection)
    assert record["input_data"] == expected
    assert record["model_info"]["name"] == total.model == "a_fifth_model"
    assert (applicant.property_area, applicant.credit_history) == ("Another", "2")


def test_undecodable_event_names_every_fault_without_its_value() -> None:
    """The reason names the members at fault; the values, a person's own, stay out of it."""
    event = json.loads(body_of(random_events(1, seed=26)[0]))
    event["decision"]["input_data"]["ApplicantIncome"] = "secret"
    del event["client"]
    with pytest.raises(Undecodable) as caught:
        decode(json.dumps(event).encode())
    assert "client" in str(caught.value)
    assert "decision.input_data.ApplicantIncome" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_derived_id_is_stored_once_whatever_time_it_comes_with(engine: AsyncEngine) -> None:
    """The first stays, within one batch and across batches; the others change nothing."""
    ids = [derived_id(str(number)) for number in range(40)]
    first, second, third = (
        [random_events(1, seed=seed, prediction_id=identifier)[0] for identifier in ids]
        for seed in (27, 28, 29)
    )
    assert await store(engine, [row_of(event) for event in first[:20] + second[:20]]) == 20
    mixed = [row_of(event) for event in [*third, *second, *random_events(5, seed=30)]]
    assert await store(engine, mixed) == 25
    assert await store(engine, [row_of(event) for event in first]) == 0
    async with engine.connect() as connection:
        for identifier, event in zip(ids, first[:20] + third[20:], strict=True):
            row = await queries.read_one(connection, identifier)
            assert row is not None
            record = json.loads(record_of(row).model_dump_json())
            assert record["request_id"] == event.request_id
            assert {name: record[name] for name in Decision.model_fields} == json.loads(
                event.decision.model_dump_json()
            )
            assert is_uuid7(row.id)
            assert first_uuid7_at(event.decision.timestamp) < row.id
    await assert_rollups_equal_a_recount(engine)


async def test_writers_of_derived_ids_at_different_times_neither_deadlock_nor_double(
    engine: AsyncEngine,
) -> None:
    """Their keys are in another order each time, their ids are not."""
    rng = random.Random(31)  # noqa: S311 - test data, not a secret
    ids = [derived_id(str(number)) for number in range(600)]

    async def write() -> int:
        mine = rng.sample(ids, len(ids))
        rows = [row_of(random_event(rng, prediction_id=identifier)) for identifier in mine]
        batches = [rows[start : start + 100] for start in range(0, len(rows), 100)]
        return sum([await store(engine, batch) for batch in batches])

    assert sum(await asyncio.gather(write(), write(), write())) == 600
    assert len(await stored_ids(engine)) == 600
    await assert_rollups_equal_a_recount(engine)


async def test_forged_id_that_meets_a_key_made_from_another_is_refused(engine: AsyncEngine) -> None:
    """Two decisions with one key cannot both be stored; that ends in an error, not in a loop."""
    derived = random_events(1, seed=32, prediction_id=derived_id("met"))[0]
    forged = random_events(1, seed=33, prediction_id=row_of(derived)[COLUMNS.index("id")])[0]
    with pytest.raises(Unstorable):
        await store(engine, [row_of(derived), row_of(forged)])
    assert await stored_ids(engine) == []
    assert await store(engine, [row_of(derived)]) == 1
    assert await store(engine, [row_of(forged)]) == 0


async def test_search_for_what_is_stored_reads_no_more_than_the_indexes(
    engine: AsyncEngine,
) -> None:
    """However long the history is, a repeated batch is found through its keys."""
    await store(engine, [row_of(event) for event in random_events(500, seed=34)])
    async with engine.connect() as connection:
        for statement in ("ANALYZE predictions", "SET enable_seqscan = off"):
            await connection.execute(text(statement))
        plan = await connection.execute(
            text(
                "EXPLAIN SELECT id, derived_id FROM predictions"
                " WHERE id = ANY(CAST(:ids AS uuid[])) OR derived_id = ANY(CAST(:ids AS uuid[]))"
            ),
            {"ids": [derived_id(str(number)) for number in range(500)]},
        )
        said = "\n".join(plan.scalars())
        await connection.invalidate()
    assert "predictions_pkey" in said
    assert "predictions_derived_id_idx" in said
    assert "Seq Scan" not in said

"""Erasure: the person's values leave every store, what the statistics rest on stays."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.audit import parse_head, verify
from services.history.daily import LEAST_COUNTED
from services.history.main import create_app
from services.history.recorder import store
from services.history.settings import HistorySettings
from services.history.tables import HISTOGRAM_BUCKETS, PERSONAL
from shared.access.api_keys import mint_key, parse_keys
from shared.contract.events import IDEMPOTENCY_KEEP_S, PredictionRecorded, answer_key
from tests import keys
from tests.history.conftest import STORED_EVENTS
from tests.history.events import derived_id, path_of, random_events, row_of, with_loan_id
from tests.history.storage import (
    assert_rollup_by_model_equals_a_recount,
    ids_of,
    rows_of,
    store_all,
    stored_ids,
)
from tests.serving import served

LOAN_ID = "Kredit-№12"


async def test_erased_record_is_gone_for_every_reader(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """410 with the time and no value, in no list, in no export; the statistics stay."""
    event = events[7]
    loan_id = event.decision.input_data.Loan_ID
    statistics, analytics = [
        (await client.get(path)).json() for path in ("/statistics", "/analytics")
    ]
    done = await client.delete(path_of(event))
    assert done.status_code == 200
    assert done.json()["erased"] == 1

    gone = await client.get(path_of(event))
    assert gone.status_code == 410
    assert gone.headers["content-type"] == "application/problem+json"
    assert gone.json()["code"] == "Erased"
    assert gone.json()["erased_at"] == done.json()["erased_at"]
    assert event.request_id not in gone.text
    listed = (await client.get("/history?limit=100")).json()["items"]
    assert len(listed) == 100
    exported = (await client.get("/history/export?format=csv")).text
    assert exported.count("\n") == STORED_EVENTS
    for shown in (json.dumps(listed), exported, (await client.get("/history/export")).text):
        assert str(event.decision.prediction_id) not in shown
    found = (await client.get("/history", params={"loan_id": loan_id})).json()["items"]
    assert str(event.decision.prediction_id) not in json.dumps(found)
    assert (await client.get("/statistics")).json() == statistics
    assert (await client.get("/analytics")).json() == analytics


async def test_tombstone_keeps_the_outcome_and_no_value_of_the_person(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """Personal columns are null, warnings and imputed inputs are blank, the roll-ups hold."""
    events = random_events(40, seed=51, warnings=["ApplicantIncome of 612 is low.", "Second."])
    events += random_events(40, seed=52, warnings=[], imputed=["Credit_History"])
    await store_all(engine, events)
    before = {row["id"]: row for row in await rows_of(engine, "predictions")}
    applicants = await rows_of(engine, "applicant_rollup")
    for event in events[20:60]:
        assert (await client.delete(path_of(event))).json()["erased"] == 1

    erased = {event.decision.prediction_id: event for event in events[20:60]}
    blank = {*PERSONAL, "imputed", "warnings", "erased_at"}
    for row in await rows_of(engine, "predictions"):
        if row["id"] not in erased:
            assert row == before[row["id"]]
            continue
        assert {row[name] for name in PERSONAL} == {None}
        assert row["imputed"] is None
        assert row["warnings"] == (["erased"] if before[row["id"]]["warnings"] else None)
        assert row["erased_at"] is not None
        for name in row.keys() - blank:
            assert row[name] == before[row["id"]][name], name
    await assert_rollup_by_model_equals_a_recount(engine)
    assert await rows_of(engine, "applicant_rollup") == applicants


async def test_erased_decision_leaves_no_distribution_of_few(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """Its values could be told from the counts of few; the counts of many, and scores, stay."""
    when = datetime(2026, 5, 4, 12, tzinfo=UTC)
    info = random_events(1, seed=55)[0].decision.model_info
    same: dict[str, Any] = {"decided_at": when, "prediction": "Approved", "model_info": info}
    many = random_events(LEAST_COUNTED, seed=56, **same)
    few = [
        event.model_copy(update={"client": "broker"})
        for event in random_events(LEAST_COUNTED - 1, seed=57, **same)
    ]
    await store_all(engine, many + few)

    async def kept() -> dict[str, tuple[int, str]]:
        return {
            row["client"]: (
                row["predictions"],
                row["layout"].split(":")[0] + str(len(row["counts"])),
            )
            for row in await rows_of(engine, "daily_rollup")
        }

    before = await kept()
    for event in (many[0], few[0], few[1]):
        assert (await client.delete(path_of(event))).json()["erased"] == 1
    after = await kept()
    assert after["anonymous"] == before["anonymous"]
    assert after["broker"] == (LEAST_COUNTED - 1, f"score{HISTOGRAM_BUCKETS}")
    later = [
        event.model_copy(update={"client": "broker"}) for event in random_events(3, seed=58, **same)
    ]
    await store_all(engine, later)
    assert (await client.delete(path_of(later[0]))).json()["erased"] == 1
    assert (await kept())["broker"] == (LEAST_COUNTED + 2, f"score{HISTOGRAM_BUCKETS}")
    query = {"since": "2026-05-04", "until": "2026-05-05"}
    found = (await client.get("/analytics", params=query)).json()
    assert found["overall"]["total_predictions"] == 2 * LEAST_COUNTED + 2
    areas = found["by_property_area"].values()
    assert sum(group["total_predictions"] for group in areas) == LEAST_COUNTED


async def test_erasing_by_loan_erases_all_of_its_decisions_and_no_other(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """Whatever characters the loan id has; for an unknown one nothing is erased."""
    events = random_events(30, seed=53)
    await store_all(engine, [with_loan_id(event, LOAN_ID) for event in events[:12]] + events[12:])
    for erased in (12, 0):
        done = await client.delete("/history", params={"loan_id": LOAN_ID})
        assert (done.status_code, done.json()["erased"]) == (200, erased)
    for number, event in enumerate(events):
        assert (await client.get(path_of(event))).status_code == (410 if number < 12 else 200)
    await assert_rollup_by_model_equals_a_recount(engine)


async def test_answer_proves_what_was_erased_and_the_log_alone_does_not(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """With the salt of its answer the caller shows which loan the row is about."""
    await store_all(engine, [with_loan_id(event, LOAN_ID) for event in random_events(3, seed=54)])
    done = (await client.delete("/history", params={"loan_id": LOAN_ID})).json()
    [row] = await rows_of(engine, "audit_log")
    assert LOAN_ID not in str(row)
    assert done["salt"] not in str(row)
    proof = hashlib.sha256((done["salt"] + LOAN_ID).encode()).hexdigest()
    assert row["subject"] == f"sha256:{proof}"
    assert (row["actor"], row["action"], row["details"]) == ("tests", "erase loan", '{"erased": 3}')
    noted = parse_head(f"{done['audit']['id']}:{done['audit']['hash']}")
    assert await verify(engine, noted) == noted


async def test_erasing_again_is_harmless_and_recorded(
    client: httpx.AsyncClient, engine: AsyncEngine, events: list[PredictionRecorded]
) -> None:
    """The first time of erasure stands; each request has its row in the log."""
    first = (await client.delete(path_of(events[0]))).json()
    again = (await client.delete(path_of(events[0]))).json()
    assert (first["erased"], again["erased"]) == (1, 0)
    gone = (await client.get(path_of(events[0]))).json()
    assert gone["erased_at"] == first["erased_at"] < again["erased_at"]
    logged = await rows_of(engine, "audit_log")
    assert [row["details"] for row in logged] == ['{"erased": 1}', '{"erased": 0}']
    assert {row["subject"] for row in logged} == {str(events[0].decision.prediction_id)}


async def test_unknown_decision_is_404_and_nothing_is_recorded(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """It may not be stored yet; the same request erases it once it is."""
    [event] = random_events(1, seed=55)
    assert (await client.delete(path_of(event))).status_code == 404
    assert (await client.delete(f"/history/{uuid4()}")).status_code == 404
    assert await rows_of(engine, "audit_log") == []
    await store_all(engine, [event])
    assert (await client.delete(path_of(event))).status_code == 200


async def test_event_that_comes_again_after_the_erasure_stays_erased(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """The tombstone is what storing once rests on, for derived ids too."""
    events = random_events(20, seed=56)
    events += random_events(20, seed=57, prediction_id=derived_id("again"))[:1]
    await store_all(engine, events)
    for event in events:
        assert (await client.delete(path_of(event))).json()["erased"] == 1
    assert await store(engine, [row_of(event) for event in events]) == 0
    for event in events:
        assert (await client.get(path_of(event))).status_code == 410
    await assert_rollup_by_model_equals_a_recount(engine)


async def test_deadline_of_the_cache_refuses_no_erasure(
    settings: HistorySettings, events: list[PredictionRecorded]
) -> None:
    """A reader who waited too long for the cache goes on without it; an erasure cannot."""
    impatient = settings.model_copy(update={"cache_deadline_s": 1e-6})
    async with served(create_app(impatient), headers=keys.HEADERS) as client:
        assert (await client.get(path_of(events[0]))).status_code == 200
        assert (await client.delete(path_of(events[0]))).status_code == 200


async def test_cached_copies_expire_with_the_erasure(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """A record is cached for minutes, but not served once its erasure is answered."""
    event = events[3]
    paths = [path_of(event), path_of(event).upper().replace("/HISTORY", "/history"), "/history"]
    for path in paths:
        for hit in ("MISS", "HIT"):
            assert (await client.get(path)).headers["x-cache"] == hit
    assert (await client.delete(path_of(event))).status_code == 200
    for path in paths[:2]:
        assert (await client.get(path)).status_code == 410
    listed = await client.get("/history")
    assert listed.headers["x-cache"] == "MISS"
    assert str(event.decision.prediction_id) not in listed.text


async def test_answers_kept_for_repeated_requests_are_emptied_for_a_day(
    client: httpx.AsyncClient, engine: AsyncEngine, redis: Redis
) -> None:
    """By the decision's id and by the loan; also when the decision was erased before."""
    decided = [derived_id("a"), derived_id("b"), derived_id("c")]
    events = [random_events(1, seed=58, prediction_id=identifier)[0] for identifier in decided]
    await store_all(engine, [with_loan_id(event, LOAN_ID) for event in events])
    names = [answer_key(identifier) for identifier in decided]
    for name in names:
        await redis.set(name, b"{}")
    await client.delete(path_of(events[0]))
    assert await redis.mget(names) == [b"", b"{}", b"{}"]
    await client.delete("/history", params={"loan_id": LOAN_ID})
    assert await redis.mget(names) == [b"", b"", b""]
    for name in names:
        assert IDEMPOTENCY_KEEP_S - 60 < await redis.ttl(name) <= IDEMPOTENCY_KEEP_S
    await redis.set(names[0], b"{}")
    await client.delete(path_of(events[0]))
    assert await redis.get(names[0]) == b""


async def test_erasing_old_decisions_takes_no_room_in_redis(
    client: httpx.AsyncClient, engine: AsyncEngine, redis: Redis
) -> None:
    """Their answers have expired, so nothing is left behind for them."""
    decided_at = datetime.now(UTC) - timedelta(days=3)
    [event] = random_events(
        1,
        seed=61,
        decided_at=decided_at,
        timestamp=decided_at,
        prediction_id=derived_id("old"),
    )
    await store_all(engine, [with_loan_id(event, LOAN_ID)])
    erased = await client.delete("/history", params={"loan_id": LOAN_ID})
    assert erased.json()["erased"] == 1
    assert await redis.keys("*idempotency*") == []


async def test_decision_with_a_derived_id_is_found_listed_and_erased_by_it(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """It is listed by its time; the key made for it is not an id."""
    events = random_events(9, seed=59)
    derived = random_events(1, seed=60, prediction_id=derived_id("found"))[0]
    await store_all(engine, [*events, derived])
    [key] = set(await stored_ids(engine)) - set(ids_of(events))
    record = (await client.get(path_of(derived))).json()
    assert record["prediction_id"] == str(derived.decision.prediction_id)
    ordered = sorted([*events, derived], key=lambda e: e.decision.timestamp, reverse=True)
    expected = [str(event.decision.prediction_id) for event in ordered]
    page = (await client.get("/history?limit=5")).json()
    rest = (await client.get("/history", params={"cursor": page["next_cursor"]})).json()
    assert [item["prediction_id"] for item in page["items"] + rest["items"]] == expected
    since = derived.decision.timestamp.replace(microsecond=0)
    listed = await client.get(
        "/history",
        params={
            "since": since.isoformat(),
            "until": (since + timedelta(seconds=1)).isoformat(),
        },
    )
    assert record in listed.json()["items"]
    exported = (await client.get("/history/export?format=csv")).text.splitlines()
    assert [line.partition(",")[0] for line in exported] == ["id", *expected]
    assert (await client.get(f"/history/{key}")).status_code == 404
    assert (await client.delete(f"/history/{key}")).status_code == 404
    assert (await client.delete(path_of(derived))).json()["erased"] == 1
    assert (await client.get(path_of(derived))).status_code == 410


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("", "loan_id", "required"),
        ("loan_id=", "loan_id", "at least 1"),
        ("loan_id=a%20b", "loan_id", "visible characters"),
        ("loan_id=a%00", "loan_id", "visible characters"),
        ("loan_id=LP1&loan_id=LP2", "loan_id", "more than once"),
        ("loan_id=LP1&prediction=Approved", "prediction", "it takes loan_id"),
        ("until=2026-01-01T00:00:00Z", "until", "it takes loan_id"),
    ],
)
async def test_erasing_takes_a_loan_id_and_nothing_else(
    client: httpx.AsyncClient, engine: AsyncEngine, query: str, field: str, says: str
) -> None:
    """A filter that would widen or narrow what is erased is 400, and nothing is done."""
    response = await client.delete(f"/history?{query}")
    assert response.status_code == 400
    faults = {fault["field"]: fault["message"] for fault in response.json()["validation_errors"]}
    assert says in faults[field]
    assert (await client.delete(f"/history/{uuid4()}?loan_id=LP1")).status_code == 400
    assert (await client.delete("/history/LP1")).status_code == 400
    assert await rows_of(engine, "audit_log") == []


async def test_only_the_scope_for_it_erases(settings: HistorySettings) -> None:
    """Reading does not include erasing, nor the other way round."""
    reader, reader_entry = mint_key("reader", ["history:read"])
    eraser, eraser_entry = mint_key("eraser", ["history:erase"])
    known = settings.model_copy(update={"api_keys": parse_keys(f"{reader_entry} {eraser_entry}")})
    one, some = f"/history/{uuid4()}", "/history?loan_id=LP1"
    async with served(create_app(known)) as client:
        for path in (one, some):
            assert (await client.delete(path)).status_code == 401
            refused = await client.delete(path, headers={"x-api-key": reader})
            assert refused.status_code == 403
            assert "history:erase" in refused.json()["detail"]
            assert (await client.get(path, headers={"x-api-key": eraser})).status_code == 403
        assert (await client.delete(one, headers={"x-api-key": eraser})).status_code == 404
        assert (await client.delete(some, headers={"x-api-key": eraser})).status_code == 200


async def test_database_refuses_a_tombstone_with_a_value(
    engine: AsyncEngine, events: list[PredictionRecorded]
) -> None:
    """Whatever code erases, a value that was forgotten is an error and not a leak."""
    assert events
    async with engine.connect() as connection:
        for name in PERSONAL:
            others = ", ".join(f"{other} = NULL" for other in PERSONAL if other != name)
            with pytest.raises(DBAPIError, match="predictions_erased_check"):
                await connection.execute(
                    text(
                        f"UPDATE predictions SET erased_at = now(), {others}"  # noqa: S608 - columns
                        f" WHERE {name} IS NOT NULL"
                    )
                )
        with pytest.raises(DBAPIError, match="predictions_erased_check"):
            await connection.execute(text("UPDATE predictions SET applicant_income = NULL"))


async def test_documentation_covers_erasing(
    client: httpx.AsyncClient,
) -> None:
    """The scope, every problem and the form of the answer are in the OpenAPI document."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    one, some = (paths[path]["delete"] for path in ("/history/{prediction_id}", "/history"))
    assert set(one["responses"]) == {"200", "400", "401", "403", "404", "429", "503"}
    assert set(some["responses"]) == {"200", "400", "401", "403", "429", "503"}
    for operation in (one, some):
        assert "history:erase" in operation["description"]
        answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert answer["$ref"].endswith("/Erasure")
    assert [(p["name"], p["required"]) for p in some["parameters"]] == [("loan_id", True)]
    assert "410" in paths["/history/{prediction_id}"]["get"]["responses"]

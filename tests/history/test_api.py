"""The reading routes: pages, filters, records, exports and statistics that add up."""

import csv
import io
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.main import create_app
from services.history.recorder import store
from services.history.schemas import encode_cursor
from services.local.servers import Server
from shared.contract.events import PredictionRecorded
from tests import keys
from tests.harness import HOST, free_port
from tests.history.conftest import STORED_EVENTS, quick_settings
from tests.history.events import MODELS, random_event, random_events, row_of, with_loan_id
from tests.history.storage import store_all
from tests.serving import served

PROBLEM = "application/problem+json"


def ids(records: list[dict[str, Any]]) -> list[str]:
    """The ids of the records, in order."""
    return [record["prediction_id"] for record in records]


def ids_where(
    events: list[PredictionRecorded], keep: Callable[[PredictionRecorded], bool]
) -> list[str]:
    """The ids of the events to keep, in order."""
    return [str(event.decision.prediction_id) for event in events if keep(event)]


async def all_pages(client: httpx.AsyncClient, **parameters: Any) -> list[dict[str, Any]]:
    """Every record, following the cursors."""
    records: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        response = await client.get("/history", params={**parameters, **cursor})
        assert response.status_code == 200, response.text
        page = response.json()
        records += page["items"]
        if page["next_cursor"] is None:
            return records
        cursor = {"cursor": page["next_cursor"]}


async def test_pages_hold_every_record_once_the_newest_first(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """Following next_cursor to its end gives each record once; the last page says so."""
    assert ids(await all_pages(client, limit=100)) == ids_where(events, lambda _: True)
    assert ids(await all_pages(client, limit=50)) == ids_where(events, lambda _: True)
    assert len((await client.get("/history")).json()["items"]) == 20


async def test_empty_history_is_an_empty_page(client: httpx.AsyncClient) -> None:
    """Nothing recorded yet is no error."""
    assert (await client.get("/history")).json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("parameters", "keep"),
    [
        ({"prediction": "Rejected"}, lambda e: e.decision.prediction == "Rejected"),
        ({"model": MODELS[2]}, lambda e: e.decision.model_info.name == MODELS[2]),
        ({"min_confidence": 0.9}, lambda e: e.decision.confidence >= 0.9),
        ({"max_confidence": 0.55}, lambda e: e.decision.confidence <= 0.55),
        ({"had_warnings": "true"}, lambda e: bool(e.decision.warnings)),
        ({"had_warnings": "false"}, lambda e: not e.decision.warnings),
        (
            {"prediction": "Approved", "min_confidence": 0.6, "max_confidence": 0.8},
            lambda e: e.decision.prediction == "Approved" and 0.6 <= e.decision.confidence <= 0.8,
        ),
    ],
)
async def test_filters_leave_what_passes_them_all(
    client: httpx.AsyncClient,
    events: list[PredictionRecorded],
    parameters: dict[str, Any],
    keep: Callable[[PredictionRecorded], bool],
) -> None:
    """Each filter narrows what the others leave, across pages."""
    expected = ids_where(events, keep)
    assert 0 < len(expected) < STORED_EVENTS
    assert ids(await all_pages(client, limit=7, **parameters)) == expected


async def test_loan_id_finds_its_decisions(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """The applicant's own id leads to the decisions about it."""
    loan_id = events[40].decision.input_data.Loan_ID
    found = await all_pages(client, loan_id=loan_id)
    assert ids(found) == ids_where(events, lambda e: e.decision.input_data.Loan_ID == loan_id)


async def test_since_is_inclusive_and_until_is_not(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """In any time zone."""
    since, until = (
        events[number].decision.timestamp.replace(microsecond=0) for number in (200, 50)
    )
    expected = ids_where(events, lambda e: since <= e.decision.timestamp < until)
    assert 0 < len(expected) < STORED_EVENTS
    zone = {"since": since.isoformat(), "until": until.isoformat().replace("+00:00", "Z")}
    assert ids(await all_pages(client, limit=100, **zone)) == expected


async def test_since_and_until_are_exact_to_the_microsecond(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """Decisions within one millisecond, and at either end of it, are distinguished."""
    start = datetime(2026, 3, 1, 12, 0, 0, 123_000, UTC)
    rng = random.Random(39)  # noqa: S311 - test data, not a secret
    events = [
        random_event(rng, decided_at=start + timedelta(microseconds=offset))
        for offset in (-1, 0, 1, 499, 500, 501, 999, 1000)
    ]
    await store_all(engine, events)
    for since in events:
        for until in events:
            low, high = since.decision.timestamp, until.decision.timestamp
            if low >= high:
                continue
            zone = {"since": low.isoformat(), "until": high.isoformat()}
            found = await all_pages(client, limit=100, **zone)
            expected = ids_where(events, lambda e: low <= e.decision.timestamp < high)  # noqa: B023 - called here
            assert sorted(ids(found)) == sorted(expected), zone


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00"),
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
async def test_time_beyond_all_dates_of_utc_bounds_nothing(
    client: httpx.AsyncClient, events: list[PredictionRecorded], since: str, until: str
) -> None:
    """The earliest and the latest time that can be written include every decision."""
    found = await all_pages(client, limit=100, since=since, until=until)
    assert len(found) == len(events)


@pytest.mark.parametrize(
    "path",
    [
        "/history?prediction=Rejected&prediction=Approved",
        "/history?limit=5&limit=5",
        "/history/export?model=random_forest&format=csv&model=logistic_regression",
        "/history?loan_id=A&loan_id=B",
    ],
)
async def test_repeated_parameter_is_refused(client: httpx.AsyncClient, path: str) -> None:
    """It is unclear which of its values counts, so no answer is computed or cached."""
    methods = ("GET", "DELETE") if path.startswith("/history?loan_id") else ("GET",)
    for method in methods:
        response = await client.request(method, path)
        assert response.status_code == 400
        [fault] = response.json()["validation_errors"]
        assert path.count(f"{fault['field']}=") == 2
        assert "more than once" in fault["message"]


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("limit=0", "limit", "must be at least 1"),
        ("limit=101", "limit", "must be at most 100"),
        ("prediction=Maybe", "prediction", "must be 'Approved' or 'Rejected'"),
        ("model=Oracle", "model", "must match"),
        ("since=yesterday", "since", "datetime"),
        ("since=2026-01-01T00:00:00", "since", "must have a timezone"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "query", "since must be earlier"),
        ("since=2026-01-01T00:00:00Z&until=2026-01-01T00:00:00Z", "query", "since must be earlier"),
        ("min_confidence=0.9&max_confidence=0.1", "query", "min_confidence must not be"),
        ("min_confidence=nan", "min_confidence", "must be at most 1"),
        ("loan_id=a%00b", "loan_id", "must be visible characters, without spaces"),
        ("cursor=abc", "cursor", "next_cursor"),
        ("cursor=%C3%A9", "cursor", "next_cursor"),
        ("predictoin=Approved", "predictoin", "nearest one is prediction"),
        ("had_warning=true", "had_warning", "nearest one is had_warnings"),
    ],
)
async def test_wrong_parameter_is_a_problem_that_names_it(
    client: httpx.AsyncClient, query: str, field: str, says: str
) -> None:
    """An invalid parameter is a 400 and never silently ignored."""
    response = await client.get(f"/history?{query}")
    assert response.status_code == 400
    assert response.headers["content-type"] == PROBLEM
    [fault] = response.json()["validation_errors"]
    assert fault["field"] == field
    assert says in fault["message"]


async def test_all_faults_are_named_at_once(client: httpx.AsyncClient) -> None:
    """A caller mends everything in one go."""
    response = await client.get("/history?limit=x&colour=red&model=Oracle")
    faults = {fault["field"] for fault in response.json()["validation_errors"]}
    assert faults == {"limit", "colour", "model"}


async def test_altered_cursor_is_refused(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """A cursor with any character changed is 400, not another page."""
    cursor = encode_cursor(events[3].decision.prediction_id)
    assert (await client.get("/history", params={"cursor": cursor})).status_code == 200
    for position in range(0, len(cursor) - 1, 3):
        other = "A" if cursor[position] != "A" else "B"
        altered = cursor[:position] + other + cursor[position + 1 :]
        response = await client.get("/history", params={"cursor": altered})
        assert response.status_code == 400, altered


@pytest.mark.parametrize("path", ["/statistics", "/analytics", f"/history/{UUID(int=1)}", "/"])
async def test_route_without_parameters_refuses_them(client: httpx.AsyncClient, path: str) -> None:
    """A parameter that would do nothing is named instead of ignored."""
    response = await client.get(f"{path}?since=2026")
    assert response.status_code == 400
    assert response.json()["validation_errors"][0]["field"] == "since"


async def test_one_record_is_the_decision_as_it_was_answered(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """The record has every member of the decision, and who asked."""
    event = events[0]
    response = await client.get(f"/history/{event.decision.prediction_id}")
    record = response.json()
    decision = json.loads(event.decision.model_dump_json())
    assert {name: record[name] for name in decision} == decision
    assert record["client"] == event.client
    assert record["request_id"] == event.request_id
    assert datetime.fromisoformat(record["recorded_at"]) <= datetime.now(UTC)


async def test_unknown_record_is_404_and_is_found_once_it_is_stored(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """Not found is never kept in the cache: the record may be on its way."""
    event = random_events(1, seed=32)[0]
    path = f"/history/{event.decision.prediction_id}"
    response = await client.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == PROBLEM
    await store(engine, [row_of(event)])
    assert (await client.get(path)).status_code == 200
    assert (await client.get("/history/not-an-id")).status_code == 400


async def test_export_as_ndjson_is_the_list_without_its_pages(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """One record per line, as /history gives it, across the export's own pages."""
    await store(engine, [row_of(event) for event in random_events(2300, seed=33)])
    response = await client.get("/history/export?format=ndjson&prediction=Approved")
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["content-disposition"] == 'attachment; filename="history.ndjson"'
    exported = [json.loads(line) for line in response.text.splitlines()]
    assert exported == await all_pages(client, limit=100, prediction="Approved")


async def test_export_as_csv_has_a_header_and_a_line_per_record(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """Missing values are empty cells; commas and quotes in texts survive."""
    response = await client.get("/history/export?format=csv")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(io.StringIO(response.text)))
    assert [line["id"] for line in lines] == ids_where(events, lambda _: True)
    for line, event in zip(lines, events, strict=True):
        assert line["warnings"] == "; ".join(event.decision.warnings)
        assert line["reasons"] == "; ".join(reason.code for reason in event.decision.reasons or ())
        assert float(line["confidence"]) == event.decision.confidence
        assert line["property_area"] == (event.decision.input_data.Property_Area or "")
        assert datetime.fromisoformat(line["decided_at"]) == event.decision.timestamp


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
async def test_csv_export_holds_no_cell_that_a_spreadsheet_would_run(
    client: httpx.AsyncClient, engine: AsyncEngine, start: str
) -> None:
    """Whatever text a caller chose gets an apostrophe first; numbers, and NDJSON, stay exact."""
    text = f"{start}1+cmd"
    event = with_loan_id(random_events(1, seed=38, warnings=[text, "b"])[0], text)
    event = event.model_copy(update={"request_id": text, "client": text})
    await store_all(engine, [event])
    exported = (await client.get("/history/export?format=csv")).content.decode()
    [line] = csv.DictReader(io.StringIO(exported, newline=""))
    for name in ("loan_id", "request_id", "client"):
        assert line[name] == f"'{text}"
    assert line["warnings"] == f"'{text}; b"
    assert float(line["confidence"]) == event.decision.confidence
    [record] = (await client.get("/history/export")).text.splitlines()
    assert json.loads(record)["input_data"]["Loan_ID"] == text
    assert json.loads(record)["request_id"] == text


async def test_empty_export_is_the_header_alone(client: httpx.AsyncClient) -> None:
    """Nothing to export is an empty file of the format asked for."""
    assert (await client.get("/history/export?format=csv")).text.count("\n") == 1
    assert (await client.get("/history/export")).text == ""
    assert (await client.get("/history/export?format=xml")).status_code == 400


@pytest.mark.parametrize(
    "path", ["/statistics", "/analytics", "/history?limit=5&model=random_forest"]
)
async def test_second_answer_comes_from_the_cache_until_something_is_stored(
    client: httpx.AsyncClient, path: str
) -> None:
    """X-Cache distinguishes cached answers; storing a decision expires them."""
    first = await client.get(path)
    second = await client.get(path)
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    assert first.content == second.content
    await client.post(
        "/internal/predictions", content=random_events(1, seed=36)[0].model_dump_json()
    )
    assert (await client.get(path)).headers["x-cache"] == "MISS"


async def test_kept_record_outlives_what_is_stored_after_it(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """A record never changes, so only its age ends its life in the cache."""
    path = f"/history/{events[0].decision.prediction_id}"
    assert (await client.get(path)).headers["x-cache"] == "MISS"
    await client.post(
        "/internal/predictions", content=random_events(1, seed=37)[0].model_dump_json()
    )
    assert (await client.get(path)).headers["x-cache"] == "HIT"


async def test_cache_keeps_answers_with_different_parameters_apart(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """The order of parameters makes no difference, their values do."""
    assert events
    await client.get("/history?limit=5&model=random_forest")
    same = await client.get("/history?model=random_forest&limit=5")
    other = await client.get("/history?model=random_forest&limit=6")
    assert (same.headers["x-cache"], other.headers["x-cache"]) == ("HIT", "MISS")


@pytest.mark.parametrize("encoding", ["zstd", "br", "gzip"])
async def test_answers_are_compressed_for_who_can_read_it(
    client: httpx.AsyncClient, events: list[PredictionRecorded], encoding: str
) -> None:
    """The modern encodings are spoken, and no other client is forced to."""
    assert events
    plain = await client.get("/history", headers={"accept-encoding": "identity"})
    async with client.stream("GET", "/history", headers={"accept-encoding": encoding}) as response:
        raw = b"".join([piece async for piece in response.aiter_raw()])
    assert response.headers["content-encoding"] == encoding
    assert len(raw) < len(plain.content) / 2
    assert "content-encoding" not in plain.headers


async def test_reading_goes_on_without_redis(database_url: str) -> None:
    """Without Redis every answer is computed, the service is degraded and stays ready."""
    settings = quick_settings(
        database_url=database_url, redis_url=f"redis://{HOST}:{free_port()}/0"
    )
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        for _ in range(2):
            response = await client.get("/statistics")
            assert (response.status_code, response.headers["x-cache"]) == (200, "MISS")
        assert (await client.get("/readyz")).status_code == 200
        health = (await client.get("/health")).json()
    assert health["status"] == "degraded"
    assert health["checks"]["redis"]["status"] == "down"


async def test_service_starts_without_its_database_and_is_ready_once_it_is_there(
    own_postgres: Server, redis_url: str
) -> None:
    """Without the database: not ready, 503 with Retry-After, alive; with it: ready, unrestarted."""
    own_postgres.process.stop()
    settings = quick_settings(database_url=own_postgres.url, redis_url=redis_url)
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        for path in ("/statistics", "/history", "/history/export", f"/history/{uuid4()}"):
            response = await client.get(path)
            assert response.status_code == 503, path
            assert response.headers["content-type"] == PROBLEM
            assert response.headers["retry-after"] == "1"
        own_postgres.process.start()
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/statistics")).status_code == 200


async def test_database_restart_shows_no_error_to_who_asks_after_it(
    own_postgres: Server, redis_url: str
) -> None:
    """Connections that the restart cut are replaced before they are used."""
    settings = quick_settings(database_url=own_postgres.url, redis_url=redis_url)
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        assert (await client.get("/history")).status_code == 200
        own_postgres.process.kill()
        own_postgres.process.start()
        assert (await client.get("/history?limit=2")).status_code == 200


async def test_database_without_tables_is_not_ready(
    empty_database_url: str, redis_url: str
) -> None:
    """A database that was never migrated is reported as such."""
    settings = quick_settings(database_url=empty_database_url, redis_url=redis_url)
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/history")).status_code == 500


async def test_service_says_what_it_is_and_documents_itself_offline(
    client: httpx.AsyncClient,
) -> None:
    """The root leads everywhere; the documentation page loads nothing from elsewhere."""
    about = (await client.get("/")).json()
    assert about["service"] == "history"
    for link in about["links"].values():
        assert (await client.get(link)).status_code == 200, link
    assert "https://" not in (await client.get("/docs")).text
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/history", "/history/export", "/history/{prediction_id}", "/statistics"} <= set(paths)

"""A file becomes decisions, and whatever cannot be used is named."""

import asyncio
import csv
import io
import json
from functools import partial
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import pyarrow as pa
import pytest
import yaml
from openpyxl import Workbook
from pyarrow import parquet

from loan_predictor_client import AsyncLoanPredictorClient, LoanPredictorClient, UnsendableCall
from services.batch.checking import CHUNK_ROWS
from services.batch.main import create_app
from services.batch.settings import BatchSettings
from shared.access.api_keys import mint_key, parse_keys
from shared.files.applications import read_applications
from tests import keys
from tests.access import assert_access_is_as_documented
from tests.batch.conftest import working
from tests.batch.files import (
    CSV,
    NDJSON,
    applications,
    as_csv,
    as_ndjson,
    begin,
    ended,
    lines,
    post,
)
from tests.serving import served
from tests.waiting import eventually_said

_PARQUET = "application/vnd.apache.parquet"
_XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def _parquet(rows: list[dict[str, object]]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def _xlsx(rows: list[dict[str, object]]) -> bytes:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in ([*rows[0]], *([*row.values()] for row in rows)):
        sheet.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


async def test_every_kind_of_file_is_decided_alike_in_its_order(
    client: httpx.AsyncClient, settings: BatchSettings
) -> None:
    """CSV, NDJSON, Parquet and Excel; results as CSV, NDJSON and Parquet."""
    rows = applications(1100)
    kinds = {CSV: as_csv, NDJSON: as_ndjson, _PARQUET: _parquet, _XLSX: _xlsx}
    paths = [
        await begin(client, write(rows), kind, record="false") for kind, write in kinds.items()
    ]
    async with working(settings):
        done = [await ended(client, path) for path in paths]
    assert {(each["state"], each["rows"], each["decided"]) for each in done} == {
        ("done", 1100, 1100)
    }
    assert {each["faulty"] for each in done} == {0}
    assert len({(each["approved"], each["with_warnings"]) for each in done}) == 1
    decided = [await lines(client, f"{path}/results", format="ndjson") for path in paths]
    assert [[line["line"] for line in each] for each in decided] == [
        [*range(first, first + 1100)] for first in (2, 1, 1, 2)
    ]
    varying = ("line", "timestamp", "prediction_id")
    assert {line["prediction_id"] for each in decided for line in each} == {None}
    compared = [
        [{k: v for k, v in line.items() if k not in varying} for line in each] for each in decided
    ]
    assert compared[0] == compared[1] == compared[2] == compared[3]
    assert [line["input_data"]["Loan_ID"] for line in decided[0]] == [r["Loan_ID"] for r in rows]
    assert done[0]["approved"] == sum(line["prediction"] == "Approved" for line in decided[0])
    assert done[0]["with_warnings"] == sum(bool(line["warnings"]) for line in decided[0])

    table = (await client.get(f"{paths[0]}/results")).content
    assert len(read_applications(table).rows) == 1100
    csv_rows = list(csv.DictReader(io.StringIO(table.decode())))
    file = (await client.get(f"{paths[0]}/results", params={"format": "parquet"})).content
    arrow = parquet.read_table(io.BytesIO(file))
    assert arrow.column_names == list(csv_rows[0])
    assert arrow["line"].to_pylist() == [*range(2, 1102)]
    for name in ("prediction", "model", "Loan_ID"):
        assert arrow[name].to_pylist() == [row[name] for row in csv_rows]
    probabilities = arrow["probability_approved"].to_pylist()
    assert probabilities == [line["probability"]["approved"] for line in decided[0]]
    assert [float(row["probability_approved"]) for row in csv_rows] == probabilities


async def test_faulty_rows_are_named_by_line_with_all_their_faults(
    client: httpx.AsyncClient, settings: BatchSettings
) -> None:
    """As a single request would have been answered; the others are decided all the same."""
    rows = applications(20)
    rows[3] |= {"ApplicantIncome": "-5", "Education": "Phd"}
    text = as_csv(rows) + b"LP9,Male\n"
    good = [line for line in range(2, 22) if line != 5]
    path = await begin(client, text)
    stopped = await begin(client, text, faulty="stop")
    mixed = await begin(client, as_ndjson(rows[:2]) + b"\n\n[1]\n{\n", NDJSON)
    async with working(settings):
        done = await ended(client, path)
        assert (done["state"], done["rows"], done["faulty"]) == ("done", 21, 2)
        assert [
            each["line"] for each in await lines(client, f"{path}/results", format="ndjson")
        ] == (good)
        first, second = await lines(client, f"{path}/faults")
        assert first["line"] == 5
        assert [fault["field"] for fault in first["faults"]] == ["Education", "ApplicantIncome"]
        assert first["faults"][0]["value"] == "Phd"
        assert second == {
            "line": 22,
            "faults": [
                {"field": "row", "message": "has 2 cells, the header has 12", "value": None}
            ],
        }
        done = await ended(client, stopped)
        assert (done["state"], done["decided"]) == ("failed", 0)
        assert done["problem"] == "2 rows are faulty, so nothing was decided."
        assert len(await lines(client, f"{stopped}/faults")) == 2
        done = await ended(client, mixed)
        assert (done["decided"], done["faulty"]) == (2, 2)
        assert [each["line"] for each in await lines(client, f"{mixed}/faults")] == [4, 5]


async def test_spellings_are_read_as_they_are_meant_only_when_chosen(
    client: httpx.AsyncClient, settings: BatchSettings
) -> None:
    text = b'applicant income,Credit_History,Education_,LoanAmount,Branch\n"4,583",yes,,#N/A,7\n'
    misspelt = await begin(client, b"ApplicantIncome,LoanAmnt\n5000,1\n", unknown="skip")
    plain = await begin(client, text)
    chosen = await begin(client, text, spelling=["groups", "Credit_History values"], record="false")
    async with working(settings):
        done = await ended(client, misspelt)
        assert done["decided"] == 1
        assert done["remarks"][-1].endswith("'LoanAmnt'; perhaps it should be LoanAmount.")
        done = await ended(client, plain)
        assert done["faulty"] == 1
        absent, left_out, missing, *readable = done["remarks"]
        assert absent.startswith("Missing in every row because it has no column: ")
        assert left_out == "Left out because it is not a known column: 'Branch'."
        assert missing == "#N/A counts as a missing value, in 1 cell."
        of_groups, of_history = readable
        assert of_groups.startswith("The spelling 'groups' would read faulty cells such as '4,583'")
        assert of_history.startswith("The spelling 'Credit_History values' would read")
        assert (await ended(client, chosen))["decided"] == 1
        [decision] = await lines(client, f"{chosen}/results", format="ndjson")
    assert decision["input_data"]["ApplicantIncome"] == 4583


_UNUSABLE: list[tuple[bytes, str, dict[str, str], int, str]] = [
    (b"", CSV, {}, 400, "The file is empty."),
    (b"Income,Loan\n1,2\n", CSV, {}, 400, "does not name ApplicantIncome"),
    (b"ApplicantIncome\n", CSV, {}, 400, "has a header and no rows"),
    (b"ApplicantIncome\n1\n", _PARQUET, {}, 400, "send it as text/csv or application/x-ndjson."),
    (b"PAR1", CSV, {}, 400, "looks like a Parquet file, but its Content-Type is text/csv; send"),
    (b"PK\x03\x04xl/", _XLSX, {}, 400, "The Excel file is damaged or incomplete."),
    (b"ApplicantIncome,LoanAmnt\n1,2\n", CSV, {}, 400, "perhaps it should be LoanAmount. Rename"),
    (b"PAR1", _PARQUET, {}, 400, "Parquet file cannot be read"),
    (b"PK\x03\x04", _XLSX, {}, 400, "This is an archive"),
    (b'\xef\xbb\xbf [{"ApplicantIncome": 1}]', NDJSON, {}, 400, "Line 1 must be a JSON object. In"),
    (b'{\n"ApplicantIncome": 1\n}', NDJSON, {}, 400, "In NDJSON each line is one application."),
    (b"ApplicantIncome\n1\n", NDJSON, {}, 400, "Line 1 is not valid JSON"),
    (b"ApplicantIncome\n1\n", "text/plain", {}, 415, "Send the body as text/csv or"),
    (b"ApplicantIncome\n1\n", CSV, {"model": "none"}, 404, "There is no model 'none'"),
    (b"ApplicantIncome\n1\n", CSV, {"spelling": "odd"}, 400, "spelling"),
    (b"ApplicantIncome\n1\n", CSV, {"webhook": "http://other/"}, 400, "webhook"),
    (b"ApplicantIncome\n" + b"1" * 3000, CSV, {}, 413, "at most 2000 bytes"),
]


async def test_unusable_file_is_refused_at_once_and_nothing_of_it_is_kept(
    settings: BatchSettings, database: asyncpg.Connection
) -> None:
    small = settings.model_copy(update={"batch_max_bytes": 2000})
    async with served(create_app(small), headers=keys.HEADERS) as client:
        for content, kind, params, status, detail in _UNUSABLE:
            answer = await post(client, content, kind, params=params)
            assert answer.status_code == status, (kind, content)
            assert answer.headers["content-type"] == "application/problem+json"
            assert detail in answer.json()["detail"]
    for table in ("batches", "uploads"):
        assert await database.fetchval(f"SELECT count(*) FROM batch.{table}") == 0  # noqa: S608


def test_gateway_is_given_the_same_bound_of_a_file() -> None:
    """The setting of the stack governs both, and so does its default."""
    root = Path(__file__).parents[2]
    gateway = yaml.safe_load((root / "docker-compose.yml").read_text())["services"]["gateway"]
    default = BatchSettings.model_fields["batch_max_bytes"].default
    assert gateway["environment"]["BATCH_MAX_BYTES"] == f"${{BATCH_MAX_BYTES:-{default}}}"
    served_at = "location ~ ^/batches(/|$)"
    [_, location] = (root / "services/gateway/nginx.conf").read_text().split(served_at)
    assert "client_max_body_size ${BATCH_MAX_BYTES};" in location.partition("}\n\n")[0]


async def test_same_key_with_the_same_order_is_the_same_batch(client: httpx.AsyncClient) -> None:
    """With another file or other parameters it is refused."""
    text = as_csv(applications(2))
    key = {"idempotency-key": "september"}
    first, again = [await post(client, text, headers=key) for _ in range(2)]
    assert first.status_code == again.status_code == 202
    assert first.headers["location"] == again.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    for other in (
        await post(client, text + b"x", headers=key),
        await post(client, text, headers=key, params={"faulty": "stop"}),
    ):
        assert other.status_code == 422
        assert other.json()["code"] == "IdempotencyKeyReused"
        assert "another body or other parameters" in other.json()["detail"]
    assert (await post(client, text)).headers["location"] != first.headers["location"]


async def test_caller_sees_its_own_batches_alone_the_newest_first_a_page_at_a_time(
    settings: BatchSettings,
) -> None:
    secret, entry = mint_key("another", ["batch"])
    both = settings.model_copy(update={"api_keys": parse_keys(f"{keys.ENTRY} {entry}")})
    text = as_csv(applications(1))
    async with served(create_app(both), headers=keys.HEADERS) as client:
        paths = [await begin(client, text) for _ in range(5)]
        listed = []
        params: dict[str, str] = {"limit": "2"}
        while True:
            page = (await client.get("/batches", params=params)).json()
            listed += page["items"]
            if page["next_cursor"] is None:
                break
            params["cursor"] = page["next_cursor"]
        assert [f"/batches/{each['id']}" for each in listed] == paths[::-1]
        assert {(each["client"], each["state"]) for each in listed} == {("tests", "queued")}
        another = {"x-api-key": secret}
        for method, path in (
            ("GET", paths[0]),
            ("DELETE", paths[0]),
            ("GET", f"{paths[0]}/results"),
            ("GET", f"{paths[0]}/faults"),
        ):
            answer = await client.request(method, path, headers=another)
            assert answer.status_code == 404, path
        assert (await client.get("/batches", headers=another)).json()["items"] == []
        assert (await client.get(paths[0])).json()["state"] == "queued"
        async with working(settings):
            assert (await ended(client, paths[0]))["state"] == "done"


async def test_cancelled_batch_is_decided_no_further(
    client: httpx.AsyncClient, settings: BatchSettings, database: asyncpg.Connection
) -> None:
    """What was decided stays, and can be downloaded."""
    full = settings.model_copy(update={"batch_stream_entries": 1})
    path = await begin(client, as_csv(applications(CHUNK_ROWS + 200)))
    waiting = await begin(client, as_csv(applications(1)))
    assert (await client.delete(waiting)).json()["state"] == "cancelled"
    async with working(full):

        async def begun() -> bool:
            return bool((await client.get(path)).json()["decided"])

        await eventually_said(begun)
        cancelled = (await client.delete(path)).json()
    assert cancelled["state"] == "cancelled"
    assert cancelled["finished_at"] < cancelled["expires_at"]
    assert (await client.get(path)).json()["decided"] == CHUNK_ROWS
    assert len(await lines(client, f"{path}/results", format="ndjson")) == CHUNK_ROWS
    assert (await client.delete(path)).json()["state"] == "cancelled"
    assert await database.fetchval("SELECT count(*) FROM batch.uploads") == 0


async def test_key_is_needed_with_the_scope_that_is_documented(settings: BatchSettings) -> None:
    await assert_access_is_as_documented(
        lambda own: create_app(settings.model_copy(update={"api_keys": own}))
    )


@pytest.mark.parametrize("blocking", [False, True])
async def test_clients_send_a_file_and_fetch_what_became_of_it(
    client: httpx.AsyncClient, settings: BatchSettings, blocking: bool
) -> None:
    """Both alike; a batch can be cancelled, and a page of them listed."""
    url = str(client.base_url)
    rows = applications(3)
    rows[1]["ApplicantIncome"] = "unknown"
    names = ("create_batch", "batch", "batches", "batch_faults", "cancel_batch")
    other = LoanPredictorClient(url, url, batch_url=url, api_key=keys.SECRET)
    async with AsyncLoanPredictorClient(url, url, batch_url=url, api_key=keys.SECRET) as own:
        calls = {name: getattr(own, name) for name in names}
        if blocking:
            calls = {name: partial(asyncio.to_thread, getattr(other, name)) for name in names}
        made = await calls["create_batch"](as_csv(rows), spellings=["comma"], model="random_forest")
        async with working(settings):
            await ended(client, f"/batches/{made.id}")
        done = await calls["batch"](made.id)
        assert (done.state, done.decided, done.faulty, done.model) == (
            *("done", 2, 1, "random_forest"),
        )
        assert [row.line for row in await calls["batch_faults"](made.id)] == [3]
        again = await calls["create_batch"](as_ndjson(rows), kind="ndjson", record=False)
        assert (await calls["cancel_batch"](again.id)).state == "cancelled"
        assert [each.id for each in (await calls["batches"](limit=5)).items] == [again.id, made.id]
        if blocking:
            content = await asyncio.to_thread(_results, other, made.id)
        else:
            async with own.batch_results(made.id, format="ndjson") as pieces:
                content = b"".join([piece async for piece in pieces])
        assert [json.loads(line)["line"] for line in content.splitlines()] == [2, 4]
    other.close()
    async with AsyncLoanPredictorClient(url, url) as homeless:
        with pytest.raises(UnsendableCall, match="batch_url"):
            await homeless.batches()


def _results(client: LoanPredictorClient, batch_id: UUID) -> bytes:
    with client.batch_results(batch_id) as chunks:
        return b"".join(chunks)

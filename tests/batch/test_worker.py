"""What a worker does besides deciding: turns, erasure, webhooks, deletion, and its metrics."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.batch import upkeep
from services.batch.checking import CHUNK_ROWS
from services.batch.database import DATABASE_ERRORS, open_pool, transaction
from services.batch.main import create_app
from services.batch.settings import BatchSettings
from services.history.main import create_app as create_history
from shared.access.api_keys import mint_key, parse_keys
from tests import keys
from tests.batch.conftest import working
from tests.batch.files import applications, as_csv, begin, ended, lines, post
from tests.history.conftest import consuming, quick_settings
from tests.serving import served
from tests.waiting import eventually_said


async def test_short_batch_does_not_wait_for_another_client_s_long_ones(
    settings: BatchSettings,
) -> None:
    """One place to work, and turns that each decide one chunk."""
    secret, entry = mint_key("another", ["batch"])
    turns = settings.model_copy(
        update={
            "api_keys": parse_keys(f"{keys.ENTRY} {entry}"),
            "batch_concurrency": 1,
            "batch_turn_s": 0.001,
        }
    )
    async with served(create_app(turns), headers=keys.HEADERS) as client:
        text = as_csv(applications(4000))
        long = [await begin(client, text, record="false") for _ in range(2)]
        answer = await post(
            client,
            as_csv(applications(3)),
            params={"record": "false"},
            headers={"x-api-key": secret},
        )
        client.headers["x-api-key"] = secret
        async with working(turns):
            short = await ended(client, answer.headers["location"])
            client.headers.update(keys.HEADERS)
            done = [await ended(client, path) for path in long]
    assert short["state"] == "done"
    assert all(short["finished_at"] < each["finished_at"] for each in done)


async def test_erasure_reaches_files_and_results(
    settings: BatchSettings, database: asyncpg.Connection, redis_url: str
) -> None:
    """Once it is answered nothing of the person is shown, and soon nothing is kept.

    Neither in decisions, nor in faulty rows, nor in a batch that left no record or has still to be
    decided.
    """
    rows = applications(CHUNK_ROWS + 200)
    in_second = CHUNK_ROWS + 100
    person, end = rows[in_second]["Loan_ID"], len(rows) + 2
    faulty = [rows[in_second] | {"ApplicantIncome": "unknown"}, rows[1]]
    url = f"postgresql+asyncpg{settings.database_url.removeprefix('postgresql')}"
    history_settings = quick_settings(database_url=url, redis_url=redis_url)
    async with (
        served(create_app(settings), headers=keys.HEADERS) as client,
        served(create_history(history_settings), headers=keys.HEADERS) as history,
    ):
        recorded = await begin(client, as_csv(rows))
        unrecorded = await begin(client, as_csv(rows), record="false")
        named = await begin(client, as_csv(faulty))
        async with consuming(history_settings), working(settings):
            for path in (recorded, unrecorded, named):
                assert (await ended(client, path))["state"] == "done"
            first = (await lines(client, f"{recorded}/results", format="ndjson"))[0]

            async def stored() -> bool:
                return bool(
                    await database.fetchval("SELECT count(*) FROM predictions") == len(rows) + 1
                )

            await eventually_said(stored)
        later = await begin(client, as_csv(rows))
        answer = await history.delete("/history", params={"loan_id": str(person)})
        assert answer.json()["erased"] == 1
        answer = await history.delete(f"/history/{first['prediction_id']}")
        assert answer.status_code == 200
        await _shown(client, recorded, {*range(3, end)} - {in_second + 2})
        await _shown(client, unrecorded, {*range(2, end)} - {in_second + 2})
        assert await lines(client, f"{named}/faults") == []
        async with working(settings):
            assert (await ended(client, later))["state"] == "done"

            async def forgotten() -> bool:
                return not await database.fetchval("SELECT count(*) FROM batch.erasures")

            await eventually_said(forgotten)
        await _shown(client, later, {*range(2, end)} - {in_second + 2})
        await _shown(client, recorded, {*range(3, end)} - {in_second + 2})
        again = await begin(client, as_csv(rows[in_second : in_second + 1]))
        async with working(settings):
            assert (await ended(client, again))["decided"] == 1
        assert len(await lines(client, f"{again}/results", format="ndjson")) == 1


async def _shown(client: httpx.AsyncClient, path: str, expected: set[int]) -> None:
    decisions = await lines(client, f"{path}/results", format="ndjson")
    assert {each["line"] for each in decisions} == expected


@asynccontextmanager
async def _receiver(statuses: list[int]) -> AsyncIterator[tuple[httpx.AsyncClient, list[Request]]]:
    """A server that answers with these statuses, and the requests that came."""
    came: list[Request] = []

    async def receive(request: Request) -> Response:
        await request.body()
        came.append(request)
        return Response(status_code=statuses[len(came) - 1])

    async with served(Starlette(routes=[Route("/ended", receive, methods=["POST"])])) as client:
        yield client, came


async def test_webhook_reports_the_end_signed_and_again_until_it_is_taken(
    settings: BatchSettings, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("services.batch.worker._UPKEEP_S", 0.02)
    async with _receiver([500, 302, 204]) as (receiver, came):
        allowed = settings.model_copy(
            update={
                "batch_webhook_hosts": (receiver.base_url.netloc.decode(),),
                "batch_webhook_secret": SecretStr("whispered"),
            }
        )
        address = str(receiver.base_url.join("/ended"))
        async with served(create_app(allowed), headers=keys.HEADERS) as client, working(allowed):
            for refused in (
                "http://elsewhere/ended",
                address.replace("http://", "http://user@"),
                address.replace("http:", "file:"),
            ):
                answer = await post(client, as_csv(applications(1)), params={"webhook": refused})
                assert answer.status_code == 400
            path = await begin(client, as_csv(applications(3)), webhook=address)
            await ended(client, path)

            async def taken() -> bool:
                due = "SELECT count(*) FROM batch.batches WHERE webhook_due IS NOT NULL"
                return len(came) == 3 and not await database.fetchval(due)

            await eventually_said(taken)
            batch = (await client.get(path)).json()
    for request in came:
        body = await request.body()
        message = json.loads(body)
        assert (message["type"], message["data"]["id"]) == ("batch.done", batch["id"])
        assert message["data"]["decided"] == 3
        assert request.headers["webhook-id"] == batch["id"]
        text = f"{batch['id']}.{request.headers['webhook-timestamp']}.".encode() + body
        signature = base64.b64encode(hmac.digest(b"whispered", text, hashlib.sha256)).decode()
        assert request.headers["webhook-signature"] == f"v1,{signature}"


async def test_ended_batches_are_deleted_by_their_age(
    client: httpx.AsyncClient, settings: BatchSettings, database: asyncpg.Connection
) -> None:
    """With their files and results; one that still goes on stays, however old it is."""
    old, new, queued = [await begin(client, as_csv(applications(2))) for _ in range(3)]
    for path in (old, new):
        await client.delete(path)
    for path in (old, queued):
        await database.execute(
            "UPDATE batch.batches SET created_at = now() - interval '8 days',"
            " finished_at = finished_at - interval '8 days' WHERE id = $1",
            UUID(path.removeprefix("/batches/")),
        )
    async with open_pool(settings, name="test", size=1) as pool:
        assert await upkeep.delete_old(pool, retention_days=7) == 1
    assert [(await client.get(path)).status_code for path in (old, new, queued)] == [404, 200, 200]


async def test_batch_that_no_worker_can_bring_further_has_failed(
    client: httpx.AsyncClient, settings: BatchSettings, database: asyncpg.Connection
) -> None:
    """So has one whose bundle of models is gone, and one with more rows than are allowed."""
    hopeless, orphan = [await begin(client, as_csv(applications(2))) for _ in range(2)]
    too_long = await begin(client, as_csv(applications(1500)))
    for path, change in ((hopeless, "attempts = 10"), (orphan, "bundle_version = 'b-00000000'")):
        await database.execute(
            f"UPDATE batch.batches SET {change} WHERE id = $1",  # noqa: S608 - this file's own
            UUID(path.removeprefix("/batches/")),
        )
    async with working(settings.model_copy(update={"batch_max_rows": 1400})) as worker:
        given_up, unusable, cut_off = [
            await ended(client, path) for path in (hopeless, orphan, too_long)
        ]
    assert given_up["problem"] == "It was given up after 10 attempts without progress."
    assert unusable["problem"].startswith("Its bundle of models cannot be used.")
    assert cut_off["problem"] == "The file has more than 1,400 rows."
    assert cut_off["decided"] == 0
    ends = {s.labels: s.value for s in worker.samples() if s.metric.name == "batch_ended_total"}
    assert ends == {("done",): 0, ("failed",): 3}


async def test_frozen_transaction_releases_its_locks(
    settings: BatchSettings, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is paused in the middle of one would otherwise keep its batch for ever."""
    monkeypatch.setattr("services.batch.database.IDLE_S", 1)
    read = None
    async with open_pool(settings, name="test", size=1) as pool:
        with suppress(*DATABASE_ERRORS):
            async with transaction(pool) as connection:
                await connection.execute("LOCK TABLE batch.batches")
                read = await database.fetch("SELECT FROM batch.batches", timeout=30)
    assert read == []

"""What must never be in a log: keys, passwords, and anything about an applicant."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from redis import Redis

from services.batch.main import create_app as create_batch
from services.batch.settings import BatchSettings
from services.history.main import create_app as create_history
from services.history.settings import HistorySettings
from services.inference.main import create_app as create_inference
from services.inference.settings import InferenceSettings
from services.local.processes import Process
from services.local.servers import Server
from shared.contract.application import EXAMPLE
from shared.contract.events import EVENT_FIELD, INTERNAL_PREDICTIONS_PATH, STREAM
from tests.harness import System, running_system
from tests.history.events import body_of, random_events

_PASSWORD: Final = "Unmistakable-Passw0rd"  # noqa: S105 - it is looked for, not used
_WRONG_KEY: Final = "lp_unmistakably-wrong-0123456789abcdefghijk"
_LOAN_ID: Final = "LP-UNMISTAKABLE-7431"
_INCOME: Final = "48213.77"
_IDEMPOTENCY_KEY: Final = "unmistakable-idempotency-key"
_APPLICATION: Final = EXAMPLE | {"Loan_ID": _LOAN_ID, "ApplicantIncome": _INCOME}
_OTHER: Final = _APPLICATION | {"Loan_ID": f"{_LOAN_ID}-2"}
_BAD: Final = (
    _APPLICATION | {"ApplicantIncome": f"-{_INCOME}"},
    _APPLICATION | {"Loan_ID": f"{_LOAN_ID}\0"},
    _APPLICATION | {_LOAN_ID: _INCOME},
)


@pytest.fixture
def system(
    own_postgres: Server, own_redis: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[System]:
    """The system at its most talkative, on servers that want a password, to be killed."""
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("CONSUMER_RECLAIM_IDLE_S", "0.2")
    monkeypatch.setenv("CONSUMER_MAX_DELIVERIES", "1")
    _protect(own_redis)
    with running_system(
        database_url=own_postgres.url.replace("@", f":{_PASSWORD}@", 1),
        redis_url=f"{own_redis.url}&password={_PASSWORD}",
        logs=tmp_path / "logs",
    ) as running:
        yield running


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A client that names no key of its own accord."""
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


def _protect(redis: Server) -> None:
    with Redis.from_url(redis.url) as client:
        client.config_set("requirepass", _PASSWORD)


_DECIDING: Final = (
    "/predict",
    "/predict/random_forest",
    "/explain",
    "/models/benchmark",
    "/validate-loan",
)
_READING: Final = (
    f"/history?loan_id={_LOAN_ID}",
    f"/history?loan_id={_LOAN_ID}%00",
    f"/history?applicant={_LOAN_ID}",
    f"/history/export?loan_id={_LOAN_ID}&format=csv",
    "/statistics",
)


async def _ask_for_everything(system: System, http: httpx.AsyncClient) -> set[int]:
    """Good, bad, repeated and forbidden requests to both; the statuses they were answered with."""
    key, wrong = {"x-api-key": system.api_key}, {"x-api-key": _WRONG_KEY}
    bearer = {"authorization": f"Bearer {system.api_key}"}
    event = body_of(*random_events(1, seed=7)).replace(b"LP", _LOAN_ID.encode() + b"\\u0000")
    asked = [
        (f"{system.inference_url}{path}", json.dumps(body).encode(), "application/json")
        for path, body in product(_DECIDING, (_APPLICATION, _OTHER, *_BAD))
    ]
    handed = (f"{system.history_url}{INTERNAL_PREDICTIONS_PATH}", event, "application/x-ndjson")
    statuses = set()
    named = key | {"idempotency-key": _IDEMPOTENCY_KEY}
    for caller in (key, bearer, wrong, {}, named, named | {"idempotency-key": f"{_LOAN_ID} again"}):
        for url, body, kind in (*asked, handed):
            answer = await http.post(url, content=body, headers=caller | {"content-type": kind})
            statuses.add(answer.status_code)
        for path in _READING:
            answer = await http.get(f"{system.history_url}{path}", headers=caller)
            statuses.add(answer.status_code)
    return statuses


def _poison(redis: Server) -> None:
    """Put entries in the stream that cannot be stored."""
    good = body_of(*random_events(1, seed=8))
    for event in (
        _INCOME.encode(),
        good.replace(b'"Loan_ID":"', b'"Loan_ID":"%b\\u0000' % _LOAN_ID.encode()),
        good.replace(b'"ApplicantIncome":', b'"ApplicantIncome":"%b",":":' % _LOAN_ID.encode()),
    ):
        with Redis.from_url(redis.url, password=_PASSWORD) as client:
            client.xadd(STREAM, {EVENT_FIELD: event})


@pytest.mark.no_cover  # the product runs in processes of its own
async def test_no_log_tells_a_secret_or_anything_about_an_applicant(
    system: System, http: httpx.AsyncClient, own_postgres: Server, own_redis: Server
) -> None:
    """Neither in good times nor while the servers behind are killed, locked and poisoned."""
    statuses = await _ask_for_everything(system, http)
    _poison(own_redis)
    await asyncio.sleep(3)
    for server in (own_redis, own_postgres):
        await asyncio.to_thread(server.process.kill)
        statuses |= await _ask_for_everything(system, http)
        await asyncio.to_thread(server.process.start)
        # Redis comes back without the password that the services send.
        statuses |= await _ask_for_everything(system, http)
    await asyncio.to_thread(system.history.kill)
    await asyncio.to_thread(own_redis.process.kill)
    # Nobody is left to hand over to; what would be read is asked of the wrong service.
    await _ask_for_everything(replace(system, history_url=system.inference_url), http)
    assert statuses == {200, 400, 401, 422, 429, 503}

    processes = (system.inference, system.history, system.consumer)
    logs = {process.name: _log(process) for process in processes}
    events = {name: list(map(_event, log.splitlines())) for name, log in logs.items()}
    for name, event, members in (
        ("inference", "handing over by HTTP", {"reason": "Redis does not answer"}),
        ("inference", "decisions refused, no sink accepts them", {}),
        ("history", "request", {"route": INTERNAL_PREDICTIONS_PATH, "status": 400}),
        ("history", "stored", {}),
        ("consumer", "stored", {}),
        ("consumer", "events put aside", {}),
    ):
        wanted = {"event": event, **members}
        assert any(wanted.items() <= logged.items() for logged in events[name]), (name, wanted)
    logs |= {server.process.name: _log(server.process) for server in (own_postgres, own_redis)}
    secrets = {
        "a key": "lp_[A-Za-z0-9_-]{8,}",
        "a key's hash": hashlib.sha256(system.api_key.encode()).hexdigest(),
        "a password": _PASSWORD,
        "an idempotency key": _IDEMPOTENCY_KEY,
        "a loan": _LOAN_ID,
        "an income": re.escape(_INCOME),
    }
    told = [
        f"{name} tells {what}: {line}"
        for name, log in logs.items()
        for what, secret in secrets.items()
        for line in log.splitlines()
        if re.search(secret, line)
    ]
    assert told == []


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(lambda: create_inference(InferenceSettings()), id="inference"),
        pytest.param(lambda: create_history(HistorySettings()), id="history"),
        pytest.param(lambda: create_batch(BatchSettings()), id="batch"),
    ],
)
def test_no_route_needs_escaping_in_a_log(app: Callable[[], FastAPI]) -> None:
    """The line of a request is filled in with them as they are."""
    templates = app().openapi()["paths"]
    assert templates
    assert [path for path in templates if json.dumps(path) != f'"{path}"'] == []


def _event(line: str) -> dict[str, Any]:
    """The event that a line of a service's log is, whoever reported it."""
    event = json.loads(line)
    assert isinstance(event, dict), line
    assert list(event)[:4] == ["time", "level", "logger", "event"], line
    return event


def _log(process: Process) -> str:
    text = process.log.read_text(encoding="utf-8", errors="replace")
    assert text, f"{process.name} has no log"
    return text

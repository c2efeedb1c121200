"""Steady load through the gateway, and the outcome of every request."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

import httpx

CLIENTS: Final = 8
_PAUSE_S: Final = 0.02
_PAUSE_AFTER_FAILURE_S: Final = 0.1
_PAGE: Final = 100
_DRAINED_WITHIN_S: Final = 60.0
_POLL_S: Final = 0.25
_BROKEN: Final = "no answer"


@dataclass
class Ledger:
    """The answers that clients got. Each request has a Loan_ID of its own and is sent once."""

    prefix: str
    sent: int = 0
    answered: dict[str, str] = field(default_factory=dict)
    """Prediction id by Loan_ID, for each request answered with 200."""
    failures: Counter[int | str] = field(default_factory=Counter)
    """How often each other status, or no answer at all, occurred."""


@dataclass(frozen=True)
class Verdict:
    """The comparison of the ledger with the records."""

    fault: str
    requests: int
    answered: int
    stored: int
    missing: int
    doubled: int
    unanswered: int
    """Stored, but the answer was lost: a client that retries without a key gets another id."""
    failures: dict[int | str, int]


def now() -> str:
    """Return the current time in the format of the ``since`` parameter."""
    return datetime.now(UTC).isoformat()


@asynccontextmanager
async def loaded(http: httpx.AsyncClient, ledger: Ledger) -> AsyncIterator[None]:
    """Request decisions from several clients during the block; all have ended after it."""
    numbers, stop = count(), asyncio.Event()
    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(_client(http, ledger, numbers, stop))
        try:
            yield
        finally:
            stop.set()


async def _client(
    http: httpx.AsyncClient, ledger: Ledger, numbers: Iterator[int], stop: asyncio.Event
) -> None:
    while not stop.is_set():
        loan_id = f"{ledger.prefix}-{next(numbers)}"
        body = {"Loan_ID": loan_id, "ApplicantIncome": 5849, "LoanAmount": 128, "Credit_History": 1}
        ledger.sent += 1
        try:
            response = await http.post("/predict", json=body)
        except httpx.HTTPError:
            ledger.failures[_BROKEN] += 1
        else:
            if response.status_code == 200:
                ledger.answered[loan_id] = response.json()["prediction_id"]
                await asyncio.sleep(_PAUSE_S)
                continue
            # Every failure says when to retry.
            assert response.headers["content-type"] == "application/problem+json", response.text
            assert response.headers["retry-after"]
            ledger.failures[response.status_code] += 1
        await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)


async def drained(http: httpx.AsyncClient) -> None:
    """Wait until the stream is empty."""
    async with asyncio.timeout(_DRAINED_WITHIN_S):
        while await _waiting(http) != 0:  # noqa: ASYNC110  polling over HTTP is the only way
            await asyncio.sleep(_POLL_S)


async def _waiting(http: httpx.AsyncClient) -> object:
    response = await http.get("/health/history")
    if response.status_code != 200:
        return None
    redis = response.json()["checks"]["redis"]
    return redis["detail"]["waiting"] if redis["status"] == "up" else None


async def records_since(http: httpx.AsyncClient, since: str) -> list[dict[str, Any]]:
    """Return all records decided since then, page by page."""
    found: list[dict[str, Any]] = []
    query: dict[str, str | int] = {"since": since, "limit": _PAGE}
    while True:
        response = await http.get("/history", params=query)
        assert response.status_code == 200, response.text
        page = response.json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def hold_against(ledger: Ledger, records: list[dict[str, Any]], *, fault: str) -> Verdict:
    """Compare the answers with the stored records.

    A request stored twice, under one id or two, shows by its Loan_ID.
    """
    stored = [
        (record["prediction_id"], loan_id)
        for record in records
        if (loan_id := record["input_data"]["Loan_ID"] or "").startswith(f"{ledger.prefix}-")
    ]
    answered = set(ledger.answered.values())
    return Verdict(
        fault=fault,
        requests=ledger.sent,
        answered=len(ledger.answered),
        stored=len(stored),
        missing=len(answered - {prediction_id for prediction_id, _ in stored}),
        doubled=len(stored) - len({loan_id for _, loan_id in stored}),
        unanswered=len({loan_id for _, loan_id in stored} - ledger.answered.keys()),
        failures=dict(ledger.failures),
    )

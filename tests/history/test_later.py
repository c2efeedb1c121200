"""Reasons that are found after a decision: stored once, marked, and gone with an erasure."""

import json
from typing import Any

import httpx
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.audit import verify
from services.history.recorder import store
from shared.contract.events import INTERNAL_REASONS_PATH, PredictionRecorded, ReasonsFound
from shared.contract.reasons import REASON_CODES_VERSION, Reason, ReasonsBasis
from tests.history.events import path_of, random_events, row_of

_BASIS = ReasonsBasis(reference="typical_applicant", codes_version=REASON_CODES_VERSION, later=True)
_REASONS = [Reason.of("C1", -2.104), Reason.of("B1", -0.512)]


@pytest_asyncio.fixture
async def refused(engine: AsyncEngine) -> PredictionRecorded:
    """A stored refusal without reasons."""
    [event] = random_events(
        1, seed=5, prediction="Rejected", prediction_code=0, reasons=None, reasons_basis=None
    )
    await store(engine, [row_of(event)])
    return event


async def _add(
    client: httpx.AsyncClient,
    event: PredictionRecorded,
    **changes: Any,
) -> httpx.Response:
    added = {"reasons": _REASONS, "reasons_basis": _BASIS}
    decision = event.decision.model_copy(update=added | changes)
    found = ReasonsFound(client="risk-team", decision=decision)
    return await client.post(
        INTERNAL_REASONS_PATH,
        content=found.model_dump_json(),
        headers={"content-type": "application/json"},
    )


async def test_reasons_are_added_to_their_record_and_marked(
    client: httpx.AsyncClient, refused: PredictionRecorded
) -> None:
    """Also where the record was read before, and its copy is cached."""
    before = (await client.get(path_of(refused))).json()
    assert (before["reasons"], before["reasons_basis"]) == (None, None)
    answer = await _add(client, refused)
    after = (await client.get(path_of(refused))).json()
    assert answer.json() == after
    assert after == before | {
        "reasons": [json.loads(reason.model_dump_json()) for reason in _REASONS],
        "reasons_basis": _BASIS.model_dump(),
    }
    [listed] = (await client.get("/history")).json()["items"]
    assert listed == after


async def test_reasons_are_stored_once(
    client: httpx.AsyncClient, engine: AsyncEngine, refused: PredictionRecorded
) -> None:
    """Whoever finds others later gets the first ones; the audit log has one entry of them."""
    first = (await _add(client, refused)).json()
    again = await _add(client, refused, reasons=[Reason.of("P1", -0.1)])
    assert (again.status_code, again.json()) == (200, first)
    async with engine.connect() as connection:
        [entry] = (await connection.execute(text("SELECT * FROM audit_log"))).all()
        packed = (await connection.execute(text("SELECT reasons FROM predictions"))).scalar_one()
    assert packed == "1t+ C1-2104 B1-512"
    assert (entry.actor, entry.action) == ("risk-team", "add reasons")
    assert entry.subject == str(refused.decision.prediction_id)
    info = refused.decision.model_info
    assert json.loads(entry.details) == {"model": info.name, "bundle": info.version}
    assert (await verify(engine)).id == entry.id


async def test_reasons_of_other_values_are_refused(
    client: httpx.AsyncClient, refused: PredictionRecorded
) -> None:
    """They would be reasons of another decision than the one that is recorded."""
    inputs = refused.decision.input_data.model_copy(update={"ApplicantIncome": 1.0})
    for changes in ({"input_data": inputs}, {"confidence": 0.5}, {"prediction": "Approved"}):
        answer = await _add(client, refused, **changes)
        assert (answer.status_code, answer.json()["code"]) == (409, "AnotherDecision")
    assert (await client.get(path_of(refused))).json()["reasons"] is None


async def test_approval_gets_no_reasons(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    [approved] = random_events(
        1, seed=6, prediction="Approved", prediction_code=1, reasons=None, reasons_basis=None
    )
    await store(engine, [row_of(approved)])
    assert (await _add(client, approved)).status_code == 409


async def test_reasons_that_are_not_marked_as_later_are_refused(
    client: httpx.AsyncClient, refused: PredictionRecorded
) -> None:
    """So are a decision without any, and what is no decision."""
    unmarked = _BASIS.model_copy(update={"later": False})
    cases: tuple[dict[str, Any], ...] = ({"reasons_basis": unmarked}, {"reasons": []})
    for changes in cases:
        assert (await _add(client, refused, **changes)).status_code == 400
    broken = await client.post(INTERNAL_REASONS_PATH, json={"client": "risk-team"})
    assert broken.status_code == 400
    assert broken.json()["validation_errors"][0]["field"] == "decision"


async def test_erased_decision_gets_no_reasons(
    client: httpx.AsyncClient, engine: AsyncEngine, refused: PredictionRecorded
) -> None:
    """410; those that it had are erased, and 404 is what was never stored."""
    assert (await _add(client, refused)).status_code == 200
    assert (await client.delete(path_of(refused))).status_code == 200
    async with engine.connect() as connection:
        packed = (await connection.execute(text("SELECT reasons FROM predictions"))).scalar_one()
    assert packed is None
    assert (await _add(client, refused)).status_code == 410
    [unknown] = random_events(1, seed=7, prediction="Rejected", prediction_code=0)
    assert (await _add(client, unknown)).status_code == 404

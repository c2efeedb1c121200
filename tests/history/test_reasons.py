"""Reasons of refusals: stored as codes, read as sentences, removed by an erasure."""

import json
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.reasons import pack, unpack
from services.history.recorder import Undecodable, decode
from services.history.records import COLUMNS
from shared.contract.events import PredictionRecorded
from shared.contract.reasons import MAX_REASONS, REASON_CODES, Reason, ReasonsBasis
from tests.history.events import path_of

_MAX_BYTES = 40
"""What the reasons of one refused row may take on disk."""
_SAMPLE = Path(__file__).parents[1] / "contract" / "prediction_recorded_v1_reasons.json"


def test_history_reads_the_frozen_sample_with_reasons() -> None:
    """An event of version 1 that carries reasons stays readable."""
    row = dict(zip(COLUMNS, decode(_SAMPLE.read_bytes()), strict=True))
    assert row["reasons"] == "1n C1-2104 B1-512 P1-57"


async def test_record_shows_the_reasons_that_were_answered(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """Member by member, text and basis included."""
    refused = [event for event in events if event.decision.reasons]
    assert refused
    for event in refused[:10]:
        record = (await client.get(path_of(event))).json()
        answered = json.loads(event.decision.model_dump_json())
        assert record["reasons"] == answered["reasons"]
        assert record["reasons_basis"] == answered["reasons_basis"]


async def test_reasons_take_at_most_40_bytes_of_a_row(
    engine: AsyncEngine, events: list[PredictionRecorded]
) -> None:
    """Codes are stored, not sentences."""
    assert any(len(event.decision.reasons or ()) == MAX_REASONS for event in events)
    async with engine.connect() as connection:
        largest = "SELECT max(pg_column_size(reasons)) FROM predictions"
        assert (await connection.execute(text(largest))).scalar_one() <= _MAX_BYTES


async def test_erased_row_has_no_reasons(
    client: httpx.AsyncClient, engine: AsyncEngine, events: list[PredictionRecorded]
) -> None:
    """They follow from personal values; the database refuses them in an erased row."""
    event = next(event for event in events if event.decision.reasons)
    assert (await client.delete(path_of(event))).status_code == 200
    row = f"WHERE id = '{event.decision.prediction_id}'"
    async with engine.connect() as connection:
        found = await connection.execute(text(f"SELECT reasons FROM predictions {row}"))  # noqa: S608 - the test's own id
        assert found.scalar_one() is None
        with pytest.raises(IntegrityError, match="predictions_erased_check"):
            await connection.execute(text(f"UPDATE predictions SET reasons = '1n C1-1' {row}"))  # noqa: S608 - the test's own id


def packed(reasons: list[Reason], basis: ReasonsBasis) -> str | None:
    """The text that stands for both."""
    return pack(
        {
            "reasons": [reason.model_dump() for reason in reasons],
            "reasons_basis": basis.model_dump(),
        }
    )


def test_reasons_of_a_newer_writer_are_kept() -> None:
    """A code and a reference that this reader does not know are stored as they came."""
    basis = ReasonsBasis(reference="declined_last_year", codes_version=7)
    reasons = [Reason.of("Z9", -0.5), Reason.of("C1", 0.0)]
    assert unpack(packed(reasons, basis)) == (reasons, basis)


@pytest.mark.parametrize(
    "changes", [{"code": "no code"}, {"code": "C1-3"}, {"contribution": float("inf")}]
)
def test_malformed_reason_is_refused(changes: dict[str, object]) -> None:
    """What could not be read again is not stored."""
    event = json.loads(_SAMPLE.read_bytes())
    event["decision"]["reasons"][0] |= changes
    with pytest.raises(Undecodable, match="reasons"):
        decode(json.dumps(event).encode())


def test_every_code_can_be_stored() -> None:
    """Each code of the list passes through the stored text."""
    basis = ReasonsBasis(reference="all_applicants", codes_version=1)
    reasons = [Reason.of(code, -1.234) for code in REASON_CODES]
    assert unpack(packed(reasons, basis)) == (reasons, basis)

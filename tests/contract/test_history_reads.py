"""Published events stay readable: the frozen sample of version 1 and its variants."""

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from services.history.recorder import Undecodable, decode
from services.history.records import COLUMNS

SAMPLE = Path(__file__).with_name("prediction_recorded_v1.json").read_bytes()


def test_history_reads_the_frozen_sample_of_version_1() -> None:
    """Each column gets the value that the event has carried since version 1 was published.

    Columns of newer members are null.
    """
    row = dict(zip(COLUMNS, decode(SAMPLE), strict=True))
    assert row == dict.fromkeys(COLUMNS) | {
        "id": UUID("0198c6d0-9711-7b92-8f26-d0c4a1b35e68"),
        "decided_at": datetime(2025, 8, 20, 9, 30, 15, 697123, tzinfo=UTC),
        "confidence": 0.8342710137367249,
        "probability_approved": 0.8342710137367249,
        "probability_rejected": 0.16572898626327515,
        "model_accuracy": 0.8092331,
        "applicant_income": 5849.0,
        "coapplicant_income": 0.0,
        "loan_amount": None,
        "loan_amount_term": 360.0,
        "credit_history": 1,
        "prediction": "Approved",
        "model": "logistic_regression",
        "bundle_version": "2025-08-20.1",
        "client": "anonymous",
        "request_id": "0198c6d0-9711-7c3e-9d41-5f0b6a2e8c77",
        "loan_id": "LP001002",
        "gender": "Male",
        "married": "No",
        "dependents": "3+",
        "education": "Not Graduate",
        "self_employed": None,
        "property_area": "Semiurban",
        "imputed": ["Self_Employed", "LoanAmount"],
        "warnings": ["LoanAmount is missing; the model fills it in."],
        "derived_id": None,
    }


def test_members_that_a_newer_writer_added_are_ignored() -> None:
    """Within a version a writer may add members; an older reader stores those it knows."""
    event = json.loads(SAMPLE)
    event["added"] = {"by": "a newer writer"}
    event["decision"]["added"] = 1
    event["decision"]["input_data"]["added"] = [1]
    assert decode(json.dumps(event).encode()) == decode(SAMPLE)


@pytest.mark.parametrize("changes", [{"version": 2}, {"type": "SomethingElse"}])
def test_another_version_or_type_is_refused(changes: dict[str, object]) -> None:
    """A reader of version 1 does not guess at other versions."""
    with pytest.raises(Undecodable, match=next(iter(changes))):
        decode(json.dumps(json.loads(SAMPLE) | changes).encode())

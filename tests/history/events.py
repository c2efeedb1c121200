"""Random events, as the inference service would publish them."""

import hashlib
import random
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID, uuid4

from services.history.recorder import decode
from services.history.records import Row
from shared.contract.application import Application
from shared.contract.events import Decision, ModelInfo, PredictionRecorded, Probability
from shared.contract.ids import uuid7
from shared.contract.reasons import (
    MAX_REASONS,
    REASON_CODES,
    REASON_CODES_VERSION,
    Reason,
    ReasonsBasis,
    ReferenceId,
)
from tests.applications import random_application

MODELS = ("random_forest", "logistic_regression", "gradient_boosting", "support_vector_machine")
_WARNINGS = (
    "ApplicantIncome is below 1000 per month.",
    "LoanAmount is above 5 times the annual income.",
    'Credit_History is 0: a "bad" one, with a \\ and a comma, too.',
)


def random_event(
    rng: random.Random, *, decided_at: datetime | None = None, **changes: Any
) -> PredictionRecorded:
    """One event about a random application; ``changes`` replace members of its decision."""
    decided_at = decided_at or datetime.now(UTC) - timedelta(seconds=rng.uniform(0, 3000))
    application = Application.model_validate(random_application(rng))
    approved = rng.random()
    decision = Decision(
        prediction_id=UUID(uuid7(int(decided_at.timestamp() * 1000))),
        prediction="Approved" if approved >= 0.5 else "Rejected",
        prediction_code=1 if approved >= 0.5 else 0,
        confidence=max(approved, 1 - approved),
        probability=Probability(approved=approved, rejected=1 - approved),
        model_info=ModelInfo(name=rng.choice(MODELS), version="2026.1", accuracy=0.8093),
        input_data=application,
        imputed=[name for name, value in application if value is None and name != "Loan_ID"],
        warnings=rng.sample(_WARNINGS, rng.choices((0, 1, 2, 3), (70, 20, 8, 2))[0]),
        timestamp=decided_at,
        **({} if approved >= 0.5 else _random_reasons(rng)),
    )
    return PredictionRecorded(
        client="anonymous",
        request_id=uuid4().hex,
        decision=decision.model_copy(update=changes),
    )


def _random_reasons(rng: random.Random) -> dict[str, Any]:
    codes = rng.sample(sorted(REASON_CODES), rng.randint(1, MAX_REASONS))
    reference = rng.choice(get_args(ReferenceId))
    return {
        "reasons": [Reason.of(code, -rng.randint(50, 9999) / 1000) for code in codes],
        "reasons_basis": ReasonsBasis(reference=reference, codes_version=REASON_CODES_VERSION),
    }


def random_events(count: int, *, seed: int, **changes: Any) -> list[PredictionRecorded]:
    """``count`` random events; one seed, one set of applications."""
    rng = random.Random(seed)  # noqa: S311 - test data, not a secret
    return [random_event(rng, **changes) for _ in range(count)]


def body_of(event: PredictionRecorded) -> bytes:
    """The event as it stands in the stream."""
    return event.model_dump_json().encode()


def row_of(event: PredictionRecorded) -> Row:
    """The row of ``event``, by way of its JSON, as it comes from the stream."""
    return decode(event.model_dump_json().encode())


def derived_id(name: str) -> UUID:
    """An id like those that are derived from an idempotency key: of version 8, in no order."""
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big")
    return UUID(int=digest & ~(0xF << 76 | 0b11 << 62) | 0x8 << 76 | 0b10 << 62)


def with_loan_id(event: PredictionRecorded, loan_id: str) -> PredictionRecorded:
    """The event about another application."""
    application = event.decision.input_data.model_copy(update={"Loan_ID": loan_id})
    decision = event.decision.model_copy(update={"input_data": application})
    return event.model_copy(update={"decision": decision})


def path_of(event: PredictionRecorded) -> str:
    """Where the record of the event's decision is."""
    return f"/history/{event.decision.prediction_id}"

"""The wire contract between the services: a decision, and the event that records it.

The decision that the client is answered with is, byte for byte, the ``decision`` member of the
event: what is stored is what was said. Within version 1 members may be added but never removed,
renamed or given another meaning; readers ignore members they do not know.
"""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from shared.contract.application import Application, Wire
from shared.contract.reasons import Reason, ReasonsBasis

STREAM = "predictions"
KEY_PREFIX = "{predictions}:"
"""Begins every other key. A cluster places a key by the part in braces, so all are where the stream
is, and can take part in one operation."""
DEAD_LETTER_STREAM = f"{KEY_PREFIX}dead"
CONSUMER_GROUP = "history"
EVENT_FIELD = "event"
"""The one field of a stream entry; its value is one event as JSON, or several, one per line."""

INTERNAL_PREDICTIONS_PATH = "/internal/predictions"
"""Where the history service takes events as NDJSON when the stream cannot be reached."""

INTERNAL_BUNDLES_PATH = "/internal/bundles"
"""Where the history service takes the manifest of a bundle, as JSON."""

INTERNAL_REASONS_PATH = "/internal/reasons"
"""Where the history service takes the reasons that were found after a decision."""

ANONYMOUS = "anonymous"

IDEMPOTENCY_PREFIX = f"{KEY_PREFIX}idempotency:"
"""Begins every key about repeated requests."""
IDEMPOTENCY_KEEP_S = 24 * 60 * 60
"""How long a repeated request is recognised."""

ModelName = Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,63}$")]
"""A bundle names its models; the name is part of a file's name, of a path and of a metric's label.
"""
Prediction = Literal["Approved", "Rejected"]


class Probability(Wire):
    """The model's probability of each outcome; the two add up to 1."""

    approved: float = Field(ge=0, le=1)
    rejected: float = Field(ge=0, le=1)


class ModelInfo(Wire):
    """Which model decided, from which bundle, and how accurate it was in cross-validation."""

    name: str
    version: str = Field(description="Version of the bundle the model came from.")
    accuracy: float = Field(ge=0, le=1, description="Mean accuracy in repeated cross-validation.")
    # Older events lack it.
    arm: str | None = Field(
        default=None,
        max_length=64,
        description="Which arm of a roll-out decided, such as x13:candidate; null without one.",
    )


class Decision(Wire):
    """One answered application."""

    success: Literal[True] = True
    prediction_id: UUID = Field(
        description="UUID of version 7, which sorts by time; of version 8 where it is derived from"
        " an Idempotency-Key."
    )
    prediction: Prediction
    prediction_code: Literal[0, 1] = Field(description="1 is Approved.")
    confidence: float = Field(ge=0, le=1, description="Probability of the outcome predicted.")
    probability: Probability
    model_info: ModelInfo
    input_data: Application
    imputed: list[str] = Field(description="Inputs that were missing and filled in by the model.")
    warnings: list[str]
    timestamp: AwareDatetime = Field(description="When it was decided, in UTC.")
    # Older events lack both.
    reasons: list[Reason] | None = Field(
        default=None,
        description="Of a refusal by an additive model: what lowers the application's score most,"
        " the main reason first, at most four. null in an approval, and from any other model:"
        " POST /reasons finds those of its refusals later.",
    )
    reasons_basis: ReasonsBasis | None = Field(
        default=None, description="What the reasons are measured against; null without reasons."
    )


class PredictionRecorded(Wire):
    """A decision was made and must be stored exactly once, under ``decision.prediction_id``."""

    type: Literal["PredictionRecorded"] = "PredictionRecorded"
    version: Literal[1] = 1
    client: str = Field(max_length=64, description="Who asked: a client's name, or anonymous.")
    request_id: str = Field(max_length=128)
    traceparent: str | None = Field(
        default=None, description="Its place in a trace (W3C Trace Context), if it is traced."
    )
    decision: Decision


class ReasonsFound(Wire):
    """Reasons were found for a recorded refusal that has none; they are stored once."""

    client: str = Field(max_length=64, description="Who asked: a client's name, or anonymous.")
    decision: Decision = Field(description="As it is recorded, with the reasons added.")


def answer_key(prediction_id: UUID | str) -> str:
    """The Redis key of the stored answer to a request with an Idempotency-Key.

    Inference stores it; history replaces it with an empty value when the decision is erased.
    """
    return f"{IDEMPOTENCY_PREFIX}answer:{prediction_id}"

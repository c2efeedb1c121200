"""The use cases: decide one application, ask all models about it, or only look it over."""

from collections.abc import Mapping
from datetime import UTC, datetime
from time import perf_counter_ns
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from services.scoring.features import SCORED_INPUTS, feature_row
from services.scoring.registry import Bundle, ServedModel
from services.scoring.rules import warnings_for
from shared.contract.events import Prediction
from shared.contract.ids import uuid7

_MILLION: Final = 1_000_000
_MS_PER_S: Final = 1000
_TENTHS_US_PER_MS: Final = 10_000
_ID_BEGINS: Final = len(b'{"success":true,"prediction_id":"')
_ID_ENDS: Final = _ID_BEGINS + 36


class Decided(NamedTuple):
    """A decision: ``body`` is the JSON that is answered, the rest what is counted of it."""

    body: bytes
    prediction: Prediction
    approved: float
    imputed: list[str]
    warnings: int


def decide(
    application: Mapping[str, Any],
    *,
    model: ServedModel,
    bundle: Bundle,
    prediction_id: UUID | None = None,
) -> Decided:
    """The decision of ``model`` on an application as understood.

    Its body is a ``shared.contract.events.Decision``, and also what the record is made of. Without
    a ``prediction_id`` it gets a new one, of version 7.
    """
    decided_at = datetime.now(UTC)
    outcome = _outcome(feature_row(application), model)
    imputed = [field for field in SCORED_INPUTS if application[field] is None]
    warnings = warnings_for(application, bundle.training_ranges)
    body = to_json(
        {
            "success": True,
            "prediction_id": prediction_id or uuid7(int(decided_at.timestamp() * _MS_PER_S)),
            "prediction": outcome["prediction"],
            "prediction_code": int(outcome["prediction"] == "Approved"),
            "confidence": outcome["confidence"],
            "probability": outcome["probability"],
            "model_info": {
                "name": model.name,
                "version": bundle.manifest.version,
                "accuracy": model.accuracy,
            },
            "input_data": application,
            "imputed": imputed,
            "warnings": warnings,
            "timestamp": decided_at,
        }
    )
    approved = outcome["probability"]["approved"]
    return Decided(body, outcome["prediction"], approved, imputed, len(warnings))


def id_of(decision: bytes) -> str:
    """The id of a decision, from where ``decide`` puts it."""
    return decision[_ID_BEGINS:_ID_ENDS].decode()


def recorded_event(
    decided: Decided, *, client: str, request_id: str, traceparent: str | None = None
) -> bytes:
    """The ``PredictionRecorded`` event around the very bytes the client is answered with.

    ``client``, ``request_id`` and ``traceparent`` are plain characters that need no escaping in
    JSON.
    """
    traced = b"" if traceparent is None else b'"traceparent":"%b",' % traceparent.encode()
    return (
        b'{"type":"PredictionRecorded","version":1,"client":"%b","request_id":"%b",%b"decision":%b}'
        % (client.encode(), request_id.encode(), traced, decided.body)
    )


def benchmark(application: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """What each model says to one application, in ``schemas.Benchmark``'s form."""
    features = feature_row(application)
    results = {name: _timed_outcome(features, model) for name, model in bundle.models.items()}
    approvals = sum(result["prediction"] == "Approved" for result in results.values())
    rejections = len(results) - approvals
    consensus: Prediction
    if approvals == rejections:
        consensus = results[bundle.champion.name]["prediction"]
    else:
        consensus = "Approved" if approvals > rejections else "Rejected"
    agreeing = max(approvals, rejections)
    return {
        "success": True,
        "input_data": application,
        "results": results,
        "consensus": {
            "prediction": consensus,
            "agreement": agreeing / len(results),
            "models_agree": agreeing,
            "total_models": len(results),
        },
        "warnings": warnings_for(application, bundle.training_ranges),
    }


def _outcome(features: tuple[float, ...], model: ServedModel) -> dict[str, Any]:
    approved = model.approval_probability(features)
    prediction: Prediction = "Approved" if approved >= model.threshold else "Rejected"
    # In whole millionths: to round floats to six digits takes three times as long.
    millionths = int(approved * _MILLION + 0.5)
    shown, rest = millionths / _MILLION, (_MILLION - millionths) / _MILLION
    return {
        "prediction": prediction,
        "confidence": shown if prediction == "Approved" else rest,
        "probability": {"approved": shown, "rejected": rest},
    }


def _timed_outcome(features: tuple[float, ...], model: ServedModel) -> dict[str, Any]:
    started_ns = perf_counter_ns()
    outcome = _outcome(features, model)
    # Whole tenths of a microsecond, for the same reason.
    outcome["prediction_time_ms"] = (perf_counter_ns() - started_ns) // 100 / _TENTHS_US_PER_MS
    return outcome

"""The decision engine: an application and a bundle in, a decision out. It connects to nothing."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil
from time import perf_counter_ns
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json, to_json

from services.scoring.reasons import BASIS, refusal_reasons
from services.scoring.registry import Bundle, ServedModel
from shared.contract.application import SCORED
from shared.contract.events import Prediction
from shared.contract.ids import uuid7
from shared.contract.warnings import warnings_for

# A template, because a dictionary of all this takes twice as long to make and to write out.
_BODY: Final = (
    b'{"success":true,"prediction_id":"%b","prediction":"%b","prediction_code":%d,"confidence":%b,'
    b'"probability":{"approved":%b,"rejected":%b},"model_info":%b,"input_data":%b,"imputed":%b,'
    b'"warnings":%b,"timestamp":%b,"reasons":%b,"reasons_basis":%b}'
)
_BASIS: Final = to_json(BASIS)
_MILLION: Final = 1_000_000
_MS_PER_S: Final = 1000
_TENTHS_US_PER_MS: Final = 10_000


class Decided(NamedTuple):
    """A decision: ``body`` is its JSON, a ``Decision``; the other members stand in it too."""

    body: bytes
    prediction_id: str
    model: str
    version: str
    prediction: Prediction
    approved: float
    """The probability of approval, 0 to 1."""
    imputed: Sequence[str]
    warnings: int
    """How many there are."""
    replayed: bool = False
    """Whether it is the answer given to an earlier request."""

    @classmethod
    def read(cls, body: bytes, *, replayed: bool = False) -> "Decided":
        """The decision in a body that ``decide`` made before."""
        content = from_json(body)
        return cls(
            body,
            content["prediction_id"],
            content["model_info"]["name"],
            content["model_info"]["version"],
            content["prediction"],
            content["probability"]["approved"],
            content["imputed"],
            len(content["warnings"]),
            replayed,
        )


def decide(
    application: Mapping[str, Any],
    *,
    model: ServedModel,
    bundle: Bundle,
    prediction_id: str | None = None,
    arm: str | None = None,
) -> Decided:
    """The decision of ``model``, which is one of ``bundle``'s, on a parsed application.

    Without a ``prediction_id`` it gets a new one, of version 7. ``arm`` names the arm of an
    experiment that the model decides for.
    """
    features = bundle.row_of(application)
    approved = model.approval_probability(features)
    now = datetime.now(UTC)
    return _decided(
        application, features, approved, model, bundle, prediction_id, arm, now, to_json(now)
    )


def decide_many(
    applications: Sequence[Mapping[str, Any]],
    *,
    model: ServedModel,
    bundle: Bundle,
    prediction_ids: Sequence[str] | None = None,
    arm: str | None = None,
) -> list[Decided]:
    """The decision on each application, as ``decide`` makes it, from one run of the model.

    All are decided at the same moment.
    """
    if not applications:
        return []
    rows = [bundle.row_of(application) for application in applications]
    probabilities = model.approval_probabilities(np.array(rows)).tolist()
    ids: Sequence[str | None] = prediction_ids or [None] * len(applications)
    now = datetime.now(UTC)
    timestamp = to_json(now)
    return [
        _decided(application, features, approved, model, bundle, prediction_id, arm, now, timestamp)
        for application, features, approved, prediction_id in zip(
            applications, rows, probabilities, ids, strict=True
        )
    ]


def _decided(
    application: Mapping[str, Any],
    features: tuple[float, ...],
    approved: float,
    model: ServedModel,
    bundle: Bundle,
    prediction_id: str | None,
    arm: str | None,
    decided_at: datetime,
    timestamp: bytes,
) -> Decided:
    prediction_id = prediction_id or uuid7(int(decided_at.timestamp() * _MS_PER_S))
    prediction, shown, rest = _outcome(approved, model.threshold)
    imputed = [field for field in SCORED if application[field] is None]
    warnings = warnings_for(application, bundle.training_ranges)
    name, version = model.name, bundle.manifest.version
    reasons = None
    if prediction == "Rejected" and model.scorecard is not None:
        share = bundle.manifest.principal_share
        reasons = refusal_reasons(model.scorecard, features, frozenset(imputed), share)
    approval, refusal = to_json(shown), to_json(rest)
    is_approved = prediction == "Approved"
    body = _BODY % (
        prediction_id.encode(),
        prediction.encode(),
        is_approved,
        approval if is_approved else refusal,
        approval,
        refusal,
        _model_info(name, version, model.accuracy, arm),
        to_json(application),
        to_json(imputed) if imputed else b"[]",
        to_json(warnings) if warnings else b"[]",
        timestamp,
        b"null" if reasons is None else to_json(reasons),
        _BASIS if reasons else b"null",
    )
    return Decided(body, prediction_id, name, version, prediction, shown, imputed, len(warnings))


@lru_cache(maxsize=64)
def _model_info(name: str, version: str, accuracy: float, arm: str | None) -> bytes:
    return to_json({"name": name, "version": version, "accuracy": accuracy, "arm": arm})


def benchmark(application: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """Every model's decision on one application, and what they agree on; nothing is recorded."""
    features = bundle.row_of(application)
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


def outcome_of(features: tuple[float, ...], model: ServedModel) -> dict[str, Any]:
    """What ``model`` predicts, with its confidence and both probabilities."""
    approved = model.approval_probability(features)
    prediction, shown, rest = _outcome(approved, model.threshold)
    return {
        "prediction": prediction,
        "confidence": shown if prediction == "Approved" else rest,
        "probability": {"approved": shown, "rejected": rest},
    }


def _outcome(approved: float, threshold: float) -> tuple[Prediction, float, float]:
    """What is predicted, and both probabilities as they are shown."""
    # In whole millionths: to round floats to six digits takes three times as long. What is shown
    # is on the same side of the threshold as what is decided.
    millionths, passing = int(approved * _MILLION + 0.5), ceil(threshold * _MILLION)
    prediction: Prediction
    if approved >= threshold:
        prediction, millionths = "Approved", max(millionths, passing)
    else:
        prediction, millionths = "Rejected", min(millionths, passing - 1)
    return prediction, millionths / _MILLION, (_MILLION - millionths) / _MILLION


def shown_probabilities(
    approved: npt.NDArray[np.float64], threshold: float
) -> npt.NDArray[np.float64]:
    """Return the probabilities of approval as decisions with them show them."""
    millionths, passing = np.floor(approved * _MILLION + 0.5), ceil(threshold * _MILLION)
    shown = np.where(
        approved >= threshold, np.maximum(millionths, passing), np.minimum(millionths, passing - 1)
    )
    return shown / _MILLION


def _timed_outcome(features: tuple[float, ...], model: ServedModel) -> dict[str, Any]:
    started_ns = perf_counter_ns()
    outcome = outcome_of(features, model)
    # Whole tenths of a microsecond, for the same reason.
    outcome["prediction_time_ms"] = (perf_counter_ns() - started_ns) // 100 / _TENTHS_US_PER_MS
    return outcome

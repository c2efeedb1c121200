"""Explains any application by any model, on demand; nothing is recorded."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from anyio import CapacityLimiter, to_thread

from services.scoring.changes import nearest_changes
from services.scoring.engine import outcome_of
from services.scoring.reasons import code_of, contributions, main_reasons
from services.scoring.registry import Bundle, ServedModel
from services.scoring.scorecard import Linear, Row, Table, points
from services.scoring.shapley import PLAYERS, shapley, typical_applicant
from shared.contract.application import FIELDS, SCORED
from shared.contract.reasons import REASON_CODES, REASON_CODES_VERSION, ReferenceId

TYPICAL_APPLICANT: Final = "typical_applicant"
"""The reference of models without a scorecard: one profile, not the mean of many."""

_SIGNS: Final = {field.name: field.sign for field in FIELDS}


class _Compared(NamedTuple):
    """A score against a reference, in log-odds."""

    score: float
    reference: str
    mean: float
    contributions: Mapping[str, float]
    """By code; they add up to ``score`` less ``mean``."""
    not_reasons: frozenset[str] = frozenset()
    """Codes that would contradict the direction expected of their inputs."""


async def explain(
    application: Mapping[str, Any],
    *,
    model: ServedModel,
    bundle: Bundle,
    reference: ReferenceId,
    limiter: CapacityLimiter,
) -> dict[str, Any]:
    """The contributions to the score, and of a refusal its reasons and nearest changes.

    ``reference`` counts for a model with a scorecard; any other is compared with
    ``TYPICAL_APPLICANT``. What takes milliseconds runs in a thread, within ``limiter``.
    """
    row = bundle.row_of(application)
    # On the event loop, because a model's own arrays hold one row at a time.
    outcome = outcome_of(row, model)
    refused = outcome["prediction"] == "Rejected"
    missing = frozenset(name for name in SCORED if application[name] is None)
    changes = None
    if model.scorecard is not None:
        compared = _by_scorecard(model.scorecard, row, reference, missing)
        if refused and isinstance(model.scorecard, Table):
            search = partial(nearest_changes, application, model=model, bundle=bundle)
            changes = await to_thread.run_sync(search, limiter=limiter)
    else:
        by_shapley = partial(_by_shapley, application, missing, model=model, bundle=bundle)
        compared = await to_thread.run_sync(by_shapley, limiter=limiter)
    nameable = {
        code: value
        for code, value in compared.contributions.items()
        if code not in compared.not_reasons
    }
    return {
        "model_info": {
            "name": model.name,
            "version": bundle.manifest.version,
            "accuracy": model.accuracy,
        },
        "prediction": outcome["prediction"],
        "probability": outcome["probability"],
        "score": compared.score,
        "reference": {"id": compared.reference, "mean": compared.mean},
        "codes_version": REASON_CODES_VERSION,
        "contributions": [
            {"code": code, "inputs": REASON_CODES[code].inputs, "contribution": value}
            for value, code in sorted(
                (value, code) for code, value in compared.contributions.items()
            )
            if value
        ],
        "reasons": (main_reasons(nameable) or None) if refused else None,
        "nearest_changes": changes,
    }


def _by_scorecard(
    scorecard: Table | Linear, row: Row, reference: ReferenceId, missing: frozenset[str]
) -> _Compared:
    points_by_feature = points(scorecard, row)
    against = scorecard.references[reference]
    return _Compared(
        score=scorecard.base + sum(points_by_feature.values()),
        reference=reference,
        mean=against.mean_score,
        contributions=contributions(scorecard, points_by_feature, against, missing),
    )


def _by_shapley(
    application: Mapping[str, Any], missing: frozenset[str], *, model: ServedModel, bundle: Bundle
) -> _Compared:
    typical = typical_applicant(bundle.manifest.inputs)
    values, mean, score = shapley(application, typical, model=model, bundle=bundle)
    by_code = {}
    contradicting = set()
    for player, value in zip(PLAYERS, values, strict=True):
        code = code_of(frozenset(player), missing)
        by_code[code] = value
        if _is_as_good(player, application, typical):
            contradicting.add(code)
    return _Compared(score, TYPICAL_APPLICANT, mean, by_code, frozenset(contradicting))


def _is_as_good(
    player: tuple[str, ...], application: Mapping[str, Any], typical: Mapping[str, Any]
) -> bool:
    """Whether no value of ``player`` should lower approval below the typical applicant's."""
    sign = _SIGNS[player[0]]
    if sign == 0:
        return False
    own, other = (sum(each[name] or 0 for name in player) for each in (application, typical))
    return sign * own >= sign * other

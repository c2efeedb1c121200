"""Explains any application by any model, on demand, and finds the reasons of recorded refusals."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from anyio import CapacityLimiter, fail_after, to_thread

from services.scoring.changes import nearest_changes
from services.scoring.engine import outcome_of
from services.scoring.manifest import BundleError
from services.scoring.reasons import code_of, contributions, main_reasons
from services.scoring.registry import Bundle, ServedModel
from services.scoring.replay import Bundles
from services.scoring.scorecard import Linear, Row, Table, points
from services.scoring.shapley import PLAYERS, shapley, typical_applicant
from shared.contract.application import FIELDS, SCORED
from shared.contract.errors import NotFound, TryAgain
from shared.contract.events import Decision
from shared.contract.reasons import (
    REASON_CODES,
    REASON_CODES_VERSION,
    Reason,
    ReasonsBasis,
    ReferenceId,
)

TYPICAL_APPLICANT: Final = "typical_applicant"
"""The reference of models without a scorecard: one profile, not the mean of many."""

_LATER: Final = ReasonsBasis(
    reference=TYPICAL_APPLICANT, codes_version=REASON_CODES_VERSION, later=True
)
_SIGNS: Final = {field.name: field.sign for field in FIELDS}


MOST_WAITING: Final = 32
"""Most explanations that wait for their turn; one takes some milliseconds."""
DEADLINE_S: Final = 2.0
"""How long one waits for its turn at most."""

T = TypeVar("T")


class TooManyExplanations(TryAgain):
    """Others are explained at the moment."""

    title = "Too many explanations at once"


class Explainer:
    """Runs what takes milliseconds in a thread, one at a time, so that decisions are not kept."""

    def __init__(self) -> None:
        self._limiter = CapacityLimiter(1)

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns; raises ``TooManyExplanations`` if its turn does not come soon."""
        if self._limiter.statistics().tasks_waiting >= MOST_WAITING:
            raise TooManyExplanations("Too many explanations are asked for; try again shortly.")
        try:
            # It ends the wait, never a computation: that is short, whatever the application.
            with fail_after(DEADLINE_S):
                return await to_thread.run_sync(work, limiter=self._limiter)
        except TimeoutError:
            raise TooManyExplanations(
                f"The explanation did not get its turn within {DEADLINE_S:g} s; try again shortly."
            ) from None


class _Compared(NamedTuple):
    """A score against a reference, in log-odds."""

    score: float
    reference: str
    mean: float
    contributions: Mapping[str, float]
    """By code; they add up to ``score`` less ``mean``."""
    not_reasons: frozenset[str] = frozenset()
    """Codes that would contradict the direction expected of their inputs."""

    def reasons(self, bundle: Bundle) -> list[dict[str, Any]]:
        """Of a refusal by a model of ``bundle``, the main one first."""
        return main_reasons(
            {
                code: value
                for code, value in self.contributions.items()
                if code not in self.not_reasons
            },
            bundle.manifest.principal_share,
        )


async def explain(
    application: Mapping[str, Any],
    *,
    model: ServedModel,
    bundle: Bundle,
    reference: ReferenceId,
    explainer: Explainer,
    arm: str | None = None,
) -> dict[str, Any]:
    """The contributions to the score, and of a refusal its reasons and nearest changes.

    ``reference`` counts for a model with a scorecard; any other is compared with
    ``TYPICAL_APPLICANT``. ``arm`` is the one of an experiment that ``bundle`` is. Raises
    ``TooManyExplanations``.
    """
    row = bundle.row_of(application)
    # On the event loop, because a model's own arrays hold one row at a time.
    outcome = outcome_of(row, model)
    refused = outcome["prediction"] == "Rejected"
    missing = _missing(application)
    changes = None
    if model.scorecard is not None:
        compared = _by_scorecard(model.scorecard, row, reference, missing)
        if refused and isinstance(model.scorecard, Table):
            search = partial(nearest_changes, application, model=model, bundle=bundle)
            changes = await explainer.run(search)
    else:
        by_shapley = partial(_by_shapley, application, missing, model=model, bundle=bundle)
        compared = await explainer.run(by_shapley)
    return {
        "model_info": {
            "name": model.name,
            "version": bundle.manifest.version,
            "accuracy": model.accuracy,
            "arm": arm,
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
        "reasons": (compared.reasons(bundle) or None) if refused else None,
        "nearest_changes": changes,
    }


async def bundle_for_explaining(version: str, bundles: Bundles) -> Bundle:
    """The bundle ``version``; raises ``NotFound`` if there is none that can be used."""
    try:
        return await bundles.find(version)
    except BundleError:
        raise NotFound(f"There is no bundle {version!r} here that can be used.") from None


async def find_reasons(recorded: Decision, bundles: Bundles, explainer: Explainer) -> Decision:
    """``recorded`` with its reasons; the same if it has some, or is an approval.

    They are found by the bundle that it names, against ``TYPICAL_APPLICANT``. Raises ``NotFound``
    if that cannot be used, or not on such an input, and ``TooManyExplanations``.
    """
    bundle = await bundle_for_explaining(recorded.model_info.version, bundles)
    model = bundle.model(recorded.model_info.name)
    if recorded.reasons or recorded.prediction == "Approved":
        return recorded
    application = recorded.input_data.model_dump()
    missing = _missing(application)
    try:
        compared = await explainer.run(
            partial(_by_shapley, application, missing, model=model, bundle=bundle)
        )
    except (ArithmeticError, LookupError, TypeError, ValueError):
        # The contract of a record is wider than what any one version decides on.
        raise NotFound("The record's input cannot be explained by its bundle.") from None
    reasons = [Reason.model_validate(reason) for reason in compared.reasons(bundle)]
    return recorded.model_copy(
        update={"reasons": reasons or None, "reasons_basis": _LATER if reasons else None}
    )


def _missing(application: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(name for name in SCORED if application[name] is None)


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
    typical = typical_applicant(bundle.manifest)
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

"""What is counted of decisions: outcomes, missing inputs, warnings, the time of each stage."""

from collections.abc import Iterable

from services.scoring.engine import Decided
from services.scoring.registry import Bundle
from shared.contract.application import SCORED
from shared.contract.events import Prediction
from shared.observability.metrics import Sample, Tally
from shared.observability.metrics.names import (
    APPROVAL_PROBABILITY,
    DECISION_STAGE,
    DECISIONS,
    IMPUTED_INPUTS,
    WARNINGS,
)


class _Outcomes:
    """How one model of one bundle decided."""

    __slots__ = ("decisions", "probability")

    def __init__(self) -> None:
        self.decisions: dict[Prediction, int] = {"Approved": 0, "Rejected": 0}
        self.probability = Tally(APPROVAL_PROBABILITY)


class DecisionMetrics:
    """Counts every decision that was recorded, none twice; replays are not decisions.

    It outlives the bundle: what an earlier one decided stays counted under its version.
    """

    def __init__(self) -> None:
        self._outcomes: dict[tuple[str, str], _Outcomes] = {}
        self._imputed = dict.fromkeys(SCORED, 0)
        self._warnings = 0
        self._validate = Tally(DECISION_STAGE)
        self._model = Tally(DECISION_STAGE)
        self._publish = Tally(DECISION_STAGE)

    def expect(self, bundle: Bundle) -> None:
        """Export each model of ``bundle`` from now on, at 0 before its first decision."""
        for name in bundle.models:
            self._of(name, bundle.manifest.version)

    def count(
        self, decided: Decided, *, validate_s: float, model_s: float, publish_s: float
    ) -> None:
        """Count one decision and the seconds that its stages took."""
        outcomes = self._of(decided.model, decided.version)
        outcomes.decisions[decided.prediction] += 1
        outcomes.probability.add(decided.approved)
        for field in decided.imputed:
            self._imputed[field] = self._imputed.get(field, 0) + 1
        self._warnings += decided.warnings
        self._validate.add(validate_s)
        self._model.add(model_s)
        self._publish.add(publish_s)

    def samples(self) -> Iterable[Sample]:
        """Everything so far."""
        for series, outcomes in list(self._outcomes.items()):
            yield Sample(APPROVAL_PROBABILITY, outcomes.probability.value, series)
            for prediction, decisions in outcomes.decisions.items():
                yield Sample(DECISIONS, decisions, (*series, prediction.lower()))
        for field, times in self._imputed.items():
            yield Sample(IMPUTED_INPUTS, times, (field,))
        yield Sample(WARNINGS, self._warnings)
        yield Sample(DECISION_STAGE, self._validate.value, ("validate",))
        yield Sample(DECISION_STAGE, self._model.value, ("model",))
        yield Sample(DECISION_STAGE, self._publish.value, ("publish",))

    def _of(self, model: str, version: str) -> _Outcomes:
        outcomes = self._outcomes.get((model, version))
        if outcomes is None:
            outcomes = self._outcomes[model, version] = _Outcomes()
        return outcomes

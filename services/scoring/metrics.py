"""What is counted of the decisions: how they came out, on what, and where their time went."""

from collections.abc import Iterable

from services.scoring.decisions import Decided
from services.scoring.features import SCORED_INPUTS
from services.scoring.registry import Bundle
from shared.contract.events import ModelName, Prediction
from shared.observability.metrics import Sample, Source, Tally
from shared.observability.metrics.names import (
    APPROVAL_PROBABILITY,
    BUNDLE_INFO,
    DECISION_STAGE,
    DECISIONS,
    IMPUTED_INPUTS,
    WARNINGS,
)


class _Outcomes:
    """How one model decided."""

    __slots__ = ("decisions", "probability")

    def __init__(self) -> None:
        self.decisions: dict[Prediction, int] = {"Approved": 0, "Rejected": 0}
        self.probability = Tally(APPROVAL_PROBABILITY)


class DecisionMetrics:
    """Counts every decision that was recorded, none twice; replays are not decisions."""

    def __init__(self, bundle: Bundle) -> None:
        self._version = bundle.manifest.version
        self._outcomes = {name: _Outcomes() for name in bundle.models}
        self._imputed = dict.fromkeys(SCORED_INPUTS, 0)
        self._warnings = 0
        self._validate = Tally(DECISION_STAGE)
        self._model = Tally(DECISION_STAGE)
        self._publish = Tally(DECISION_STAGE)

    def count(
        self,
        model: ModelName,
        decided: Decided,
        validate_s: float,
        model_s: float,
        publish_s: float,
    ) -> None:
        """Count one decision of ``model``, and what its stages took."""
        _, prediction, approved, imputed, warnings = decided
        outcomes = self._outcomes[model]
        outcomes.decisions[prediction] += 1
        outcomes.probability.add(approved)
        for field in imputed:
            self._imputed[field] += 1
        self._warnings += warnings
        self._validate.add(validate_s)
        self._model.add(model_s)
        self._publish.add(publish_s)

    def samples(self) -> Iterable[Sample]:
        """Everything so far; what has not happened yet stands at 0."""
        for model, outcomes in self._outcomes.items():
            series = (model, self._version)
            yield Sample(APPROVAL_PROBABILITY, outcomes.probability.value, series)
            for prediction, decisions in outcomes.decisions.items():
                yield Sample(DECISIONS, decisions, (*series, prediction.lower()))
        for field, times in self._imputed.items():
            yield Sample(IMPUTED_INPUTS, times, (field,))
        yield Sample(WARNINGS, self._warnings)
        yield Sample(DECISION_STAGE, self._validate.value, ("validate",))
        yield Sample(DECISION_STAGE, self._model.value, ("model",))
        yield Sample(DECISION_STAGE, self._publish.value, ("publish",))


def bundle_info(bundle: Bundle) -> Source:
    """Says which models are served, and which of them decides."""
    manifest = bundle.manifest
    sample = Sample(BUNDLE_INFO, 1, (manifest.version, manifest.champion))
    return lambda: (sample,)

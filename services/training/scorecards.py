"""Additive models as scorecards: tables of points that say exactly what the model says."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic_core import to_json
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from services.scoring.features import FEATURE_INPUTS, FEATURES, Matrix
from services.scoring.scorecard import (
    Linear,
    LinearFeature,
    Reference,
    ReferenceName,
    Scorecards,
    Table,
    TableFeature,
    points,
    probability,
    score,
)
from services.training.export import ParityError, float32_at_most
from services.training.models import THRESHOLD
from services.training.publishing import checksum

MAX_SCORE_DIFFERENCE: Final = 1e-9
"""In log-odds, between a scorecard and scikit-learn."""

GOLDEN_ROWS: Final = 12
FEWEST_REFERENCE_ROWS: Final = 30
_BAND: Final = 0.05
"""The band of the reference near the threshold ends at a multiple of this probability."""


def scorecards(pipelines: Mapping[str, Pipeline], features: Matrix, compared: Matrix) -> Scorecards:
    """Return the scorecards of those of the fitted models that are additive.

    ``features`` are the training rows, of which references are means. Raises ``ParityError`` if a
    score differs from scikit-learn's in any row of ``compared``.
    """
    found: dict[str, Table | Linear] = {}
    for name, pipeline in pipelines.items():
        scorecard = _scorecard(pipeline)
        if scorecard is None:
            continue
        _check(name, scorecard, pipeline, compared)
        found[name] = scorecard.model_copy(update={"references": _references(scorecard, features)})
    golden = features[:: max(1, len(features) // GOLDEN_ROWS)][:GOLDEN_ROWS]
    return Scorecards(models=found, golden_rows=tuple(map(tuple, golden.tolist())))


def _scorecard(pipeline: Pipeline) -> Table | Linear | None:
    classifier = pipeline[-1]
    if isinstance(classifier, LogisticRegression):
        return _linear(pipeline)
    if isinstance(classifier, HistGradientBoostingClassifier) and classifier.max_depth == 1:
        return _table(classifier)
    return None


def _linear(pipeline: Pipeline) -> Linear:
    scaler, classifier = pipeline[0], pipeline[-1]
    coefficients = classifier.coef_[0] / scaler.scale_
    return Linear(
        base=float(classifier.intercept_[0] - coefficients @ scaler.mean_),
        features=tuple(
            LinearFeature(**_named(feature), coefficient=coefficient)
            for feature, coefficient in zip(FEATURES, coefficients.tolist(), strict=True)
            if coefficient
        ),
        references={},
    )


def _table(classifier: HistGradientBoostingClassifier) -> Table:
    # Not public, so the comparison with scikit-learn's scores below holds them to their meaning.
    base = float(classifier._baseline_prediction[0, 0])  # noqa: SLF001 - there is no other way
    steps: dict[str, list[tuple[float, float, float]]] = {feature: [] for feature in FEATURES}
    for [tree] in classifier._predictors:  # noqa: SLF001 - as above
        root = tree.nodes[0]
        if root["is_leaf"]:
            base += float(root["value"])
            continue
        left, right = (float(tree.nodes[root[side]]["value"]) for side in ("left", "right"))
        cut = _between_float32(root["num_threshold"])
        steps[FEATURES[root["feature_idx"]]].append((cut, left, right))
    return Table(
        base=base,
        features=tuple(_cells(feature, each) for feature, each in steps.items() if each),
        references={},
    )


def _cells(feature: str, steps: list[tuple[float, float, float]]) -> TableFeature:
    cuts = sorted({cut for cut, _, _ in steps})
    return TableFeature(
        **_named(feature),
        cuts=tuple(cuts),
        points=tuple(
            # Up to the cut of a step, and at it, a value goes to the left.
            sum(left if cell <= cuts.index(cut) else right for cut, left, right in steps)
            for cell in range(len(cuts) + 1)
        ),
    )


def _named(feature: str) -> dict[str, Any]:
    return {
        "feature": feature,
        "position": FEATURES.index(feature),
        "inputs": tuple(FEATURE_INPUTS[feature]),
    }


def _between_float32(threshold: float) -> float:
    """Return the highest number that rounds to a float32 of at most ``threshold``."""
    below = float32_at_most(threshold)
    middle = (float(below) + float(np.nextafter(below, np.float32(np.inf)))) / 2
    return middle if np.float32(middle) <= below else float(np.nextafter(middle, -np.inf))


def _check(name: str, scorecard: Table | Linear, pipeline: Pipeline, compared: Matrix) -> None:
    expected = pipeline.decision_function(compared.astype(np.float64))
    found = np.array([score(scorecard, row) for row in compared.tolist()])
    gap = float(np.abs(found - expected).max())
    if not gap <= MAX_SCORE_DIFFERENCE:
        raise ParityError(
            f"The scorecard of {name} differs from scikit-learn by up to {gap:.1e} in log-odds"
            f" (allowed: {MAX_SCORE_DIFFERENCE:.0e}); nothing was published"
        )


def _references(scorecard: Table | Linear, features: Matrix) -> dict[ReferenceName, Reference]:
    rows = features.tolist()
    found = [points(scorecard, row) for row in rows]
    by_row = np.array([list(each.values()) for each in found])
    approval = np.array([probability(score(scorecard, row)) for row in rows])
    # At or slightly above the threshold: as wide a band as gives enough rows. Where none is
    # approved, the row that comes nearest to it.
    lowest = min(THRESHOLD, float(approval.max()))
    nearest = np.sort(approval[approval >= lowest])[:FEWEST_REFERENCE_ROWS]
    highest = ceil(float(nearest[-1]) / _BAND) * _BAND
    near = (approval >= lowest) & (approval <= highest)
    band = f"Training rows with a probability of approval from {lowest:.2f} to {highest:.2f}."
    names = list(found[0])
    return {
        "approved_near_threshold": _reference(
            "approved_near_threshold", band, scorecard, names, by_row[near]
        ),
        "all_applicants": _reference(
            "all_applicants", "All training rows.", scorecard, names, by_row
        ),
    }


def _reference(
    name: ReferenceName,
    description: str,
    scorecard: Table | Linear,
    features: Sequence[str],
    by_row: npt.NDArray[np.float64],
) -> Reference:
    means = by_row.mean(axis=0)
    found = dict(zip(features, means.tolist(), strict=True))
    return Reference(
        id=f"{name}@{checksum(to_json(found))[:8]}",
        description=description,
        rows=len(by_row),
        mean_score=scorecard.base + sum(found.values()),
        points=found,
    )

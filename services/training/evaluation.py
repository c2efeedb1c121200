"""Evaluate models on rows that they were not trained on.

Every metric comes from one stratified 20 % holdout or from repeated stratified cross-validation.
Both baselines use the same folds and the same code as the models.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final, cast

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)
from sklearn.model_selection import RepeatedStratifiedKFold, train_test_split
from threadpoolctl import threadpool_limits

from services.scoring.features import Matrix, feature_matrix
from services.scoring.manifest import (
    ConfusionMatrix,
    CrossValidation,
    Holdout,
    Interval,
)
from services.training.applications import LabelledApplications, Labels
from services.training.models import (
    BASELINES,
    PIPELINES,
    SEED,
    THRESHOLD,
    Classifier,
    Probabilities,
)
from shared.contract.application import SCORED

HOLDOUT_SHARE: Final = 0.2
IMPORTANCE_SHUFFLES: Final = 20
DECIMALS: Final = 6
"""Metrics are kept to this many decimals; beyond them, machines may differ in rounding."""

CANDIDATES: Final = cast("Mapping[str, Callable[[], Classifier]]", {**PIPELINES, **BASELINES})

_METRICS: Final[Mapping[str, Callable[[Labels, Probabilities], float]]] = {
    "accuracy": lambda approved, p: accuracy_score(approved, p >= THRESHOLD),
    "balanced_accuracy": lambda approved, p: balanced_accuracy_score(approved, p >= THRESHOLD),
    "auc": roc_auc_score,
    "brier": brier_score_loss,
    "log_loss": lambda approved, p: log_loss(approved, p, labels=[0, 1]),
}


@dataclass(frozen=True)
class OutOfFold:
    """Each candidate's predictions for the rows that its fold held out, and their scores."""

    approvals: Mapping[str, Probabilities]
    """Probability of approval, shape (repeats, rows)."""
    scores: Mapping[str, Mapping[str, npt.NDArray[np.float64]]]
    """By metric: one value per fold, in the same order of folds for every candidate."""
    folds: int


@dataclass(frozen=True)
class HoldoutResult:
    """One candidate on the holdout."""

    metrics: Holdout
    importances: Mapping[str, float]
    """Rise of the log-loss when an input is shuffled, by scored input; empty for baselines."""
    training_time_s: float


def cross_validate(
    features: Matrix,
    approved: Labels,
    *,
    folds: int = 10,
    repeats: int = 10,
    jobs: int = 1,
    tick: Callable[[], object] = lambda: None,
) -> OutOfFold:
    """Fit every candidate on every fold of ``repeats`` stratified splits into ``folds``.

    ``tick`` is called after each fold. The result does not depend on ``jobs``: each fit has one
    seed and one thread.
    """
    splitter = RepeatedStratifiedKFold(n_splits=folds, n_repeats=repeats, random_state=SEED)
    splits = list(splitter.split(features, approved))
    answers = Parallel(n_jobs=jobs, return_as="generator")(
        delayed(_fit_fold)(features, approved, train, test) for train, test in splits
    )
    approvals = {name: np.empty((repeats, len(approved))) for name in CANDIDATES}
    scores: dict[str, dict[str, list[float]]] = {
        name: {metric: [] for metric in _METRICS} for name in CANDIDATES
    }
    for number, ((_, test), answer) in enumerate(zip(splits, answers, strict=True)):
        for name, probabilities in answer.items():
            approvals[name][number // folds, test] = probabilities
            for metric, score in _METRICS.items():
                scores[name][metric].append(score(approved[test], probabilities))
        tick()
    return OutOfFold(
        approvals=approvals,
        scores={
            name: {metric: np.array(values) for metric, values in by_metric.items()}
            for name, by_metric in scores.items()
        },
        folds=folds,
    )


def _fit_fold(
    features: Matrix, approved: Labels, train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]
) -> dict[str, Probabilities]:
    # One thread, because the order in which threads add numbers changes the last digits.
    with threadpool_limits(limits=1):
        return {
            name: _fitted(name, features[train], approved[train]).predict_proba(features[test])[
                :, 1
            ]
            for name in CANDIDATES
        }


def _fitted(name: str, features: Matrix, approved: Labels) -> Classifier:
    classifier = CANDIDATES[name]()
    classifier.fit(features, approved)
    return classifier


def interval(values: npt.NDArray[np.float64], *, folds: int) -> Interval:
    """Return the mean over folds with the 95 % interval of the corrected resampled t-test.

    Folds share training rows, so their plain standard error is far too small; the correction adds
    the ratio of test to training rows to the variance. Source: Nadeau and Bengio, Inference for the
    Generalization Error, Machine Learning 52 (2003), 239-281.
    """
    mean = float(values.mean())
    count = len(values)
    variance = (1 / count + 1 / (folds - 1)) * float(values.var(ddof=1))
    margin = float(stats.t.ppf(0.975, count - 1)) * sqrt(variance)
    return Interval(
        mean=round(mean, DECIMALS),
        low=round(mean - margin, DECIMALS),
        high=round(mean + margin, DECIMALS),
    )


def cross_validation_metrics(out_of_fold: OutOfFold, name: str) -> CrossValidation:
    """Return one candidate's metrics in cross-validation, with their intervals."""
    scores = out_of_fold.scores[name]
    return CrossValidation(
        **{metric: interval(scores[metric], folds=out_of_fold.folds) for metric in _METRICS}
    )


def difference(out_of_fold: OutOfFold, metric: str, name: str, other: str) -> Interval:
    """Return ``name`` minus ``other`` in one metric, paired fold by fold."""
    scores = out_of_fold.scores
    return interval(scores[name][metric] - scores[other][metric], folds=out_of_fold.folds)


def hold_out(data: LabelledApplications) -> dict[str, HoldoutResult]:
    """Train every candidate on 80 % of the rows and evaluate it on the rest (stratified)."""
    train, test = train_test_split(
        np.arange(len(data.approved)),
        test_size=HOLDOUT_SHARE,
        random_state=SEED,
        stratify=data.approved,
    )
    training = feature_matrix(data.applications[row] for row in train)
    held_out = [data.applications[row] for row in test]
    approved = data.approved[test]
    results = {}
    with threadpool_limits(limits=1):
        for name in CANDIDATES:
            started = time.perf_counter()
            classifier = _fitted(name, training, data.approved[train])
            training_time_s = time.perf_counter() - started
            results[name] = HoldoutResult(
                metrics=_holdout_metrics(
                    approved, classifier.predict_proba(feature_matrix(held_out))[:, 1]
                ),
                importances=(
                    _importances(classifier, held_out, approved) if name in PIPELINES else {}
                ),
                training_time_s=training_time_s,
            )
    return results


def _holdout_metrics(approved: Labels, probabilities: Probabilities) -> Holdout:
    predicted = probabilities >= THRESHOLD
    negative, positive = confusion_matrix(approved, predicted, labels=[0, 1]).tolist()
    return Holdout(
        rows=len(approved),
        accuracy=round(accuracy_score(approved, predicted), DECIMALS),
        precision=round(precision_score(approved, predicted, zero_division=0), DECIMALS),
        recall=round(recall_score(approved, predicted), DECIMALS),
        f1=round(f1_score(approved, predicted), DECIMALS),
        auc=round(roc_auc_score(approved, probabilities), DECIMALS),
        confusion_matrix=ConfusionMatrix(
            true_negative=negative[0],
            false_positive=negative[1],
            false_negative=positive[0],
            true_positive=positive[1],
        ),
    )


def _importances(
    classifier: Classifier, applications: Sequence[Mapping[str, object]], approved: Labels
) -> dict[str, float]:
    # An input is shuffled before features are computed, so that all features derived from it
    # (categories, ratios, logarithms) move together.
    random = np.random.default_rng(SEED)
    score = _METRICS["log_loss"]

    unshuffled = score(approved, classifier.predict_proba(feature_matrix(applications))[:, 1])
    importances = {}
    for field in SCORED:
        shuffled = [
            {**application, field: applications[other][field]}
            for _ in range(IMPORTANCE_SHUFFLES)
            for application, other in zip(
                applications, random.permutation(len(applications)), strict=True
            )
        ]
        answers = classifier.predict_proba(feature_matrix(shuffled))[:, 1]
        loss = score(np.tile(approved, IMPORTANCE_SHUFFLES), answers)
        # Adding zero makes a negative zero positive.
        importances[field] = round(loss - unshuffled, DECIMALS) + 0.0
    return importances

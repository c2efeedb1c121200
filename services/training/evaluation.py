"""Evaluate models on rows that they were not trained on.

Every metric comes from one stratified 20 % holdout or from repeated stratified cross-validation.
Both baselines use the same folds and the same code as the models.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Final

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

from services.scoring.features import Columns, Imputation, Matrix
from services.scoring.manifest import (
    ConfusionMatrix,
    CrossValidation,
    Holdout,
    Interval,
)
from services.training.applications import LabelledApplications, Labels
from services.training.columns import Rows, columns_of, matrix_of, of_rows
from services.training.models import (
    BASELINES,
    SEED,
    THRESHOLD,
    Classifier,
    Model,
    Probabilities,
    candidates_of,
    one_thread,
)
from services.training.unknowns import learn_imputation
from shared.contract.application import SCORED

HOLDOUT_SHARE: Final = 0.2
MOST_REPEATS: Final = 10
VARIANT_REPEATS: Final = 5
"""Variants of the models are fitted in the first repeats alone, at most so many: they take most of
the time, and all repeats would narrow their intervals by a fiftieth."""
_REPEATED_ROWS: Final = 10_000
"""A cross-validation is repeated until it has predicted so many rows."""
MOST_SHUFFLES: Final = 20
_SHUFFLED_ROWS: Final = 20_000
"""An input is shuffled until so many rows are predicted, but at most ``MOST_SHUFFLES`` times."""
DECIMALS: Final = 6
"""Metrics are kept to this many decimals; beyond them, machines may differ in rounding."""

METRICS: Final[Mapping[str, Callable[[Labels, Probabilities], float]]] = {
    "accuracy": lambda approved, p: accuracy_score(approved, p >= THRESHOLD),
    "balanced_accuracy": lambda approved, p: balanced_accuracy_score(approved, p >= THRESHOLD),
    "auc": roc_auc_score,
    "brier": brier_score_loss,
    "log_loss": lambda approved, p: log_loss(approved, p, labels=[0, 1]),
}


@dataclass(frozen=True)
class OutOfFold:
    """Each candidate's predictions for the rows that its fold held out, and their scores."""

    titles: Mapping[str, str]
    """Of the models; other candidates are baselines, or variants of a model."""
    approvals: Mapping[str, Probabilities]
    """Probability of approval, shape (repeats, rows); variants have fewer repeats."""
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


def repeats_for(rows: int) -> int:
    """Return how often the folds are drawn anew: the fewer rows, the more luck is in one draw."""
    return min(MOST_REPEATS, max(1, _REPEATED_ROWS // rows))


def splits(approved: Labels, *, folds: int, repeats: int) -> list[tuple[Rows, Rows]]:
    """Return the rows to train on and those held out, for each fold of each repeat."""
    splitter = RepeatedStratifiedKFold(n_splits=folds, n_repeats=repeats, random_state=SEED)
    return list(splitter.split(approved, approved))


def cross_validate(
    data: LabelledApplications,
    *,
    models: Mapping[str, Model],
    folds: int = 10,
    repeats: int = MOST_REPEATS,
    jobs: int = 1,
    tick: Callable[[], object] = lambda: None,
) -> OutOfFold:
    """Fit ``candidates_of(models)`` on every fold of ``repeats`` stratified splits.

    Variants of the models are fitted in the first ``VARIANT_REPEATS`` alone. ``tick`` is called
    after each fit. The result does not depend on ``jobs``, the number of processes (-1: one for
    each processor): each fit has one seed and one thread.
    """
    candidates = candidates_of(models)
    few = min(repeats, VARIANT_REPEATS)
    drawn = {name: repeats if name in models or name in BASELINES else few for name in candidates}
    split = splits(data.approved, folds=folds, repeats=repeats)
    found = predict_folds(data, candidates, split, drawn=drawn, folds=folds, jobs=jobs, tick=tick)
    return replace(found, titles={name: model.title for name, model in models.items()})


def predict_folds(
    data: LabelledApplications,
    candidates: Mapping[str, Classifier],
    split: Sequence[tuple[Rows, Rows]],
    *,
    drawn: Mapping[str, int],
    folds: int,
    jobs: int = 1,
    tick: Callable[[], object] = lambda: None,
) -> OutOfFold:
    """Fit each candidate on each fold of its first ``drawn`` repeats of ``split``."""
    approved = data.approved
    approvals = {name: np.empty((drawn[name], len(approved))) for name in candidates}
    scores = {
        name: {metric: np.empty(drawn[name] * folds) for metric in METRICS} for name in candidates
    }
    answers = Parallel(n_jobs=jobs, return_as="generator_unordered")(
        delayed(_fit_fold)(number, name, candidates[name], *learnt)
        for number, learnt in enumerate(_learnt(data, split))
        for name in candidates
        if number < drawn[name] * folds
    )
    for number, name, probabilities in answers:
        _, test = split[number]
        approvals[name][number // folds, test] = probabilities
        for metric, score in METRICS.items():
            scores[name][metric][number] = score(approved[test], probabilities)
        tick()
    return OutOfFold(titles={}, approvals=approvals, scores=scores, folds=folds)


def _learnt(
    data: LabelledApplications, split: Sequence[tuple[Rows, Rows]]
) -> Iterator[tuple[Matrix, Labels, Matrix]]:
    """Yield of each fold the features and labels to learn from, and the features held out."""
    columns = columns_of(data.applications)
    for train, test in split:
        imputation = _learn(data, train)
        training, held_out = (
            matrix_of(of_rows(columns, rows), imputation) for rows in (train, test)
        )
        yield training, data.approved[train], held_out


def _fit_fold(
    number: int,
    name: str,
    candidate: Classifier,
    training: Matrix,
    approved: Labels,
    held_out: Matrix,
) -> tuple[int, str, Probabilities]:
    # One thread, because the order in which threads add numbers changes the last digits.
    with one_thread():
        # In a process of its own the candidate is a copy; in this one it is fitted anew each time.
        candidate.fit(training, approved)
        return number, name, candidate.predict_proba(held_out)[:, 1]


def _learn(data: LabelledApplications, rows: Rows) -> Imputation:
    """Return the imputation that some rows alone teach."""
    return learn_imputation([data.applications[row] for row in rows])


def interval(values: npt.NDArray[np.float64], *, folds: int, comparisons: int = 1) -> Interval:
    """Return the mean over folds with the 95 % interval of the corrected resampled t-test.

    The intervals of so many ``comparisons`` all hold together with 95 % (Bonferroni).

    Folds share training rows, so their plain standard error is far too small; the correction adds
    the ratio of test to training rows to the variance. Source: Nadeau and Bengio, Inference for the
    Generalization Error, Machine Learning 52 (2003), 239-281.
    """
    mean = float(values.mean())
    count = len(values)
    variance = (1 / count + 1 / (folds - 1)) * float(values.var(ddof=1))
    margin = float(stats.t.ppf(1 - 0.025 / comparisons, count - 1)) * sqrt(variance)
    return Interval(
        mean=round(mean, DECIMALS),
        low=round(mean - margin, DECIMALS),
        high=round(mean + margin, DECIMALS),
    )


def cross_validation_metrics(out_of_fold: OutOfFold, name: str) -> CrossValidation:
    """Return one candidate's metrics in cross-validation, with their intervals."""
    scores = out_of_fold.scores[name]
    return CrossValidation(
        **{metric: interval(scores[metric], folds=out_of_fold.folds) for metric in METRICS}
    )


def difference(
    out_of_fold: OutOfFold, metric: str, name: str, other: str, *, comparisons: int = 1
) -> Interval:
    """Return ``name`` minus ``other`` in one metric, paired fold by fold where both were fitted."""
    ours, theirs = (out_of_fold.scores[each][metric] for each in (name, other))
    shared = min(len(ours), len(theirs))
    return interval(
        ours[:shared] - theirs[:shared],
        folds=out_of_fold.folds,
        comparisons=comparisons,
    )


def hold_out(
    data: LabelledApplications,
    *,
    models: Mapping[str, Model],
    tick: Callable[[], object] = lambda: None,
) -> dict[str, HoldoutResult]:
    """Train each candidate on 80 % of the rows and evaluate it on the rest (stratified).

    ``tick`` is called after each candidate and after each input that was shuffled.
    """
    train, test = train_test_split(
        np.arange(len(data.approved)),
        test_size=HOLDOUT_SHARE,
        random_state=SEED,
        stratify=data.approved,
    )
    columns, imputation = columns_of(data.applications), _learn(data, train)
    training = matrix_of(of_rows(columns, train), imputation)
    held_out, approved = of_rows(columns, test), data.approved[test]
    features = matrix_of(held_out, imputation)
    classifiers: dict[str, Classifier] = {}
    times_s: dict[str, float] = {}
    for name, candidate in candidates_of(models).items():
        if name not in models and name not in BASELINES:
            continue
        started = time.perf_counter()
        candidate.fit(training, data.approved[train])
        classifiers[name] = candidate
        times_s[name] = time.perf_counter() - started
        tick()
    with one_thread():
        answers = {
            name: classifier.predict_proba(features)[:, 1]
            for name, classifier in classifiers.items()
        }
        losses = _shuffled_losses(
            {name: classifiers[name] for name in models}, held_out, approved, imputation, tick
        )
    log_loss_of = METRICS["log_loss"]
    return {
        name: HoldoutResult(
            metrics=_holdout_metrics(approved, probabilities),
            importances={
                # Adding zero makes a negative zero positive.
                field: round(by_model[name] - log_loss_of(approved, probabilities), DECIMALS) + 0.0
                for field, by_model in losses.items()
                if name in by_model
            },
            training_time_s=times_s[name],
        )
        for name, probabilities in answers.items()
    }


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


def _shuffled_losses(
    classifiers: Mapping[str, Classifier],
    columns: Columns,
    approved: Labels,
    imputation: Imputation,
    tick: Callable[[], object],
) -> dict[str, dict[str, float]]:
    """The log-loss of each model with one input shuffled, by scored input and by model."""
    # An input is shuffled before features are computed, so that all features derived from it
    # (categories, ratios, logarithms) move together.
    random = np.random.default_rng(SEED)
    rows = len(approved)
    shuffles = min(MOST_SHUFFLES, max(1, _SHUFFLED_ROWS // rows))
    repeated = of_rows(columns, np.tile(np.arange(rows), shuffles))
    losses = {}
    for field in SCORED:
        orders = np.concatenate([random.permutation(rows) for _ in range(shuffles)])
        features = matrix_of({**repeated, field: columns[field][orders]}, imputation)
        losses[field] = {
            name: METRICS["log_loss"](
                np.tile(approved, shuffles), classifier.predict_proba(features)[:, 1]
            )
            for name, classifier in classifiers.items()
        }
        tick()
    return losses

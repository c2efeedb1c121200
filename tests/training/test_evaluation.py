"""Cross-validation, the holdout and their intervals."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score

from services.scoring.features import feature_matrix
from services.training.applications import LabelledApplications
from services.training.evaluation import (
    HoldoutResult,
    OutOfFold,
    cross_validate,
    cross_validation_metrics,
    difference,
    hold_out,
    interval,
    repeats_for,
)
from services.training.models import BASELINES, SEED, candidates_of, free_name
from services.training.train import Published
from shared.contract.application import SCORED
from tests.training.conftest import MODEL_NAMES, MODELS, unfitted


@pytest.fixture(scope="module")
def held_out(labelled: LabelledApplications) -> dict[str, HoldoutResult]:
    """Every candidate on the holdout."""
    return hold_out(labelled, models=MODELS)


@pytest.fixture(scope="module")
def out_of_fold(labelled: LabelledApplications) -> OutOfFold:
    """Every candidate on three folds, twice."""
    return cross_validate(labelled, models=MODELS, folds=3, repeats=2)


def test_interval_has_the_correction_for_shared_training_rows() -> None:
    """By hand for four values: t(0.975, 3) = 3.182446, variance factor 1/4 + 1/1 for two folds."""
    found = interval(np.array([0.7, 0.8, 0.8, 0.9]), folds=2)
    margin = 3.182446 * sqrt((1 / 4 + 1) * (0.02 / 3))
    assert found.mean == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.8 - margin, 0.8 + margin), abs=1e-6)


def test_scores_are_those_of_an_independent_cross_validation(
    labelled: LabelledApplications,
) -> None:
    """Where nothing is missing, the library's own cross-validation gives the same scores."""
    rows = [
        row
        for row, application in enumerate(labelled.applications)
        if None not in (application[field] for field in SCORED)
    ]
    complete = replace(
        labelled,
        applications=tuple(labelled.applications[row] for row in rows),
        approved=labelled.approved[rows],
    )
    found = cross_validate(
        complete, models={"logistic_regression": MODELS["logistic_regression"]}, folds=3, repeats=1
    )
    expected = cross_val_score(
        unfitted("logistic_regression"),
        feature_matrix(complete.applications, {}),
        complete.approved,
        cv=RepeatedStratifiedKFold(n_splits=3, n_repeats=1, random_state=SEED),
        scoring="neg_log_loss",
    )
    # Held to its directions, it differs in folds that would teach it another one.
    scores = found.scores[free_name("logistic_regression")]
    assert scores["log_loss"] == pytest.approx(-expected)


def test_every_row_is_answered_in_every_repeat(
    labelled: LabelledApplications, out_of_fold: OutOfFold
) -> None:
    """Out-of-fold probabilities are complete, within 0 and 1, and differ between repeats."""
    for name in candidates_of(MODELS):
        approvals = out_of_fold.approvals[name]
        assert approvals.shape == (2, len(labelled.approved))
        assert ((approvals >= 0) & (approvals <= 1)).all()
    first, second = out_of_fold.approvals["random_forest"]
    assert (first != second).any()


@pytest.mark.no_cover  # the fixtures train as much
def test_result_does_not_depend_on_the_number_of_processes(
    labelled: LabelledApplications, trained: Published
) -> None:
    """Two processes give the same result as one, bit for bit, and report each fit once."""
    ticks: list[None] = []
    together = cross_validate(
        labelled,
        models=MODELS,
        folds=2,
        repeats=1,
        jobs=2,
        tick=lambda: ticks.append(None),
    )
    assert len(ticks) == 2 * len(candidates_of(MODELS))
    alone = trained.out_of_fold
    for name in candidates_of(MODELS):
        assert alone.approvals[name].tobytes() == together.approvals[name].tobytes()


@pytest.mark.system
@pytest.mark.no_cover  # the fixtures train as much
def test_shuffled_labels_cannot_be_predicted(labelled: LabelledApplications) -> None:
    """No label leaks into the features: where there is nothing to learn, nothing is learnt."""
    approved = np.random.default_rng(5).permutation(labelled.approved)
    ticks: list[None] = []
    found = cross_validate(
        replace(labelled, approved=approved),
        models=MODELS,
        folds=3,
        repeats=1,
        tick=lambda: ticks.append(None),
    )
    assert len(ticks) == 3 * len(candidates_of(MODELS))
    for name in MODEL_NAMES:
        assert 0.35 < cross_validation_metrics(found, name).auc.mean < 0.65


def test_baselines_stand_where_they_must(
    labelled: LabelledApplications, out_of_fold: OutOfFold
) -> None:
    """The majority class scores the commoner label's share and AUC 0.5; the rule beats it."""
    majority = cross_validation_metrics(out_of_fold, "majority_class")
    assert majority.accuracy.mean == pytest.approx(labelled.approved.mean(), abs=0.002)
    assert majority.auc.mean == 0.5
    assert difference(out_of_fold, "accuracy", "credit_history_rule", "majority_class").low > 0


def test_difference_to_itself_is_zero(out_of_fold: OutOfFold) -> None:
    """The paired difference of a model from itself is exactly zero."""
    same = difference(out_of_fold, "log_loss", "random_forest", "random_forest")
    assert (same.low, same.mean, same.high) == (0, 0, 0)
    assert same.contains_zero


def test_holdout_is_a_stratified_fifth(
    labelled: LabelledApplications, held_out: dict[str, HoldoutResult]
) -> None:
    """It has 20 % of the rows; the confusion matrix adds up and yields all metrics."""
    assert set(held_out) == {*MODEL_NAMES, *BASELINES}
    for result in held_out.values():
        holdout = result.metrics
        matrix = holdout.confusion_matrix
        assert holdout.rows == -(-len(labelled.approved) // 5)
        assert sum(matrix.model_dump().values()) == holdout.rows
        right = matrix.true_positive + matrix.true_negative
        assert holdout.accuracy == pytest.approx(right / holdout.rows, abs=1e-6)
        assert holdout.recall == pytest.approx(
            matrix.true_positive / (matrix.true_positive + matrix.false_negative), abs=1e-6
        )
        positives = (matrix.true_positive + matrix.false_negative) / holdout.rows
        assert positives == pytest.approx(labelled.approved.mean(), abs=0.01)
        assert result.training_time_s > 0


def test_credit_history_is_the_most_important_input(
    held_out: dict[str, HoldoutResult],
) -> None:
    """Every model relies on it most; each scored input has an importance, a baseline has none."""
    for name in MODEL_NAMES:
        importances = held_out[name].importances
        assert tuple(importances) == SCORED
        assert max(importances, key=lambda field: importances[field]) == "Credit_History"
    assert held_out["majority_class"].importances == {}


@pytest.mark.parametrize(("rows", "repeats"), [(614, 10), (1_000, 10), (4_000, 2), (50_000, 1)])
def test_few_rows_are_divided_more_often(rows: int, repeats: int) -> None:
    """What one division leaves to luck, many average out."""
    assert repeats_for(rows) == repeats

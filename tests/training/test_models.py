"""The models and the baselines."""

import numpy as np
import pytest

from services.scoring.features import feature_matrix
from services.training.models import BASELINES, PIPELINES, CreditHistoryRule, parameters


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("random_forest", {"n_estimators": "200", "min_samples_leaf": "3"}),
        ("logistic_regression", {"C": "0.1"}),
        (
            "gradient_boosting",
            {
                "n_estimators": "120",
                "max_depth": "1",
                "learning_rate": "0.05",
                "min_samples_leaf": "5",
                "max_features": "0.5",
            },
        ),
        (
            "support_vector_machine",
            {"cv": "5", "ensemble": "False", "estimator__C": "2", "estimator__gamma": "0.003"},
        ),
    ],
)
def test_parameters_are_the_documented_ones(name: str, expected: dict[str, str]) -> None:
    """Only these and the seed differ from the library's defaults."""
    found = parameters(PIPELINES[name]())
    found.pop("classifier__random_state", None)
    assert found == {
        "imputer__strategy": "'median'",
        **{f"classifier__{key}": value for key, value in expected.items()},
    }


def test_calibration_is_the_last_step_of_the_pipeline() -> None:
    """The support vector machine is calibrated inside the pipeline, where it exports correctly."""
    pipeline = PIPELINES["support_vector_machine"]()
    assert [name for name, _ in pipeline.steps] == ["imputer", "scaler", "classifier"]


def test_rule_decides_as_the_rows_of_the_same_state_were_decided() -> None:
    """Each state of Credit_History, missing included, has its own smoothed approval rate."""
    features = feature_matrix(
        {"ApplicantIncome": 1000.0, "Credit_History": state} for state in (1, 1, 1, 0, 0, None)
    )
    rule = CreditHistoryRule()
    rule.fit(features, np.array([1, 1, 0, 0, 0, 1]))
    assert rule.predict_proba(features)[:, 1] == pytest.approx([3 / 5] * 3 + [1 / 4] * 2 + [2 / 3])


def test_rule_is_finite_for_a_state_it_never_saw() -> None:
    """A state without rows has probability one half, never 0 or 1."""
    known, unknown = (
        feature_matrix([{"ApplicantIncome": 1000.0, "Credit_History": state}]) for state in (1, 0)
    )
    rule = CreditHistoryRule()
    rule.fit(known, np.array([1]))
    assert rule.predict_proba(unknown).tolist() == [[0.5, 0.5]]


def test_majority_class_gives_everyone_the_approval_rate() -> None:
    """The first baseline uses only the labels."""
    features = feature_matrix([{"ApplicantIncome": float(income)} for income in (1, 2, 3, 4)])
    majority = BASELINES["majority_class"]()
    majority.fit(features, np.array([1, 1, 1, 0]))
    assert majority.predict_proba(features)[:, 1].tolist() == [0.75] * 4

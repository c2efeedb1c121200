"""The four models and the two baselines, unfitted."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from services.scoring.features import FEATURES, Matrix
from services.scoring.manifest import BaselineName
from services.training.applications import Labels

SEED: Final = 42
"""The seed of every split, model and random draw, the holdout that is usually quoted included."""

THRESHOLD: Final = 0.5
"""The lowest probability of approval at which an application is approved."""

Probabilities = npt.NDArray[np.float64]


class Classifier(Protocol):
    """What evaluation needs of a model."""

    def fit(self, features: Matrix, approved: Labels, /) -> object:
        """Learn from rows of features and their labels."""

    def predict_proba(self, features: Matrix, /) -> Probabilities:
        """Probability of rejection and of approval, shape (rows, 2)."""


def _imputed(*steps: tuple[str, object]) -> Pipeline:
    return Pipeline([("imputer", SimpleImputer(strategy="median")), *steps])


def _random_forest() -> Pipeline:
    return _imputed(
        (
            "classifier",
            RandomForestClassifier(n_estimators=200, min_samples_leaf=3, random_state=SEED),
        )
    )


def _logistic_regression() -> Pipeline:
    return _imputed(
        ("scaler", StandardScaler()),
        ("classifier", LogisticRegression(C=0.1, random_state=SEED)),
    )


def _gradient_boosting() -> Pipeline:
    return _imputed(
        (
            "classifier",
            GradientBoostingClassifier(
                n_estimators=120,
                max_depth=1,
                learning_rate=0.05,
                min_samples_leaf=5,
                max_features=0.5,
                random_state=SEED,
            ),
        )
    )


def _support_vector_machine() -> Pipeline:
    # The calibration is inside the pipeline: wrapped around it, it exports to ONNX wrongly and
    # silently.
    return _imputed(
        ("scaler", StandardScaler()),
        (
            "classifier",
            CalibratedClassifierCV(
                SVC(kernel="rbf", C=2, gamma=0.003), method="sigmoid", cv=5, ensemble=False
            ),
        ),
    )


PIPELINES: Final[Mapping[str, Callable[[], Pipeline]]] = {
    "random_forest": _random_forest,
    "logistic_regression": _logistic_regression,
    "gradient_boosting": _gradient_boosting,
    "support_vector_machine": _support_vector_machine,
}
"""Makes an unfitted pipeline of each model; every call makes a new one."""

MODEL_NAMES: Final = tuple(PIPELINES)
"""The models that training makes; a bundle may hold others."""

TITLES: Final[Mapping[str, str]] = {
    "random_forest": "Random forest",
    "logistic_regression": "Logistic regression",
    "gradient_boosting": "Gradient boosting",
    "support_vector_machine": "Support vector machine",
    "majority_class": "Majority class",
    "credit_history_rule": "Credit_History rule",
}


_CREDIT_HISTORY_STATES = [
    FEATURES.index(f"Credit_History_{state}") for state in ("0", "1", "missing")
]


class CreditHistoryRule:
    """Decides as most applications with the same Credit_History (0, 1 or missing) were decided.

    The probability is the share approved in the training rows, by the rule of succession, so that
    a state with no rows, or with one outcome only, has a finite log-loss too.
    """

    def fit(self, features: Matrix, approved: Labels, /) -> object:
        """Estimate the approval rate of each state."""
        states = features[:, _CREDIT_HISTORY_STATES].astype(np.float64)
        self._approval_rates = (states.T @ approved + 1) / (states.sum(axis=0) + 2)
        return self

    def predict_proba(self, features: Matrix, /) -> Probabilities:
        """Probability of rejection and of approval, shape (rows, 2)."""
        approval: Probabilities = (
            features[:, _CREDIT_HISTORY_STATES].astype(np.float64) @ self._approval_rates
        )
        return np.column_stack([1 - approval, approval])


BASELINES: Final[Mapping[BaselineName, Callable[[], Classifier]]] = {
    "majority_class": lambda: DummyClassifier(strategy="prior"),
    "credit_history_rule": CreditHistoryRule,
}

BASELINE_DESCRIPTIONS: Final[Mapping[BaselineName, str]] = {
    "majority_class": "Gives everyone the commoner decision, at the overall approval rate.",
    "credit_history_rule": "Decides as most with the same Credit_History (0, 1 or missing) were"
    " decided.",
}


def parameters(pipeline: Pipeline) -> dict[str, str]:
    """Return every parameter that differs from its default, by its path in the pipeline."""
    found: dict[str, str] = {}
    for path, step in pipeline.get_params(deep=True).items():
        if not isinstance(step, BaseEstimator):
            continue
        defaults = type(step)().get_params(deep=False)
        for name, value in step.get_params(deep=False).items():
            # Compared as text, because NaN, the missing value, differs from itself.
            if not isinstance(value, BaseEstimator) and repr(value) != repr(defaults[name]):
                found[f"{path}__{name}"] = repr(value)
    return dict(sorted(found.items()))

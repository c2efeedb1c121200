"""The models and the baselines, and how each is fitted."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol, cast

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from services.scoring.features import DIRECTIONS, FEATURE_INPUTS, FEATURES, Matrix
from services.scoring.manifest import BaselineName
from services.training.applications import Labels

SEED: Final = 42
"""The seed of every split, model and random draw, the holdout that is usually quoted included."""

THRESHOLD: Final = 0.5
"""The lowest probability of approval at which an application is approved."""

MOST_ROWS_OF_A_TREE: Final = 10_000
"""Each tree of a random forest is fitted on at most so many rows, drawn anew for each tree."""

MOST_ROWS_OF_THE_SVM: Final = 4_000
"""More are sampled, because the time to fit it grows with the square of the rows."""

Probabilities = npt.NDArray[np.float64]


class Classifier(Protocol):
    """What evaluation needs of a model."""

    def fit(self, features: Matrix, approved: Labels, /) -> object:
        """Learn from rows of features and their labels."""

    def predict_proba(self, features: Matrix, /) -> Probabilities:
        """Probability of rejection and of approval, shape (rows, 2)."""


_Directions = Sequence[int] | None


def _random_forest(directions: _Directions = DIRECTIONS) -> Pipeline:
    # Each split bounds all those below it to its own side of the middle. So every split sees every
    # feature: the strongest comes first, and a weak one above it would take away its effect.
    forest = RandomForestClassifier(
        n_estimators=100,
        max_depth=3,
        min_samples_leaf=20,
        max_features=1.0,
        monotonic_cst=directions,
        random_state=SEED,
    )
    return Pipeline([("classifier", forest)])


def _logistic_regression() -> Pipeline:
    return Pipeline(
        [
            ("scaler", StandardScaler()),
            ("classifier", LogisticRegression(C=0.1, random_state=SEED)),
        ]
    )


def _gradient_boosting(directions: _Directions = DIRECTIONS) -> Pipeline:
    # Trees of one split each, so that the model is a scorecard.
    stumps = HistGradientBoostingClassifier(
        max_depth=1,
        min_samples_leaf=10,
        max_features=0.5,
        early_stopping=False,
        monotonic_cst=directions,
        random_state=SEED,
    )
    return Pipeline([("classifier", stumps)])


def _support_vector_machine() -> Pipeline:
    # The calibration is inside the pipeline: wrapped around it, it exports to ONNX wrongly and
    # silently.
    return Pipeline(
        [
            ("scaler", StandardScaler()),
            (
                "classifier",
                CalibratedClassifierCV(
                    SVC(kernel="rbf", C=2, gamma=0.003), method="sigmoid", cv=5, ensemble=False
                ),
            ),
        ]
    )


PIPELINES: Final[Mapping[str, Callable[[], Pipeline]]] = {
    "random_forest": _random_forest,
    "logistic_regression": _logistic_regression,
    "gradient_boosting": _gradient_boosting,
    "support_vector_machine": _support_vector_machine,
}
"""Makes an unfitted pipeline of each model; every call makes a new one."""

FREE: Final[Mapping[str, Callable[[], Pipeline]]] = {
    "random_forest": partial(_random_forest, None),
    "logistic_regression": _logistic_regression,
    "gradient_boosting": partial(_gradient_boosting, None),
}
"""The models that are held to the directions of their inputs, as they are without."""

LOCATION: Final = "Property_Area"
_WITHOUT_LOCATION: Final = [
    number for number, feature in enumerate(FEATURES) if LOCATION not in FEATURE_INPUTS[feature]
]

MODEL_NAMES: Final = tuple(PIPELINES)
"""The models that training can make; a bundle may hold fewer, or others."""

TITLES: Final[Mapping[str, str]] = {
    "random_forest": "Random forest",
    "logistic_regression": "Logistic regression",
    "gradient_boosting": "Gradient boosting",
    "support_vector_machine": "Support vector machine",
    "majority_class": "Majority class",
    "credit_history_rule": "Credit_History rule",
}


def free_name(name: str) -> str:
    """Return the candidate that ``name`` is without directions."""
    return f"{name}_without_directions"


def name_without_location(name: str) -> str:
    """Return the candidate that ``name`` is without the location."""
    return f"{name}_without_location"


class WithoutLocation:
    """One of the models, which never sees where the property is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._model = PIPELINES[name]()

    def fit(self, features: Matrix, approved: Labels, /) -> object:
        """Learn from all other features, with their directions."""
        directions = [DIRECTIONS[number] for number in _WITHOUT_LOCATION]
        if "classifier__monotonic_cst" in self._model.get_params():
            self._model.set_params(classifier__monotonic_cst=directions)
        _fit(self._name, self._model, features[:, _WITHOUT_LOCATION], approved, directions)
        return self

    def predict_proba(self, features: Matrix, /) -> Probabilities:
        """Probability of rejection and of approval, shape (rows, 2)."""
        probabilities: Probabilities = self._model.predict_proba(features[:, _WITHOUT_LOCATION])
        return probabilities


class CreditHistoryRule:
    """Decides as most applications with the same Credit_History (0, 1 or missing) were decided.

    The probability is the share approved in the training rows, by the rule of succession, so that
    a state with no rows, or with one outcome only, has a finite log-loss too.
    """

    def fit(self, features: Matrix, approved: Labels, /) -> object:
        """Estimate the approval rate of each state."""
        states = _credit_history_states(features)
        self._approval_rates = (states.T @ approved + 1) / (states.sum(axis=0) + 2)
        return self

    def predict_proba(self, features: Matrix, /) -> Probabilities:
        """Probability of rejection and of approval, shape (rows, 2)."""
        approval: Probabilities = _credit_history_states(features) @ self._approval_rates
        return np.column_stack([1 - approval, approval])


def _credit_history_states(features: Matrix) -> Probabilities:
    """Return a row of 0, 1 or missing, one-hot, for each application."""
    value = features[:, FEATURES.index("Credit_History")]
    bad, good = value == 0, value == 1
    return np.column_stack([bad, good, ~(bad | good)]).astype(np.float64)


BASELINES: Final[Mapping[BaselineName, Callable[[], Classifier]]] = {
    "majority_class": lambda: DummyClassifier(strategy="prior"),
    "credit_history_rule": CreditHistoryRule,
}

BASELINE_DESCRIPTIONS: Final[Mapping[BaselineName, str]] = {
    "majority_class": "Predicts the more common decision for all, at the overall approval rate.",
    "credit_history_rule": "Decides like the majority of applications with the same Credit_History"
    " (0, 1 or missing).",
}


CANDIDATES: Final = cast(
    "Mapping[str, Callable[[], Classifier]]",
    {
        **PIPELINES,
        **BASELINES,
        **{free_name(name): make for name, make in FREE.items()},
        **{name_without_location(name): partial(WithoutLocation, name) for name in PIPELINES},
    },
)


def is_sampled(name: str, *, rows: int) -> bool:
    """Whether a model is fitted on a stratified sample of ``MOST_ROWS_OF_THE_SVM`` rows."""
    return name == "support_vector_machine" and rows > MOST_ROWS_OF_THE_SVM


def fitted(name: str, features: Matrix, approved: Labels) -> Classifier:
    """Fit a candidate, on one thread so that the result is the same each time."""
    candidate = CANDIDATES[name]()
    _fit(name, candidate, features, approved, DIRECTIONS)
    return candidate


def _fit(
    name: str,
    candidate: Classifier,
    features: Matrix,
    approved: Labels,
    directions: Sequence[int],
) -> None:
    if is_sampled(name, rows=len(approved)):
        features, _, approved, _ = train_test_split(
            features,
            approved,
            train_size=MOST_ROWS_OF_THE_SVM,
            random_state=SEED,
            stratify=approved,
        )
    if name == "random_forest" and len(approved) > MOST_ROWS_OF_A_TREE:
        cast("Pipeline", candidate).set_params(classifier__max_samples=MOST_ROWS_OF_A_TREE)
    with threadpool_limits(limits=1):
        candidate.fit(features, approved)
        if name == "logistic_regression":
            _keep_directions(cast("Pipeline", candidate), features, approved, directions)


def _keep_directions(
    linear: Pipeline, features: Matrix, approved: Labels, directions: Sequence[int]
) -> None:
    """Fit again without the features whose coefficients have the wrong sign, until none has."""
    left_out = np.zeros(len(directions), dtype=bool)
    while (wrong := linear[-1].coef_[0] * directions < 0).any():
        left_out |= wrong
        # A constant feature gets the coefficient 0.
        linear.fit(np.where(left_out, np.float32(0), features), approved)


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

"""The models and the baselines, and how each is fitted."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import ThreadpoolController

from services.scoring.features import DIRECTIONS, FEATURE_INPUTS, FEATURES, Matrix
from services.scoring.manifest import RESERVED_NAMES, BaselineName
from services.training.applications import Labels
from shared.contract.events import ModelName

SEED: Final = 42
"""The seed of every split, model and random draw, the holdout that is usually quoted included."""

THRESHOLD: Final = 0.5
"""The lowest probability of approval at which an application is approved."""

PRINCIPAL_SHARE: Final = 0.125
"""A reason of less than this share of the main one is not among the principal reasons.

None that a refusal needs is left out (12 CFR 1002.9(b)(2), Official Interpretations, comment
9(b)(2)-1): for the training rows and 20,000 random applications, if all weak reasons had to be made
good to be approved, as measured against the reference, making good those that are given would do.
"""

MOST_ROWS_OF_A_TREE: Final = 10_000
"""Each tree of a random forest is fitted on at most so many rows, drawn anew for each tree."""

MOST_ROWS_OF_THE_SVM: Final = 4_000
"""More are sampled, because the time to fit it grows with the square of the rows."""

MODELS_FILE: Final = Path(__file__).with_name("models.toml")
"""The models that are trained unless another file is named."""

Probabilities = npt.NDArray[np.float64]


class ModelsError(Exception):
    """The file of models cannot be used; the message is the one sentence that says why."""


class Classifier(Protocol):
    """What evaluation needs of a model."""

    def fit(self, features: Matrix, approved: Labels, /) -> object:
        """Learn from rows of features and their labels."""

    def predict_proba(self, features: Matrix, /) -> Probabilities:
        """Probability of rejection and of approval, shape (rows, 2)."""


@dataclass(frozen=True)
class Model:
    """A model that training makes."""

    title: str
    pipeline: Pipeline
    """Never fitted itself; its monotone constraints are the directions, if it can have any."""

    @property
    def is_held(self) -> bool:
        """Whether it is held to the directions of its inputs."""
        classifier = self.pipeline[-1]
        return _is_constrained(classifier) or isinstance(classifier, LogisticRegression)


class _Entry(BaseModel):
    """A model in the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    title: str
    classifier: str
    parameters: dict[str, Any] = {}
    scaled: bool = False
    calibrated: bool = False


_ENTRIES: Final = TypeAdapter(dict[ModelName, _Entry])


def read_models(path: Path = MODELS_FILE) -> Mapping[str, Model]:
    """Return the models that the file at ``path`` names; raises ``ModelsError``."""
    try:
        entries = _ENTRIES.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ModelsError(f"{path} cannot be used: {_sentence(error)}") from error
    if not entries or RESERVED_NAMES & set(entries):
        raise ModelsError(f"{path} names no model, or one that is reserved")
    return {name: _model(f"{path}: {name}", entry) for name, entry in entries.items()}


def _sentence(error: Exception) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    return str(error)


def _model(where: str, entry: _Entry) -> Model:
    module, _, name = entry.classifier.rpartition(".")
    try:
        # Nothing else may be named: a file must not be able to run any code there is.
        kind = getattr(import_module(module), name) if module.startswith("sklearn.") else None
        if not (isinstance(kind, type) and issubclass(kind, ClassifierMixin)):
            raise ModelsError(f"{where}: {entry.classifier} is no classifier of scikit-learn")
        classifier = kind(**entry.parameters)
        classifier._validate_params()  # noqa: SLF001 - what is public does so only in fit
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ModelsError(f"{where}: {error}") from error
    # Without probabilities of its own a support vector machine draws nothing.
    if "random_state" in classifier.get_params() and not isinstance(classifier, SVC):
        classifier.set_params(random_state=SEED)
    if _is_constrained(classifier):
        classifier.set_params(monotonic_cst=DIRECTIONS)
    if entry.calibrated:
        if not isinstance(classifier, SVC):
            raise ModelsError(f"{where}: only sklearn.svm.SVC can be calibrated and exported")
        # Inside the pipeline: wrapped around it, it exports to ONNX wrongly and silently.
        classifier = CalibratedClassifierCV(classifier, method="sigmoid", cv=5, ensemble=False)
    if not hasattr(classifier, "predict_proba"):
        raise ModelsError(f"{where}: it has no probabilities without calibrated = true")
    steps = [("scaler", StandardScaler())] if entry.scaled else []
    return Model(entry.title, Pipeline([*steps, ("classifier", classifier)]))


def _is_constrained(classifier: BaseEstimator) -> bool:
    return "monotonic_cst" in classifier.get_params(deep=False)


LOCATION: Final = "Property_Area"
_WITHOUT_LOCATION: Final = [
    number for number, feature in enumerate(FEATURES) if LOCATION not in FEATURE_INPUTS[feature]
]


def free_name(name: str) -> str:
    """Return the candidate that ``name`` is without directions."""
    return f"{name}_without_directions"


def name_without_location(name: str) -> str:
    """Return the candidate that ``name`` is without the location."""
    return f"{name}_without_location"


class Variant:
    """A model to be fitted: as it is, without its directions, or without the location."""

    def __init__(self, model: Model, *, directed: bool = True, located: bool = True) -> None:
        self.pipeline: Pipeline = clone(model.pipeline)
        self._directed = directed
        self._features = slice(None) if located else _WITHOUT_LOCATION
        self._directions = DIRECTIONS if located else [DIRECTIONS[n] for n in _WITHOUT_LOCATION]

    def fit(self, features: Matrix, approved: Labels, /) -> Self:
        """Learn from rows of features and their labels, on a sample where there are too many."""
        features = features[:, self._features]
        classifier = self.pipeline[-1]
        if _is_constrained(classifier):
            classifier.set_params(monotonic_cst=self._directions if self._directed else None)
        if (sample := rows_to_fit(self.pipeline, rows=len(approved))) < len(approved):
            features, _, approved, _ = train_test_split(
                features, approved, train_size=sample, random_state=SEED, stratify=approved
            )
        if isinstance(classifier, RandomForestClassifier) and len(approved) > MOST_ROWS_OF_A_TREE:
            classifier.set_params(max_samples=MOST_ROWS_OF_A_TREE)
        # One thread, so that the result is the same each time.
        with one_thread():
            self.pipeline.fit(features, approved)
            if self._directed and isinstance(classifier, LogisticRegression):
                _keep_directions(self.pipeline, features, approved, self._directions)
        return self

    def predict_proba(self, features: Matrix, /) -> Probabilities:
        """Probability of rejection and of approval, shape (rows, 2)."""
        probabilities: Probabilities = self.pipeline.predict_proba(features[:, self._features])
        return probabilities


def rows_to_fit(pipeline: Pipeline, *, rows: int) -> int:
    """Return on how many of so many rows a model is fitted; if not on all, on a sample."""
    classifier = pipeline[-1]
    inner = classifier.estimator if isinstance(classifier, CalibratedClassifierCV) else classifier
    return min(rows, MOST_ROWS_OF_THE_SVM) if isinstance(inner, SVC) else rows


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

BASELINE_TITLES: Final[Mapping[str, str]] = {
    "majority_class": "Majority class",
    "credit_history_rule": "Credit_History rule",
}

BASELINE_DESCRIPTIONS: Final[Mapping[BaselineName, str]] = {
    "majority_class": "Predicts the more common decision for all, at the overall approval rate.",
    "credit_history_rule": "Decides like the majority of applications with the same Credit_History"
    " (0, 1 or missing).",
}


def candidates_of(models: Mapping[str, Model]) -> dict[str, Classifier]:
    """Return what is cross-validated: the models, the baselines, and variants of the models.

    Those are each model without its directions, if it has any, and without the location.
    """
    return {
        **{name: Variant(model) for name, model in models.items()},
        **{
            free_name(name): Variant(model, directed=False)
            for name, model in models.items()
            if model.is_held
        },
        **{
            name_without_location(name): Variant(model, located=False)
            for name, model in models.items()
        },
        **{name: make() for name, make in BASELINES.items()},
    }


@cache
def _thread_pools() -> ThreadpoolController:
    # Looking for the pools takes as long as a small fit.
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """Compute on one thread, so that sums are added up in the same order each time."""
    limited: AbstractContextManager[object] = _thread_pools().limit(limits=1)
    return limited


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

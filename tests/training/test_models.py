"""The models and the baselines."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import Pipeline

from services.scoring.features import DIRECTIONS, FEATURES, Matrix, feature_matrix
from services.scoring.registry import load_bundle
from services.training import models
from services.training.applications import LabelledApplications
from services.training.export import ParityError, to_onnx_model
from services.training.models import (
    BASELINES,
    CreditHistoryRule,
    ModelsError,
    Variant,
    parameters,
    read_models,
)
from tests.scoring.test_features import IMPUTATION
from tests.training.conftest import MODELS, train_small, unfitted

CONSTRAINT = "(-1, 0, 0, 1, 0, 0, 0, 0, 0)"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "random_forest",
            {
                "max_depth": "3",
                "min_samples_leaf": "20",
                "max_features": "1.0",
                "monotonic_cst": CONSTRAINT,
            },
        ),
        ("logistic_regression", {"C": "0.1"}),
        (
            "gradient_boosting",
            {
                "max_depth": "1",
                "min_samples_leaf": "10",
                "max_features": "0.5",
                "early_stopping": "False",
                "monotonic_cst": CONSTRAINT,
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
    found = parameters(unfitted(name))
    found.pop("classifier__random_state", None)
    assert found == {f"classifier__{key}": value for key, value in expected.items()}


def test_calibration_is_the_last_step_of_the_pipeline() -> None:
    """The support vector machine is calibrated inside the pipeline, where it exports correctly."""
    pipeline = unfitted("support_vector_machine")
    assert [name for name, _ in pipeline.steps] == ["scaler", "classifier"]


def _features(*applications: Mapping[str, object]) -> Matrix:
    """Features of applications with a Credit_History or an income and typical values otherwise."""
    return feature_matrix(
        ({"ApplicantIncome": 1000.0, **application} for application in applications), IMPUTATION
    )


def test_large_data_are_sampled_for_the_models_that_would_take_too_long(
    labelled: LabelledApplications, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tree of the forest takes some rows anew, the support vector machine one sample."""
    features = feature_matrix(labelled.applications, IMPUTATION)
    monkeypatch.setattr(models, "MOST_ROWS_OF_A_TREE", 90)
    monkeypatch.setattr(models, "MOST_ROWS_OF_THE_SVM", 80)
    forest = Variant(MODELS["random_forest"]).fit(features, labelled.approved)
    machine = Variant(MODELS["support_vector_machine"]).fit(features, labelled.approved)
    assert parameters(forest.pipeline)["classifier__max_samples"] == "90"
    [calibrated] = machine.pipeline[-1].calibrated_classifiers_
    assert calibrated.estimator.shape_fit_ == (80, features.shape[1])


def test_linear_model_does_without_features_of_the_wrong_sign(
    labelled: LabelledApplications,
) -> None:
    """Where the data reward debt, the ratio gets no weight instead of a wrong one."""
    features = feature_matrix(labelled.applications, IMPUTATION)
    ratio = features[:, FEATURES.index("Log_Loan_to_Income")]
    model = Variant(MODELS["logistic_regression"])
    model.fit(features, (ratio > np.median(ratio)).astype(int))
    coefficients = model.pipeline[-1].coef_[0]
    assert coefficients[FEATURES.index("Log_Loan_to_Income")] == 0
    assert (coefficients * DIRECTIONS >= 0).all()


def test_small_data_are_not_sampled(labelled: LabelledApplications) -> None:
    features = feature_matrix(labelled.applications, IMPUTATION)
    for name in ("random_forest", "support_vector_machine"):
        expected = unfitted(name).fit(features, labelled.approved).predict_proba(features)
        found = Variant(MODELS[name]).fit(features, labelled.approved).predict_proba(features)
        assert found.tobytes() == expected.tobytes()


def test_rule_decides_as_the_rows_of_the_same_state_were_decided() -> None:
    """Each state of Credit_History, missing included, has its own smoothed approval rate."""
    features = _features(*({"Credit_History": state} for state in (1, 1, 1, 0, 0, None)))
    rule = CreditHistoryRule()
    rule.fit(features, np.array([1, 1, 0, 0, 0, 1]))
    assert rule.predict_proba(features)[:, 1] == pytest.approx([3 / 5] * 3 + [1 / 4] * 2 + [2 / 3])


def test_rule_is_finite_for_a_state_it_never_saw() -> None:
    """A state without rows has probability one half, never 0 or 1."""
    known, unknown = (_features({"Credit_History": state}) for state in (1, 0))
    rule = CreditHistoryRule()
    rule.fit(known, np.array([1]))
    assert rule.predict_proba(unknown).tolist() == [[0.5, 0.5]]


def test_majority_class_gives_everyone_the_approval_rate() -> None:
    """The first baseline uses only the labels."""
    features = _features(*({"ApplicantIncome": float(income)} for income in (1, 2, 3, 4)))
    majority = BASELINES["majority_class"]()
    majority.fit(features, np.array([1, 1, 1, 0]))
    assert majority.predict_proba(features)[:, 1].tolist() == [0.75] * 4


_TREES = """
[extra_trees]
title = "Extra trees"
classifier = "sklearn.ensemble.ExtraTreesClassifier"
parameters = { n_estimators = 5, max_depth = 3 }
"""


def test_other_classifiers_are_trained_under_the_same_rules(
    tmp_path: Path, labelled: LabelledApplications, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named in a file: seeded, held to the directions, exported, compared and served."""
    file = tmp_path / "models.toml"
    file.write_text(_TREES)
    monkeypatch.setattr("services.training.train.draw", lambda *_: {})
    published = train_small(labelled, tmp_path / "bundles", models=read_models(file))
    [model] = published.manifest.models.values()
    assert model.title == "Extra trees"
    assert model.directions.held
    assert model.parameters["classifier__random_state"] == "42"
    bundle = load_bundle(published.folder.parent, published.manifest.version)
    assert list(bundle.models) == ["extra_trees"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (_TREES.replace("sklearn.ensemble.Extra", "sklearn.ensemble.None"), "NoneTreesClassifier"),
        (_TREES.replace("sklearn.ensemble.ExtraTreesClassifier", "os.system"), "no classifier of"),
        (_TREES.replace("max_depth = 3", "max_depth = 'deep'"), "'max_depth' parameter"),
        (_TREES.replace("max_depth", "depth"), "unexpected keyword argument 'depth'"),
        (
            _TREES.replace("ensemble.ExtraTrees", "svm.LinearSV")
            .replace("LinearSVClassifier", "LinearSVC")
            .replace("n_estimators = 5, max_depth = 3", "C = 1.0"),
            "no probabilities",
        ),
        (_TREES + "calibrated = true", "only sklearn.svm.SVC can be calibrated"),
        (_TREES + "scale = true", "extra_trees.scale: Extra inputs"),
        (_TREES.replace("[extra_trees]", "[many]"), "reserved"),
        ("[", "Invalid"),
        ("", "names no model"),
    ],
)
def test_unusable_file_of_models_is_one_sentence(content: str, fault: str, tmp_path: Path) -> None:
    """It names the file and what is wrong, before anything is trained."""
    file = tmp_path / "models.toml"
    file.write_text(content)
    with pytest.raises(ModelsError, match=re.escape(fault)) as refused:
        read_models(file)
    assert str(refused.value).startswith(str(file))


def test_classifier_without_a_form_in_onnx_is_named(labelled: LabelledApplications) -> None:
    """Nothing is published of it."""
    features = feature_matrix(labelled.applications, IMPUTATION)
    pipeline = Pipeline([("classifier", NearestCentroid())]).fit(features, labelled.approved)
    with pytest.raises(ParityError, match="centroid cannot be exported: NearestCentroid has no"):
        to_onnx_model(pipeline, name="centroid")

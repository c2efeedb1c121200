"""An exported model that differs from its reference is not published."""

import io
import json
import random

import joblib
import numpy as np
import onnx
import pytest

from services.scoring.features import FEATURES, Matrix, feature_matrix
from services.training.applications import LabelledApplications, Labels
from services.training.export import (
    MAX_PROBABILITY_DIFFERENCE,
    ParityError,
    check_parity,
    open_onnx,
    random_applications,
    to_joblib,
    to_onnx_model,
)
from services.training.models import Classifier, Probabilities
from shared.contract.parsing import parse_application
from tests.applications import random_application
from tests.scoring.test_features import IMPUTATION
from tests.training.conftest import MODEL_NAMES, unfitted


@pytest.fixture(scope="module")
def rows() -> Matrix:
    """Features of random applications."""
    return feature_matrix(random_applications(1000), IMPUTATION)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_export_passes_the_gate(name: str, labelled: LabelledApplications, rows: Matrix) -> None:
    """All four exports agree with scikit-learn on training rows and random applications."""
    features = feature_matrix(labelled.applications, IMPUTATION)
    pipeline = unfitted(name).fit(features, labelled.approved)
    session = open_onnx(to_onnx_model(pipeline, name=name))
    assert [(node.name, node.shape, node.type) for node in session.get_inputs()] == [
        ("features", [None, len(FEATURES)], "tensor(float)")
    ]
    assert [(node.name, node.type) for node in session.get_outputs()] == [
        ("probabilities", "tensor(float)")
    ]
    compared = np.vstack([features, rows])
    parity = check_parity(name, pipeline, session, compared)
    assert parity.rows == len(compared)
    assert parity.max_absolute_difference <= MAX_PROBABILITY_DIFFERENCE
    assert parity.label_flips == 0


def test_operator_sets_are_in_one_order(labelled: LabelledApplications) -> None:
    """They do not depend on the hash seed of the process, or no two runs would be alike."""
    pipeline = unfitted("gradient_boosting").fit(
        feature_matrix(labelled.applications, IMPUTATION), labelled.approved
    )
    model = onnx.load_from_string(to_onnx_model(pipeline, name="gradient_boosting"))
    assert [operator_set.domain for operator_set in model.opset_import] == ["", "ai.onnx.ml"]


def test_export_that_differs_is_refused(labelled: LabelledApplications, rows: Matrix) -> None:
    """The gate names the model, the difference and the decisions that flip."""
    features = feature_matrix(labelled.applications, IMPUTATION)
    reference, other = (
        unfitted("logistic_regression").fit(features, labels)
        for labels in (labelled.approved, 1 - labelled.approved)
    )
    session = open_onnx(to_onnx_model(other, name="other"))
    with pytest.raises(ParityError, match=r"^logistic_regression differs .* decisions of 1000;"):
        check_parity("logistic_regression", reference, session, rows)


def test_not_a_number_is_refused(labelled: LabelledApplications, rows: Matrix) -> None:
    """A probability that is NaN on one side only counts as the largest difference."""
    features = feature_matrix(labelled.applications, IMPUTATION)
    pipeline = unfitted("logistic_regression").fit(features, labelled.approved)

    class Broken:
        """Returns NaN for the first row."""

        def fit(self, features: Matrix, approved: Labels, /) -> object:
            """Fit like the pipeline."""
            return pipeline.fit(features, approved)

        def predict_proba(self, features: Matrix, /) -> Probabilities:
            """Return the pipeline's probabilities with the first one lost."""
            answers: Probabilities = pipeline.predict_proba(features)
            answers[0] = np.nan
            return answers

    broken: Classifier = Broken()
    with pytest.raises(ParityError, match=r"by up to 1\.0e\+00 in probability"):
        check_parity("broken", broken, open_onnx(to_onnx_model(pipeline, name="x")), rows)


def test_joblib_file_is_the_fitted_pipeline(labelled: LabelledApplications, rows: Matrix) -> None:
    """A model read back gives exactly the same probabilities."""
    pipeline = unfitted("gradient_boosting").fit(
        feature_matrix(labelled.applications, IMPUTATION), labelled.approved
    )
    restored = joblib.load(io.BytesIO(to_joblib(pipeline)))
    assert restored.predict_proba(rows).tobytes() == pipeline.predict_proba(rows).tobytes()


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_joblib_file_does_not_depend_on_what_was_loaded_before(
    name: str, labelled: LabelledApplications
) -> None:
    """A model that is fitted again after loading gives the same file."""
    features = feature_matrix(labelled.applications, IMPUTATION)

    def fit_and_write() -> bytes:
        return to_joblib(unfitted(name).fit(features, labelled.approved))

    before = fit_and_write()
    joblib.load(io.BytesIO(before))
    assert fit_and_write() == before


def test_random_applications_are_what_the_service_accepts() -> None:
    """Each passes the service's validation; together they cover every category and gap."""
    applications = random_applications(500)
    for application in applications:
        parse_application(json.dumps(application).encode())
    for field in ("Credit_History", "Dependents", "Education", "Self_Employed", "Property_Area"):
        assert None in {application[field] for application in applications}
    assert {application["Dependents"] for application in applications} == {
        "0",
        "1",
        "2",
        "3+",
        None,
    }
    incomes = [float(str(application["ApplicantIncome"])) for application in applications]
    assert min(incomes) < 10
    assert max(incomes) > 50_000
    assert random_applications(500) == applications


def test_generated_applications_are_what_the_service_accepts() -> None:
    """The tests' generator makes nothing that the service would refuse."""
    rng = random.Random(11)  # noqa: S311 - test data, not a secret
    for _ in range(500):
        parse_application(json.dumps(random_application(rng)).encode())

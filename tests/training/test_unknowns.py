"""Missing inputs: leaving one out never scores above what is typical, or above a good history."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from services.scoring.directions import TOLERANCE
from services.scoring.features import FEATURES, Matrix, feature_matrix
from services.scoring.manifest import BUNDLE_ROOT, Manifest, read_current_version, read_manifest
from services.training.applications import LabelledApplications, read_applications
from services.training.export import approvals, open_onnx, random_applications
from services.training.models import Probabilities
from services.training.unknowns import (
    HidingPays,
    check_unknowns,
    credit_history_states,
    learn_imputation,
)
from shared.contract.application import FIELDS
from tests.applications import random_application
from tests.scoring.test_features import IMPUTATION
from tests.training.conftest import MODEL_NAMES, MODELS, train_small, unfitted

Rows = Sequence[Mapping[str, object]]
OPTIONAL = [field for field in FIELDS if field.use == "scored" and not field.required]


@pytest.fixture(scope="module")
def rows(labelled: LabelledApplications) -> Rows:
    """The labelled applications, and 5,000 from all that the service accepts."""
    return [*labelled.applications, *random_applications(5_000)]


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """The shipped bundle's manifest."""
    return read_manifest(BUNDLE_ROOT / read_current_version(BUNDLE_ROOT) / "manifest.json")


@pytest.fixture(scope="module", params=MODEL_NAMES)
def scored(request: pytest.FixtureRequest, manifest: Manifest) -> Callable[[Rows], Probabilities]:
    """What each served model of the shipped bundle answers to applications."""
    file = BUNDLE_ROOT / manifest.version / f"{request.param}.onnx"
    session = open_onnx(file.read_bytes())
    return lambda rows: approvals(session, feature_matrix(rows, manifest.imputation))


_HISTORY = FEATURES.index("Credit_History")


def _with(rows: Rows, field: str, value: object) -> Rows:
    return [{**row, field: value} for row in rows]


def test_unknown_credit_history_scores_between_bad_and_good(
    rows: Rows, scored: Callable[[Rows], Probabilities]
) -> None:
    """For every application and every model: hiding it never beats a good one."""
    bad, unknown, good = (scored(_with(rows, "Credit_History", state)) for state in (0, None, 1))
    assert (bad <= unknown + TOLERANCE).all()
    assert (unknown <= good + TOLERANCE).all()


@pytest.mark.parametrize("field", [field.name for field in OPTIONAL])
@pytest.mark.no_cover
def test_leaving_an_input_out_scores_as_the_typical_value(
    field: str, rows: Rows, scored: Callable[[Rows], Probabilities], manifest: Manifest
) -> None:
    """So leaving it out gains nothing over the truth of a typical applicant."""
    left_out = scored(_with(rows, field, None))
    stated = scored(_with(rows, field, manifest.imputation[field]))
    assert (left_out == stated).all()


def test_typical_values_are_ones_that_applicants_have(manifest: Manifest) -> None:
    """But for the credit history, which lies between those that they have."""
    for field in OPTIONAL:
        typical = manifest.imputation[field.name]
        if field.name == "Credit_History":
            assert 0 < float(typical) < 1
        elif field.allowed:
            assert typical in field.allowed
        else:
            assert 0 <= float(typical) <= (field.maximum or 0)


def test_imputation_is_learned_from_the_known_values() -> None:
    """The mean of numbers and of the credit history, the most common category, no co-applicant."""
    rng = random.Random(1)  # noqa: S311 - test data, not a secret
    first, second, third = (
        {
            **random_application(rng),
            "LoanAmount": amount,
            "Credit_History": history,
            "Dependents": d,
        }
        for amount, history, d in ((100.0, 1, "2"), (200.0, 0, "2"), (None, None, "0"))
    )
    found = learn_imputation([first, second, third])
    assert (found["LoanAmount"], found["Credit_History"], found["Dependents"]) == (150, 0.5, "2")
    assert found["CoapplicantIncome"] == 0


def test_input_that_no_row_of_a_fold_has_is_imputed_all_the_same() -> None:
    """It may be known in a few rows that are all held out."""
    nothing = dict.fromkeys((field.name for field in FIELDS), None)
    found = learn_imputation([{**nothing, "ApplicantIncome": 1000.0}])
    assert found.keys() == {field.name for field in OPTIONAL}


@pytest.mark.parametrize("name", MODEL_NAMES)
@pytest.mark.no_cover
def test_unknown_never_beats_good_even_where_it_did_in_training(name: str) -> None:
    """Applicants with an unknown history were all approved, those with a good one mostly."""
    rng = random.Random(5)  # noqa: S311 - test data, not a secret
    rates = {1: 0.8, 0: 0.1, None: 1.0}
    applications = [random_application(rng) for _ in range(600)]
    approved = np.array([rng.random() < rates[row["Credit_History"]] for row in applications])  # type: ignore[index]  # it is one of the three
    imputation = learn_imputation(applications)
    model = unfitted(name).fit(feature_matrix(applications, imputation), approved.astype(int))
    check_unknowns(
        name,
        lambda features: model.predict_proba(features)[:, 1],
        credit_history_states(applications, imputation),
    )


def test_model_that_rewards_hiding_is_refused() -> None:
    """The message names the model, and how many applications would gain."""

    def rewarding(features: Matrix) -> Probabilities:
        return np.array([0.9 if 0 < row[_HISTORY] < 1 else 0.5 for row in features])

    applications = [{"ApplicantIncome": 1000.0}, {"ApplicantIncome": 2000.0}]
    with pytest.raises(HidingPays, match=r"forest does not score .* for 2 of 2 applications"):
        check_unknowns("forest", rewarding, credit_history_states(applications, IMPUTATION))


@pytest.mark.system
def test_nothing_is_published_where_a_good_history_lowers_approval(
    tmp_path: Path, labelled_csv: Path
) -> None:
    """With every label turned round, an unknown history would beat a good one."""
    header, *lines = labelled_csv.read_text().splitlines()
    swapped = {"Y": "N", "N": "Y"}
    turned = [line[:-1] + swapped[line[-1]] for line in lines]
    data = tmp_path / "turned.csv"
    data.write_text("\n".join([header, *turned]) + "\n")
    with pytest.raises(HidingPays, match="nothing was published"):
        train_small(
            read_applications(data),
            tmp_path / "bundles",
            models={"support_vector_machine": MODELS["support_vector_machine"]},
        )
    assert not list((tmp_path / "bundles").iterdir())

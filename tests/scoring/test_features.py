"""Training and serving see the same numbers."""

import json
from decimal import Decimal
from math import isfinite, log
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from services.scoring.features import (
    DIRECTIONS,
    FEATURE_INPUTS,
    FEATURES,
    Imputation,
    feature_matrix,
    feature_row,
)
from services.training.applications import read_applications
from shared.contract.application import EXAMPLE, FIELDS, MONITORED, SCORED, Field
from shared.contract.parsing import parse_application
from tests.applications import write_csv
from tests.training.test_applications import filler_rows


def _values(field: Field) -> st.SearchStrategy[float | int | str | None]:
    if field.allowed:
        values: st.SearchStrategy[float | int | str] = st.sampled_from(field.allowed)
    else:
        low = field.exclusive_minimum if field.minimum is None else field.minimum
        values = st.floats(low, field.maximum, exclude_min=field.minimum is None)
        values = values.map(round) if field.value_type is int else values
    return values if field.required else st.none() | values


APPLICATIONS = st.fixed_dictionaries(
    {field.name: _values(field) for field in FIELDS if field.kind != "text"}
).filter(lambda one: bool(one["ApplicantIncome"] or one["CoapplicantIncome"]))
"""Everything the service accepts, each input missing at times."""

IMPUTATION: Final[Imputation] = {
    "CoapplicantIncome": 0.0,
    "LoanAmount": 150.0,
    "Loan_Amount_Term": 340.0,
    "Dependents": "0",
    "Credit_History": 0.8,
    "Education": "Graduate",
    "Self_Employed": "No",
    "Property_Area": "Semiurban",
}


def _is_short(value: object) -> bool:
    """Whether a file may hold it: numbers there have at most 32 characters, as strings in JSON."""
    return not isinstance(value, float) or len(f"{Decimal(repr(value)):f}") <= 32


FEW_ROWS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def features_of(**changes: object) -> dict[str, float]:
    """The example's features by name, with some inputs changed."""
    return dict(zip(FEATURES, feature_row({**EXAMPLE, **changes}, IMPUTATION), strict=True))


@FEW_ROWS
@given(application=APPLICATIONS)
@pytest.mark.no_cover
def test_training_and_serving_make_the_same_vector(
    tmp_path: Path, application: dict[str, object]
) -> None:
    """One application by way of the CSV and by way of JSON: the same float32 bits."""
    assume(all(map(_is_short, application.values())))
    path = tmp_path / "loans.csv"
    write_csv(
        path,
        [*filler_rows(), {"Loan_ID": "LP1", **application, "Loan_Status": "Y"}],
    )
    trained = feature_matrix(read_applications(path).applications, IMPUTATION)[-1]
    served = np.empty((1, len(FEATURES)), dtype=np.float32)
    served[0] = feature_row(parse_application(json.dumps(application).encode()), IMPUTATION)
    assert trained.dtype == np.float32
    assert trained.tobytes() == served.tobytes()


@FEW_ROWS
@given(application=APPLICATIONS)
def test_every_feature_is_finite(application: dict[str, object]) -> None:
    """Nothing that the service accepts overflows float32, and nothing missing leaves a gap."""
    assert all(map(isfinite, feature_matrix([application], IMPUTATION)[0].tolist()))


@FEW_ROWS
@given(application=APPLICATIONS)
def test_missing_input_counts_as_the_imputed_value(application: dict[str, object]) -> None:
    """Leaving a value out makes the very vector of stating the typical one, ratios included."""
    stated = {
        field: IMPUTATION.get(field) if value is None else value
        for field, value in application.items()
    }
    assert (
        feature_matrix([application], IMPUTATION).tobytes()
        == feature_matrix([stated], IMPUTATION).tobytes()
    )


@FEW_ROWS
@given(application=APPLICATIONS)
def test_monitored_inputs_change_nothing(application: dict[str, object]) -> None:
    """Without Gender and Married the vector is the same, bit by bit."""
    scored = {field: application[field] for field in SCORED}
    assert (
        feature_matrix([scored], IMPUTATION).tobytes()
        == feature_matrix([application], IMPUTATION).tobytes()
    )


def test_monitored_inputs_are_not_among_the_features() -> None:
    """No feature is named after a prohibited basis, and none is scored."""
    for name in MONITORED:
        assert name not in SCORED
        assert not [feature for feature in FEATURES if name in feature]


def test_loan_to_income_is_the_logarithm_of_amount_over_total_income() -> None:
    """The documented example by hand; incomes per month, the amount in thousands."""
    assert features_of()["Log_Loan_to_Income"] == pytest.approx(log(128_000 / (4583 + 1508)))


def test_income_counts_the_same_whoever_earns_it() -> None:
    """Only the total of both applicants is scored."""
    assert features_of(ApplicantIncome=1508, CoapplicantIncome=4583) == features_of()


def test_each_feature_moves_with_its_inputs_as_stated() -> None:
    """A higher input moves only the features it is said to, and in the direction stated."""
    higher = {
        "ApplicantIncome": 6000,
        "CoapplicantIncome": 6000,
        "LoanAmount": 200,
        "Loan_Amount_Term": 480,
        "Dependents": "3+",
    }
    before = features_of()
    for field, value in higher.items():
        moved = {
            name: np.sign(after - before[name])
            for name, after in features_of(**{field: value}).items()
            if after != before[name]
        }
        assert moved == {
            n: inputs[field] for n, inputs in FEATURE_INPUTS.items() if field in inputs
        }


def test_directions_of_features_are_those_of_their_inputs() -> None:
    """More credit for the income may only lower approval, a better history may only raise it."""
    directed = {
        name: direction for name, direction in zip(FEATURES, DIRECTIONS, strict=True) if direction
    }
    assert directed == {"Log_Loan_to_Income": -1, "Credit_History": 1}


def test_features_are_of_every_scored_input() -> None:
    """And of no other one."""
    assert {field for inputs in FEATURE_INPUTS.values() for field in inputs} == set(SCORED)


@pytest.mark.parametrize(("value", "feature"), [(0, 0), (None, 0.8), (1, 1)])
def test_unknown_credit_history_is_between_bad_and_good(value: int | None, feature: float) -> None:
    """One ordinal feature, along which no model falls."""
    assert features_of(Credit_History=value)["Credit_History"] == feature


def test_missing_coapplicant_income_is_none_declared() -> None:
    """It counts as zero, never as the median of other people's."""
    assert features_of(CoapplicantIncome=None) == features_of(CoapplicantIncome=0)


def test_income_of_the_co_applicant_alone_is_a_total_income() -> None:
    """No own income is a number like any other, not a hole in the vector."""
    found = features_of(ApplicantIncome=0.0, CoapplicantIncome=1760.0, LoanAmount=44.0)
    assert found["Log_Loan_to_Income"] == pytest.approx(log(25))


def test_no_applications_make_an_empty_matrix() -> None:
    """The shape holds for zero rows too."""
    assert feature_matrix([], IMPUTATION).shape == (0, len(FEATURES))

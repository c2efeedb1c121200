"""Training and serving see the same numbers."""

import json
from decimal import Decimal
from math import isfinite, isnan, log1p
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from services.scoring.features import FEATURES, feature_matrix, feature_row
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


def _is_short(value: object) -> bool:
    """Whether a file may hold it: numbers there have at most 32 characters, as strings in JSON."""
    return not isinstance(value, float) or len(f"{Decimal(repr(value)):f}") <= 32


FEW_ROWS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def features_of(**changes: object) -> dict[str, float]:
    """The example's features by name, with some inputs changed."""
    return dict(zip(FEATURES, feature_row({**EXAMPLE, **changes}), strict=True))


@FEW_ROWS
@given(application=APPLICATIONS)
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
    trained = feature_matrix(read_applications(path).applications)[-1]
    served = np.empty((1, len(FEATURES)), dtype=np.float32)
    served[0] = feature_row(parse_application(json.dumps(application).encode()))
    assert trained.dtype == np.float32
    assert trained.tobytes() == served.tobytes()


@FEW_ROWS
@given(application=APPLICATIONS)
def test_every_feature_is_finite_or_missing(application: dict[str, object]) -> None:
    """Nothing the service accepts overflows float32; NaN comes of missing inputs alone."""
    row = feature_matrix([application])[0].tolist()
    may_be_missing = {
        "LoanAmount": {"LoanAmount", "Loan_to_Income_Ratio", "Log_LoanAmount"},
        "Loan_Amount_Term": {"Loan_Amount_Term"},
        "Dependents": {"Dependents", "Income_per_Dependent"},
    }
    missing = {
        feature
        for field, features in may_be_missing.items()
        if application[field] is None
        for feature in features
    }
    for name, value in zip(FEATURES, row, strict=True):
        assert isnan(value) if name in missing else isfinite(value), name


@FEW_ROWS
@given(application=APPLICATIONS)
def test_monitored_inputs_change_nothing(application: dict[str, object]) -> None:
    """Without Gender and Married the vector is the same, bit by bit."""
    scored = {field: application[field] for field in SCORED}
    assert feature_matrix([scored]).tobytes() == feature_matrix([application]).tobytes()


def test_monitored_inputs_are_not_among_the_features() -> None:
    """No feature is named after a prohibited basis, and none is scored."""
    for name in MONITORED:
        assert name not in SCORED
        assert not [feature for feature in FEATURES if name in feature]


def test_engineered_features_are_what_they_are_called() -> None:
    """The documented example by hand; incomes per month, the amount in thousands."""
    found = features_of()
    assert found["Total_Income"] == 4583 + 1508
    assert found["Loan_to_Income_Ratio"] == pytest.approx(128_000 / 6091)
    assert found["Income_per_Dependent"] == pytest.approx(6091 / 2)
    assert found["Log_ApplicantIncome"] == pytest.approx(log1p(4583))
    assert found["Log_LoanAmount"] == pytest.approx(log1p(128))


@pytest.mark.parametrize(("value", "state"), [(0, "0"), (1, "1"), (None, "missing")])
def test_credit_history_has_three_states(value: int | None, state: str) -> None:
    """Missing is a state of its own, never taken for good."""
    found = features_of(Credit_History=value)
    assert {name for name in ("0", "1", "missing") if found[f"Credit_History_{name}"]} == {state}


@pytest.mark.parametrize("field", ["LoanAmount", "Loan_Amount_Term", "Dependents"])
def test_missing_quantity_is_flagged(field: str) -> None:
    """The flag tells the model that the median it sees was filled in."""
    assert features_of()[f"{field}_missing"] == 0
    found = features_of(**{field: None})
    assert found[f"{field}_missing"] == 1
    assert isnan(found[field])


def test_missing_coapplicant_income_is_none_declared() -> None:
    """It counts as zero, never as the median of other people's."""
    assert features_of(CoapplicantIncome=None) == features_of(CoapplicantIncome=0)


def test_income_of_the_co_applicant_alone_is_a_total_income() -> None:
    """No own income is a number like any other, not a hole in the vector."""
    found = features_of(ApplicantIncome=0.0, CoapplicantIncome=1760.0, LoanAmount=44.0)
    assert (found["ApplicantIncome"], found["Log_ApplicantIncome"]) == (0, 0)
    assert found["Total_Income"] == 1760
    assert found["Loan_to_Income_Ratio"] == 25


def test_no_applications_make_an_empty_matrix() -> None:
    """The shape holds for zero rows too."""
    assert feature_matrix([]).shape == (0, len(FEATURES))

"""The one definition of the features, for training and for serving.

Training stacks the rows that serving computes one at a time, so both see the same float32 vector.
Gender and Married are not inputs here and must never become one: both are prohibited bases under
the Equal Credit Opportunity Act (Regulation B, 12 CFR 1002.4). Income is the total of both
applicants, whoever earns it (12 CFR 1002.6(b)(5)), and it counts against the amount asked for.

A missing input counts as what the bundle's ``imputation`` says, before anything is computed from
it: leaving a value out scores exactly as stating a typical one. An unknown credit history counts as
the mean of the known ones, between bad (0) and good (1). A missing co-applicant income means that
none was declared: zero, never other people's.
"""

from collections.abc import Iterable, Iterator, Mapping
from math import isnan, log
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.contract.application import FIELDS

Matrix = npt.NDArray[np.float32]

Imputation = Mapping[str, float | str]
"""What a missing value of each optional input counts as: a number, or a category's name."""

FEATURE_INPUTS: Final[Mapping[str, Mapping[str, int]]] = {
    "Log_Loan_to_Income": {"LoanAmount": 1, "ApplicantIncome": -1, "CoapplicantIncome": -1},
    "Loan_Amount_Term": {"Loan_Amount_Term": 1},
    "Dependents": {"Dependents": 1},
    "Credit_History": {"Credit_History": 1},
    "Education_Graduate": {"Education": 1},
    "Self_Employed_Yes": {"Self_Employed": 1},
    "Property_Area_Urban": {"Property_Area": 1},
    "Property_Area_Semiurban": {"Property_Area": 1},
    "Property_Area_Rural": {"Property_Area": 1},
}
"""The inputs that each feature is computed from: 1 if it rises with the input, -1 if it falls."""

FEATURES: Final = tuple(FEATURE_INPUTS)
"""Names of the model's inputs, in the order of the vector."""


def _direction(inputs: Mapping[str, int]) -> int:
    of_input = {field.name: field.sign for field in FIELDS}
    [direction] = {of_input[name] * moves for name, moves in inputs.items()}
    return direction


DIRECTIONS: Final = tuple(map(_direction, FEATURE_INPUTS.values()))
"""By feature: 1 if approval may only rise with it, -1 if it may only fall, 0 if it may do both.

It follows from the directions of the inputs, which agree on every feature."""

_LOG_THOUSAND = log(1000)
_DEPENDENTS = {"0": 0.0, "1": 1.0, "2": 2.0, "3+": 3.0}

Columns = Mapping[str, npt.NDArray[np.float64]]
"""Inputs of many applications by name: numbers, or the ``code`` of a category; NaN is missing."""

_FIELDS: Final = {field.name: field for field in FIELDS}


def code(field: str, value: float | str) -> float:
    """Return ``value`` of an input as it stands in ``Columns``: a word as its place in the list."""
    return float(_FIELDS[field].allowed.index(value) if isinstance(value, str) else value)


def applications_in(columns: Columns) -> Iterator[dict[str, float | str | None]]:
    """Yield each application in ``columns``, as parsed."""

    def value(name: str, number: float) -> float | str | None:
        field = _FIELDS[name]
        if isnan(number):
            return None
        return field.allowed[int(number)] if field.value_type is str else number

    for row in zip(*(column.tolist() for column in columns.values()), strict=True):
        yield {name: value(name, each) for name, each in zip(columns, row, strict=True)}


def computable(columns: Columns) -> npt.NDArray[np.bool_]:
    """Which rows of ``columns`` have what the features are computed from.

    An application that was validated has; a record of another version need not.
    """
    own, other = columns["ApplicantIncome"], columns["CoapplicantIncome"]
    earns: npt.NDArray[np.bool_] = own + np.where(np.isnan(other), 0, other) > 0
    return earns & ~(columns["LoanAmount"] <= 0)


def feature_row(application: Mapping[str, Any], imputation: Imputation) -> tuple[float, ...]:
    """Return the feature values of one application, in the order of ``FEATURES``.

    ``application`` maps the data set's field names to parsed values: a number, a category's name,
    or None (or no entry) where missing. ApplicantIncome is there, and it or CoapplicantIncome is
    above 0.
    """

    def known(field: str) -> Any:
        value = application.get(field)
        return imputation[field] if value is None else value

    total_income = application["ApplicantIncome"] + known("CoapplicantIncome")
    area = known("Property_Area")
    return (
        # The amount is in thousands. A difference, because a quotient could overflow.
        log(known("LoanAmount")) + _LOG_THOUSAND - log(total_income),
        known("Loan_Amount_Term"),
        _DEPENDENTS[known("Dependents")],
        known("Credit_History"),
        1.0 if known("Education") == "Graduate" else 0.0,
        1.0 if known("Self_Employed") == "Yes" else 0.0,
        1.0 if area == "Urban" else 0.0,
        1.0 if area == "Semiurban" else 0.0,
        1.0 if area == "Rural" else 0.0,
    )


def feature_columns(columns: Columns, imputation: Imputation) -> npt.NDArray[np.float64]:
    """Return the features of many applications as an array of shape (rows, len(FEATURES)).

    Each row is, bit for bit, what ``feature_row`` returns for that application.
    """

    def known(field: str) -> npt.NDArray[np.float64]:
        values = columns[field]
        return np.where(np.isnan(values), code(field, imputation[field]), values)

    total_income = columns["ApplicantIncome"] + known("CoapplicantIncome")
    area = known("Property_Area")
    return np.column_stack(
        (
            _logs(known("LoanAmount")) + _LOG_THOUSAND - _logs(total_income),
            known("Loan_Amount_Term"),
            np.array([_DEPENDENTS[str(band)] for band in _FIELDS["Dependents"].allowed])[
                known("Dependents").astype(np.intp)
            ],
            known("Credit_History"),
            known("Education") == code("Education", "Graduate"),
            known("Self_Employed") == code("Self_Employed", "Yes"),
            area == code("Property_Area", "Urban"),
            area == code("Property_Area", "Semiurban"),
            area == code("Property_Area", "Rural"),
        )
    )


def _logs(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # The row's own function: numpy's logarithm differs in the last bit, and by processor.
    return np.fromiter(map(log, values.tolist()), dtype=np.float64, count=len(values))


def feature_matrix(applications: Iterable[Mapping[str, Any]], imputation: Imputation) -> Matrix:
    """Return the applications' features as a float32 array of shape (rows, len(FEATURES))."""
    rows = [feature_row(application, imputation) for application in applications]
    return np.array(rows, dtype=np.float32).reshape(len(rows), len(FEATURES))

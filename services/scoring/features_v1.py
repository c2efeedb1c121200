"""The features of bundles whose manifest has schema version 1: their decisions stay replayable.

A missing number is NaN, to be filled with the training median inside the model; what was missing
is a feature of its own. A missing co-applicant income means that none was declared: zero.
"""

from collections.abc import Mapping
from math import log1p, nan
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.scoring.features import Columns, applications_in

FEATURES: Final = (
    "ApplicantIncome",
    "CoapplicantIncome",
    "LoanAmount",
    "Loan_Amount_Term",
    "Dependents",
    "Total_Income",
    "Loan_to_Income_Ratio",
    "Income_per_Dependent",
    "Log_ApplicantIncome",
    "Log_LoanAmount",
    "Credit_History_0",
    "Credit_History_1",
    "Credit_History_missing",
    "Education_Graduate",
    "Education_Not_Graduate",
    "Self_Employed_Yes",
    "Self_Employed_No",
    "Property_Area_Urban",
    "Property_Area_Semiurban",
    "Property_Area_Rural",
    "LoanAmount_missing",
    "Loan_Amount_Term_missing",
    "Dependents_missing",
)
"""Names of the model's inputs, in the order of the vector."""

_THOUSAND = 1000.0
_LARGEST = 1e30
"""A total income may be as small as any number, but float32 ends at 3.4e38: a ratio beyond it would
be infinity, of which a model can make NaN."""
_DEPENDENTS = {"0": 0.0, "1": 1.0, "2": 2.0, "3+": 3.0}


def feature_row(application: Mapping[str, Any]) -> tuple[float, ...]:
    """The feature values of one application, in the order of ``FEATURES``; NaN is missing.

    ``application`` maps the data set's field names to values as ``parse_application`` reads them: a
    number, a category's name, or None (or no entry) where missing. ApplicantIncome must be there,
    and it or CoapplicantIncome is above 0.
    """
    get = application.get
    applicant_income: float = application["ApplicantIncome"]
    coapplicant_income: float = get("CoapplicantIncome") or 0.0
    total_income = applicant_income + coapplicant_income

    amount = get("LoanAmount")
    loan_amount: float = nan if amount is None else amount
    term = get("Loan_Amount_Term")
    band = get("Dependents")
    dependents = nan if band is None else _DEPENDENTS[band]
    credit_history = get("Credit_History")
    education = get("Education")
    self_employed = get("Self_Employed")
    area = get("Property_Area")
    return (
        applicant_income,
        coapplicant_income,
        loan_amount,
        nan if term is None else term,
        dependents,
        total_income,
        # NaN stays NaN, for no number compares as smaller than it.
        min(loan_amount * _THOUSAND / total_income, _LARGEST),
        total_income / (dependents + 1.0),
        log1p(applicant_income),
        log1p(loan_amount),
        1.0 if credit_history == 0 else 0.0,
        1.0 if credit_history == 1 else 0.0,
        1.0 if credit_history is None else 0.0,
        1.0 if education == "Graduate" else 0.0,
        1.0 if education == "Not Graduate" else 0.0,
        1.0 if self_employed == "Yes" else 0.0,
        1.0 if self_employed == "No" else 0.0,
        1.0 if area == "Urban" else 0.0,
        1.0 if area == "Semiurban" else 0.0,
        1.0 if area == "Rural" else 0.0,
        1.0 if amount is None else 0.0,
        1.0 if term is None else 0.0,
        1.0 if band is None else 0.0,
    )


def feature_columns(columns: Columns) -> npt.NDArray[np.float64]:
    """The features of many applications, of shape (rows, len(FEATURES))."""
    rows = [feature_row(application) for application in applications_in(columns)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(FEATURES))

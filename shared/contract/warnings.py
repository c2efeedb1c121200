"""What is worth a second look in an application: the warnings."""

from collections.abc import Mapping
from typing import Any, Final

LOW_INCOME: Final = 1_000
UNUSUAL_AMOUNT: Final = 10_000
LOAN_TO_ANNUAL_INCOME: Final = 5
USUAL_TERMS: Final = (12, 36, 60, 84, 120, 180, 240, 300, 360, 480)

WEIGHTY_INPUTS: Final = ("Credit_History", "LoanAmount", "Loan_Amount_Term")
"""Inputs that weigh so much that a decision without them needs a second look."""

THOUSAND = 1_000
MONTHS_PER_YEAR = 12

WARNING_RULES: Final = {
    "no_own_income": "ApplicantIncome is 0: the co-applicant has the only income",
    "low_income": f"ApplicantIncome is below {LOW_INCOME} per month",
    "high_loan_to_income": f"LoanAmount is more than {LOAN_TO_ANNUAL_INCOME} times the annual"
    " income of applicant and co-applicant",
    "no_credit_history": "Credit_History is 0: past credit did not meet its guidelines",
    "missing_input": "{field} is missing",
    "unusual_term": "Loan_Amount_Term is none of the usual terms:"
    f" {', '.join(map(str, USUAL_TERMS))} months",
    "unusual_amount": f"LoanAmount is unusually high: above {UNUSUAL_AMOUNT} thousand",
    "outside_training_range": "{field} is outside the range the models were trained on"
    " ({low:g} to {high:g})",
}
"""The sentence of each warning, by its code."""

TrainingRanges = Mapping[str, tuple[float, float]]
"""Smallest and largest value seen in training, by numeric input."""


def warnings_for(application: Mapping[str, Any], training_ranges: TrainingRanges) -> list[str]:
    """The warnings of one application, each a sentence; none stops a decision.

    ``application`` has an entry for every field, None where missing.
    """
    found = []
    income: float = application["ApplicantIncome"]
    amount: float | None = application["LoanAmount"]
    term: float | None = application["Loan_Amount_Term"]
    if income == 0:
        found.append(WARNING_RULES["no_own_income"])
    elif income < LOW_INCOME:
        found.append(WARNING_RULES["low_income"])
    if amount is not None:
        annual_income = MONTHS_PER_YEAR * (income + (application["CoapplicantIncome"] or 0))
        if amount * THOUSAND > LOAN_TO_ANNUAL_INCOME * annual_income:
            found.append(WARNING_RULES["high_loan_to_income"])
        if amount > UNUSUAL_AMOUNT:
            found.append(WARNING_RULES["unusual_amount"])
    if application["Credit_History"] == 0:
        found.append(WARNING_RULES["no_credit_history"])
    found += [missing_input(field) for field in WEIGHTY_INPUTS if application[field] is None]
    if term is not None and term not in USUAL_TERMS:
        found.append(WARNING_RULES["unusual_term"])
    for field, (low, high) in training_ranges.items():
        value = application[field]
        if value is not None and not low <= value <= high:
            found.append(outside_range(field, low, high))
    return found


def missing_input(field: str) -> str:
    """The warning that ``field`` is missing."""
    return WARNING_RULES["missing_input"].format(field=field)


def outside_range(field: str, low: float, high: float) -> str:
    """The warning that ``field`` is outside the range in training."""
    return WARNING_RULES["outside_training_range"].format(field=field, low=low, high=high)

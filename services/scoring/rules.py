"""What an application must be (errors) and what is worth a second look (warnings)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from shared.contract.application import MAX_INCOME, MAX_TERM_MONTHS
from shared.contract.events import (
    MAX_LOAN_ID_LENGTH,
    DependentsBand,
    EducationLevel,
    PropertyArea,
    Sex,
    YesNo,
)

LOW_INCOME: Final = 1_000
UNUSUAL_AMOUNT: Final = 10_000
LOAN_TO_ANNUAL_INCOME: Final = 5
USUAL_TERMS: Final = (12, 36, 60, 84, 120, 180, 240, 300, 360, 480)

_THOUSAND = 1_000
_MONTHS_PER_YEAR = 12


@dataclass(frozen=True)
class FieldRule:
    """What one input field must be."""

    name: str
    kind: Literal["number", "category", "text"]
    description: str
    required: bool = False
    scored: bool = True
    unit: str | None = None
    exclusive_minimum: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str | int, ...] | None = None


FIELD_RULES: Final = (
    FieldRule(
        "ApplicantIncome",
        "number",
        "Income of the applicant.",
        required=True,
        unit="per month",
        exclusive_minimum=0,
        maximum=MAX_INCOME,
    ),
    FieldRule(
        "CoapplicantIncome",
        "number",
        "Income of the co-applicant; missing means that none was declared and counts as 0.",
        unit="per month",
        minimum=0,
        maximum=MAX_INCOME,
    ),
    FieldRule("LoanAmount", "number", "Amount asked for.", unit="thousands", exclusive_minimum=0),
    FieldRule(
        "Loan_Amount_Term",
        "number",
        "Time to repay.",
        unit="months",
        exclusive_minimum=0,
        maximum=MAX_TERM_MONTHS,
    ),
    FieldRule(
        "Credit_History",
        "category",
        "1 if past credit met its guidelines, 0 if not; missing is a third state, never good.",
        allowed=(0, 1),
    ),
    FieldRule("Dependents", "category", "People who depend.", allowed=get_args(DependentsBand)),
    FieldRule("Education", "category", "Education.", allowed=get_args(EducationLevel)),
    FieldRule("Self_Employed", "category", "Self-employed.", allowed=get_args(YesNo)),
    FieldRule(
        "Property_Area", "category", "Where the property is.", allowed=get_args(PropertyArea)
    ),
    FieldRule(
        "Gender",
        "category",
        "Recorded for fairness monitoring, never scored.",
        scored=False,
        allowed=get_args(Sex),
    ),
    FieldRule(
        "Married",
        "category",
        "Recorded for fairness monitoring, never scored.",
        scored=False,
        allowed=get_args(YesNo),
    ),
    FieldRule(
        "Loan_ID",
        "text",
        f"The lender's own number: at most {MAX_LOAN_ID_LENGTH} visible characters, no spaces.",
        scored=False,
        maximum=MAX_LOAN_ID_LENGTH,
    ),
)

WARNING_RULES: Final = {
    "low_income": f"ApplicantIncome is below {LOW_INCOME} per month",
    "high_loan_to_income": f"LoanAmount is more than {LOAN_TO_ANNUAL_INCOME} times the annual"
    " income of applicant and co-applicant",
    "no_credit_history": "Credit_History is 0: past credit did not meet its guidelines",
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
    if income < LOW_INCOME:
        found.append(WARNING_RULES["low_income"])
    if amount is not None:
        annual_income = _MONTHS_PER_YEAR * (income + (application["CoapplicantIncome"] or 0))
        if amount * _THOUSAND > LOAN_TO_ANNUAL_INCOME * annual_income:
            found.append(WARNING_RULES["high_loan_to_income"])
        if amount > UNUSUAL_AMOUNT:
            found.append(WARNING_RULES["unusual_amount"])
    if application["Credit_History"] == 0:
        found.append(WARNING_RULES["no_credit_history"])
    if term is not None and term not in USUAL_TERMS:
        found.append(WARNING_RULES["unusual_term"])
    for field, (low, high) in training_ranges.items():
        value = application[field]
        if value is not None and not low <= value <= high:
            sentence = WARNING_RULES["outside_training_range"]
            found.append(sentence.format(field=field, low=low, high=high))
    return found

"""Figures and times as people read them; every figure is the API's, only shortened."""

from datetime import UTC, datetime
from typing import Final

NOT_GIVEN: Final = "not given"
NONE: Final = "\u2013"
_NARROW_SPACE: Final = "\u202f"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 in per cent."""
    return NONE if share is None else f"{share * 100:.{digits}f}{_NARROW_SPACE}%"


def count(number: int) -> str:
    """A number of things."""
    return f"{number:,}"


def amount(value: float | None, unit: str = "") -> str:
    """A quantity with its unit; decimals only where there are some."""
    if value is None:
        return NOT_GIVEN
    text = f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{text} {unit}".rstrip()


def moment(time: datetime) -> str:
    """A time to the second, in UTC."""
    return time.astimezone(UTC).strftime("%d %b %Y, %H:%M:%S UTC").lstrip("0")


def model_title(name: str) -> str:
    """A model's name in words: ``random_forest`` is Random forest."""
    return name.replace("_", " ").capitalize()


def credit_history(value: int | str | None) -> str:
    """What the three states of Credit_History mean."""
    return {"1": "Met its guidelines", "0": "Did not meet them"}.get(str(value), NOT_GIVEN)


def field_title(name: str) -> str:
    """An input's name in words."""
    return _TITLES.get(name, name)


_TITLES: Final = {
    "Loan_ID": "Loan ID",
    "ApplicantIncome": "Applicant's income",
    "CoapplicantIncome": "Co-applicant's income",
    "LoanAmount": "Loan amount",
    "Loan_Amount_Term": "Time to repay",
    "Credit_History": "Credit history",
    "Dependents": "Dependents",
    "Education": "Education",
    "Self_Employed": "Self-employed",
    "Property_Area": "Property area",
    "Gender": "Gender",
    "Married": "Married",
}

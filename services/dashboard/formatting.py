"""Numbers, times and inputs as people read them; every number is the API's, only shortened."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Final

from loan_predictor_client import Prediction
from loan_predictor_client.models import Application, Bucket, Fault, Summary

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


def day(date: date) -> str:
    """A day with its year."""
    return f"{date:%d %b %Y}".lstrip("0")


def day_and_month(date: date) -> str:
    """A day where the year is clear."""
    return f"{date.day} {date:%b}"


def model_title(name: str) -> str:
    """A model's name in words: ``random_forest`` is Random forest."""
    return name.replace("_", " ").capitalize()


def credit_history(value: int | str | None) -> str:
    """What the three states of Credit_History mean."""
    return {"1": "Met its guidelines", "0": "Did not meet them"}.get(str(value), NOT_GIVEN)


def field_title(name: str) -> str:
    """An input's name in words."""
    return _TITLES.get(name, name)


def application_pairs(application: Application) -> list[tuple[str, str]]:
    """Each input's title and value, with its unit."""
    pairs = []
    for name, value in application.model_dump().items():
        unit = UNITS.get(name)
        if name == "Credit_History":
            shown = credit_history(value)
        elif unit:
            shown = amount(value, unit)
        else:
            shown = NOT_GIVEN if value is None else value
        pairs.append((field_title(name), shown))
    return pairs


def by_value(name: str, groups: Mapping[str, Summary]) -> list[tuple[str, str, Summary]]:
    """Groups of decisions by an input's value: (value, title, summary)."""
    title = (
        credit_history
        if name == "Credit_History"
        else lambda value: value if value != "missing" else NOT_GIVEN
    )
    return [(value, title(value), summary) for value, summary in groups.items()]


def tone(prediction: Prediction) -> str:
    """The colour of an outcome: yes or no."""
    return "yes" if prediction == "Approved" else "no"


def fault_text(fault: Fault) -> str:
    """A fault as a sentence that begins with its field."""
    return f"{fault.field} {fault.message}"


def in_use(buckets: Sequence[Bucket]) -> Sequence[Bucket]:
    """The buckets from the first to the last that has any decision."""
    used = [i for i, bucket in enumerate(buckets) if bucket.predictions]
    return buckets[used[0] : used[-1] + 1] if used else ()


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

UNITS: Final = {
    "ApplicantIncome": "per month",
    "CoapplicantIncome": "per month",
    "LoanAmount": "thousand",
    "Loan_Amount_Term": "months",
}

FILTERS: Final = (
    *(amount, application_pairs, count, credit_history, day, day_and_month, fault_text),
    *(field_title, in_use, model_title, moment, percent, tone),
)
"""What templates call by its name."""

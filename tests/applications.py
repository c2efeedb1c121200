"""Generated loan applications, for tests that have no real data at hand.

The distributions follow the public data set in kind, not in detail: skewed incomes, amounts that
grow with income, and approval that hangs mostly on the credit history.
"""

import csv
import random
from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path

_TERMS = (12, 36, 60, 84, 120, 180, 240, 300, 360, 480)
_TERM_WEIGHTS = (1, 1, 1, 1, 1, 7, 1, 2, 83, 2)
_APPROVAL_RATE = {1: 0.80, 0: 0.08, None: 0.74}
_AREA_BONUS = {"Semiurban": 0.08, "Urban": 0.0, "Rural": -0.06}


def random_application(rng: random.Random) -> dict[str, object]:
    """A valid application under the data set's field names, each field present, None if missing.

    ApplicantIncome is never missing; every other input but Loan_ID sometimes is.
    """
    income = round(min(max(rng.lognormvariate(8.3, 0.65), 150), 81_000))
    co_income = 0 if rng.random() < 0.45 else round(rng.lognormvariate(7.6, 0.6))
    amount = round(min(max(rng.gauss(60 + 0.011 * (income + co_income), 40), 9), 700))
    term = rng.choices(_TERMS, _TERM_WEIGHTS)[0]

    def unless_missing(value: object, missing_rate: float) -> object:
        return None if rng.random() < missing_rate else value

    return {
        "Loan_ID": f"LP{rng.randrange(10**9):09d}",
        "Gender": unless_missing(rng.choices(("Male", "Female"), (80, 20))[0], 0.03),
        "Married": unless_missing(rng.choices(("Yes", "No"), (65, 35))[0], 0.02),
        "Dependents": unless_missing(rng.choices(("0", "1", "2", "3+"), (58, 17, 17, 8))[0], 0.03),
        "Education": unless_missing(rng.choices(("Graduate", "Not Graduate"), (78, 22))[0], 0.02),
        "Self_Employed": unless_missing(rng.choices(("No", "Yes"), (86, 14))[0], 0.05),
        "ApplicantIncome": income,
        "CoapplicantIncome": unless_missing(co_income, 0.02),
        "LoanAmount": unless_missing(amount, 0.04),
        "Loan_Amount_Term": unless_missing(term, 0.03),
        "Credit_History": unless_missing(rng.choices((1, 0), (84, 16))[0], 0.08),
        "Property_Area": unless_missing(rng.choice(("Urban", "Semiurban", "Rural")), 0.02),
    }


def random_label(application: Mapping[str, object], rng: random.Random) -> str:
    """Y or N, drawn so that models have something to learn and cannot be perfect."""
    credit_history = application["Credit_History"]
    assert credit_history is None or isinstance(credit_history, int)
    rate = _APPROVAL_RATE[credit_history] + _AREA_BONUS.get(str(application["Property_Area"]), 0.0)
    amount = application["LoanAmount"]
    if isinstance(amount, int):
        rate -= 0.1 / (1 + exp(-(amount - 250) / 40))
    return "Y" if rng.random() < rate else "N"


def write_csv(path: Path, applications: Sequence[Mapping[str, object]]) -> None:
    """Write applications as the data set's CSV does: missing is an empty cell."""
    columns = dict.fromkeys(name for application in applications for name in application)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(applications)


def write_labelled_csv(path: Path, rows: int, seed: int) -> None:
    """Write ``rows`` labelled random applications in the data set's schema; one seed, one file."""
    rng = random.Random(seed)  # noqa: S311 - test data, not a secret
    applications = [random_application(rng) for _ in range(rows)]
    write_csv(
        path,
        [
            application
            | {"Loan_ID": f"LP{number:06d}", "Loan_Status": random_label(application, rng)}
            for number, application in enumerate(applications, start=1)
        ],
    )

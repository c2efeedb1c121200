"""The directions of the inputs: a better value of one of them never lowers approval."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Final

import numpy as np

from services.scoring.features import Imputation, Matrix, feature_matrix
from services.scoring.manifest import Directions
from services.training.evaluation import OutOfFold, difference
from services.training.models import FREE, SEED, Probabilities, free_name
from services.training.unknowns import TOLERANCE
from shared.contract.application import FIELDS

DIRECTED: Final = {field.name: field.sign for field in FIELDS if field.sign}
"""By input: 1 if a higher value is better, -1 if it is worse."""


class AgainstDirection(Exception):
    """A model lowers approval for a better value, so it must not be published."""


def grid() -> Sequence[Mapping[str, object]]:
    """Return applications that cover incomes, amounts and categories evenly."""
    incomes = np.geomspace(100, 100_000, 7).tolist()
    amounts = np.geomspace(1, 1_000, 7).tolist()
    values = product(
        incomes,
        (None, *incomes[::3]),
        amounts,
        (0, None, 1),
        ("Graduate", "Not Graduate"),
        ("Urban", "Semiurban", "Rural"),
    )
    names = (
        "ApplicantIncome",
        "CoapplicantIncome",
        "LoanAmount",
        "Credit_History",
        "Education",
        "Property_Area",
    )
    return [dict(zip(names, row, strict=True)) for row in values]


def violations(
    approvals: Callable[[Matrix], Probabilities],
    applications: Sequence[Mapping[str, object]],
    imputation: Imputation,
) -> dict[str, int]:
    """Return, by directed input, for how many applications a better value lowers approval.

    Each application is compared with itself with the value of another one, drawn at random.
    """
    order = np.random.default_rng(SEED).permutation(len(applications))
    found = {}
    before = approvals(feature_matrix(applications, imputation))
    for field, sign in DIRECTED.items():
        changed = [
            _with(application, field, applications[other].get(field))
            for application, other in zip(applications, order, strict=True)
        ]
        old, new = (_values(rows, field, imputation) for rows in (applications, changed))
        rise = (approvals(feature_matrix(changed, imputation)) - before) * np.sign(new - old)
        found[field] = int((rise * sign < -TOLERANCE).sum())
    return found


def _with(application: Mapping[str, object], field: str, value: object) -> Mapping[str, object]:
    changed = {**application, field: value}
    # Without any income there is no application.
    has_income = changed["ApplicantIncome"] or changed.get("CoapplicantIncome")
    return changed if has_income else application


def _values(
    applications: Sequence[Mapping[str, object]], field: str, imputation: Imputation
) -> Probabilities:
    found = (application.get(field) for application in applications)
    return np.array([imputation[field] if value is None else value for value in found], float)


def check_directions(
    name: str,
    approvals: Callable[[Matrix], Probabilities],
    applications: Sequence[Mapping[str, object]],
    imputation: Imputation,
    out_of_fold: OutOfFold,
) -> Directions:
    """Count a model's violations, and measure what keeping the directions costs it.

    Raises ``AgainstDirection`` if a model that is held to the directions violates one.
    """
    held = name in FREE
    found = violations(approvals, applications, imputation)
    if held and any(found.values()):
        faults = ", ".join(f"{field} ({count})" for field, count in found.items() if count)
        raise AgainstDirection(
            f"{name} lowers approval for a better value of {faults} in {len(applications)}"
            " applications; nothing was published"
        )
    free = free_name(name)
    return Directions(
        held=held,
        rows=len(applications),
        violations=found,
        log_loss=difference(out_of_fold, "log_loss", name, free) if held else None,
        auc=difference(out_of_fold, "auc", name, free) if held else None,
    )

"""The directions of the inputs: a better value of one of them never lowers approval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.scoring.directions import TOLERANCE
from services.scoring.features import Columns, Imputation, Matrix, code
from services.scoring.manifest import Directions
from services.training.columns import Rows, columns_of, matrix_of
from services.training.evaluation import OutOfFold, difference
from services.training.models import SEED, Probabilities, free_name
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


class _Moved(NamedTuple):
    """Applications with another value of one input each."""

    better: npt.NDArray[np.float64]
    """1 where the other value is better, -1 where it is worse, 0 where it is the same."""
    features: Matrix


@dataclass(frozen=True)
class Moves:
    """Applications, and the same ones with other values of each directed input."""

    features: Matrix
    by_field: Mapping[str, _Moved]


def moves(applications: Sequence[Mapping[str, object]], imputation: Imputation) -> Moves:
    """Give each application the value of another one, drawn at random, in each directed input.

    Features are those of a bundle with this ``imputation``.
    """
    columns = columns_of(applications)
    order = np.random.default_rng(SEED).permutation(len(applications))
    return Moves(
        matrix_of(columns, imputation),
        {field: _moved(columns, field, order, imputation) for field in DIRECTED},
    )


def _moved(columns: Columns, field: str, order: Rows, imputation: Imputation) -> _Moved:
    changed = {**columns, field: columns[field][order]}
    # Without any income there is no application.
    no_income = (changed["ApplicantIncome"] == 0) & ~(changed["CoapplicantIncome"] > 0)
    changed[field] = np.where(no_income, columns[field], changed[field])
    old, new = (
        np.where(np.isnan(each[field]), code(field, imputation[field]), each[field])
        if field in imputation
        else each[field]
        for each in (columns, changed)
    )
    return _Moved(np.sign(new - old) * DIRECTED[field], matrix_of(changed, imputation))


def violations(approvals: Callable[[Matrix], Probabilities], moved: Moves) -> dict[str, int]:
    """Return, by directed input, for how many applications a better value lowers approval."""
    before = approvals(moved.features)
    return {
        field: int(((approvals(each.features) - before) * each.better < -TOLERANCE).sum())
        for field, each in moved.by_field.items()
    }


def check_directions(
    name: str,
    approvals: Callable[[Matrix], Probabilities],
    moved: Moves,
    out_of_fold: OutOfFold,
) -> Directions:
    """Count a model's violations, and measure what keeping the directions costs it.

    Raises ``AgainstDirection`` if a model that is held to the directions violates one.
    """
    free = free_name(name)
    held = free in out_of_fold.scores
    found, rows = violations(approvals, moved), len(moved.features)
    if held and any(found.values()):
        faults = ", ".join(f"{field} ({count})" for field, count in found.items() if count)
        raise AgainstDirection(
            f"{name} lowers approval for a better value of {faults} in {rows}"
            " applications; nothing was published"
        )
    return Directions(
        held=held,
        rows=rows,
        violations=found,
        log_loss=difference(out_of_fold, "log_loss", name, free) if held else None,
        auc=difference(out_of_fold, "auc", name, free) if held else None,
    )

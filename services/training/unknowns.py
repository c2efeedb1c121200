"""Missing inputs: what they count as, and the proof that hiding a credit history does not pay."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from services.scoring.directions import TOLERANCE
from services.scoring.features import Imputation, Matrix
from services.training.columns import columns_of, matrix_of, with_value
from services.training.models import Probabilities
from shared.contract.application import COUNTS_AS_ZERO, FIELDS

_DECIMALS: Final = 6


class HidingPays(Exception):
    """A model scores an unknown credit history above a good one, so it must not be published."""


def learn_imputation(applications: Sequence[Mapping[str, object]]) -> Imputation:
    """Return what a missing value of each optional scored input counts as.

    A number counts as the mean of the known ones, and so does Credit_History, between bad and good;
    any other category counts as the most common one.
    """
    imputation: dict[str, float | str] = dict.fromkeys(COUNTS_AS_ZERO, 0.0)
    for field in FIELDS:
        if field.use != "scored" or field.required or field.name in imputation:
            continue
        # A fold may lack an input that is known in few rows.
        known = [
            value for application in applications if (value := application[field.name]) is not None
        ] or [field.example]
        if field.value_type is str:
            imputation[field.name] = str(Counter(known).most_common(1)[0][0])
        else:
            imputation[field.name] = round(float(np.mean(np.array(known, float))), _DECIMALS)
    return imputation


class States(NamedTuple):
    """The features of the same applications with each state of the credit history."""

    bad: Matrix
    unknown: Matrix
    good: Matrix


def credit_history_states(
    applications: Sequence[Mapping[str, object]], imputation: Imputation
) -> States:
    """Return the features of ``applications`` with each state of the credit history."""
    columns = columns_of(applications)
    return States(
        *(
            matrix_of(with_value(columns, "Credit_History", state), imputation)
            for state in (0, None, 1)
        )
    )


def check_unknowns(name: str, approvals: Callable[[Matrix], Probabilities], states: States) -> None:
    """Raise ``HidingPays`` unless unknown scores between bad and good for every application."""
    bad, unknown, good = map(approvals, states)
    wrong = int(((unknown > good + TOLERANCE) | (bad > unknown + TOLERANCE)).sum())
    if wrong:
        raise HidingPays(
            f"{name} does not score an unknown Credit_History between 0 and 1 for {wrong} of"
            f" {len(unknown)} applications: leaving it out would pay; nothing was published"
        )

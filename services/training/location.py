"""What the location of the property changes, which may stand for groups that the law protects."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from services.scoring.features import Imputation, Matrix, feature_matrix
from services.scoring.manifest import Location
from services.scoring.reasons import refusal_reasons
from services.scoring.scorecard import Linear, Table, probability, score
from services.scoring.shapley import log_odds
from services.training.applications import LabelledApplications, Labels
from services.training.columns import columns_of, matrix_of, with_value
from services.training.evaluation import DECIMALS, OutOfFold, difference
from services.training.fairness import rates_by
from services.training.models import (
    LOCATION,
    PRINCIPAL_SHARE,
    THRESHOLD,
    Probabilities,
    name_without_location,
)
from shared.contract.application import FIELDS, SCORED

[AREAS] = (field.allowed for field in FIELDS if field.name == LOCATION)
"""Its values."""

Applications = Sequence[Mapping[str, object]]


def approved_share_by_area(applications: Applications, approved: Labels) -> dict[str, float]:
    """The share of each area's applications that were approved in the past."""
    found = {}
    for area in AREAS:
        of_area = [application[LOCATION] == area for application in applications]
        if any(of_area):
            found[str(area)] = round(float(approved[of_area].mean()), DECIMALS)
    return found


def location(
    name: str,
    approvals: Callable[[Matrix], Probabilities],
    scorecard: Table | Linear | None,
    data: LabelledApplications,
    imputation: Imputation,
    out_of_fold: OutOfFold,
) -> Location:
    """Measure what the location changes for the model ``name``."""
    refusals = None if scorecard is None else _refusals(scorecard, data.applications, imputation)
    without = name_without_location(name)
    columns = columns_of(data.applications)
    return Location(
        rates=rates_by(LOCATION, data.applications, data.approved, out_of_fold.approvals[name]),
        scores={
            str(area): _mean_score(
                approvals(matrix_of(with_value(columns, LOCATION, area), imputation))
            )
            for area in AREAS
        },
        refusals=None if refusals is None else len(refusals),
        among_reasons=None if refusals is None else sum(refusals),
        log_loss=difference(out_of_fold, "log_loss", without, name),
        auc=difference(out_of_fold, "auc", without, name),
    )


def _mean_score(approvals: Probabilities) -> float:
    return round(float(log_odds(np.asarray(approvals)).mean()), DECIMALS)


def _refusals(
    scorecard: Table | Linear, applications: Applications, imputation: Imputation
) -> list[bool]:
    """For each application that is refused, whether the location is among the reasons."""
    found = []
    rows = feature_matrix(applications, imputation).tolist()
    for application, row in zip(applications, rows, strict=True):
        if probability(score(scorecard, row)) < THRESHOLD:
            missing = frozenset(name for name in SCORED if application[name] is None)
            reasons = refusal_reasons(scorecard, row, missing, PRINCIPAL_SHARE)
            found.append(any(LOCATION in reason["inputs"] for reason in reasons))
    return found

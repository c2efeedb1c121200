"""How a model that never sees Gender or Married treats their groups all the same."""

from collections.abc import Mapping, Sequence

import pandas as pd

from services.scoring.manifest import Fairness
from services.training.applications import Labels
from services.training.evaluation import DECIMALS
from services.training.models import THRESHOLD, Probabilities
from shared.contract.application import MONITORED


def fairness(
    applications: Sequence[Mapping[str, object]], approved: Labels, approvals: Probabilities
) -> dict[str, Fairness]:
    """Selection rates and true positive rates by each monitored attribute."""
    return {
        attribute: rates_by(attribute, applications, approved, approvals) for attribute in MONITORED
    }


def rates_by(
    attribute: str,
    applications: Sequence[Mapping[str, object]],
    approved: Labels,
    approvals: Probabilities,
) -> Fairness:
    """Selection rates and true positive rates of the groups of one attribute.

    ``approvals`` are out-of-fold probabilities of shape (repeats, rows); rates are means over the
    repeats.
    """
    rows = pd.DataFrame([dict(application) for application in applications])
    rows["approved"] = approved == 1
    rows["selected"] = (approvals >= THRESHOLD).mean(axis=0)
    # Rows without the attribute are in no group, so grouping leaves them out.
    selection_rates = _rates(rows, attribute)
    true_positive_rates = _rates(rows[rows["approved"]], attribute)
    sizes = rows.groupby(attribute).size()
    highest = max(selection_rates.values(), default=0.0)
    ratio = min(selection_rates.values()) / highest if highest else None
    gap = max(true_positive_rates.values(), default=0.0) - min(
        true_positive_rates.values(), default=0.0
    )
    comparable = len(selection_rates) > 1
    return Fairness(
        groups={str(group): int(size) for group, size in sizes.items()},
        selection_rates=selection_rates,
        selection_rate_ratio=None if ratio is None or not comparable else round(ratio, DECIMALS),
        true_positive_rates=true_positive_rates,
        true_positive_rate_gap=round(gap, DECIMALS) if len(true_positive_rates) > 1 else None,
    )


def _rates(rows: pd.DataFrame, attribute: str) -> dict[str, float]:
    means = rows.groupby(attribute)["selected"].mean()
    return {str(group): round(float(mean), DECIMALS) for group, mean in means.items()}

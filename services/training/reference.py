"""Inputs and scores in training: their distributions, and what a typical applicant has."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from services.scoring.manifest import SCORE_BINS, CategoricalInput, Input, NumericInput
from services.training.models import Probabilities
from shared.contract.application import FIELDS_BY_USE

BINS: Final = 10


def reference_inputs(applications: Sequence[Mapping[str, object]]) -> dict[str, Input]:
    """Range and distribution of every input of ``applications``, monitored ones included."""
    inputs: dict[str, Input] = {}
    for field in FIELDS_BY_USE:
        if field.use not in ("scored", "monitored"):
            continue
        values = [application[field.name] for application in applications]
        known = [value for value in values if value is not None]
        missing = len(values) - len(known)
        if not field.allowed:
            inputs[field.name] = _numeric(np.array(known, dtype=np.float64), missing)
        else:
            inputs[field.name] = CategoricalInput(
                counts={str(value): known.count(value) for value in field.allowed},
                missing=missing,
            )
    return inputs


def typical_applicant(applications: Sequence[Mapping[str, object]]) -> dict[str, float | str]:
    """By scored input, the median of a number and the commonest value of a category."""
    typical: dict[str, float | str] = {}
    for field in FIELDS_BY_USE:
        if field.use != "scored":
            continue
        known = [
            value for application in applications if (value := application[field.name]) is not None
        ]
        if field.allowed:
            counts = {value: known.count(value) for value in field.allowed}
            typical[field.name] = max(counts, key=counts.__getitem__)
        else:
            values = np.array(known, dtype=np.float64)
            typical[field.name] = float(np.quantile(values, 0.5, method="inverted_cdf"))
    return typical


def score_counts(approvals: Probabilities) -> tuple[int, ...]:
    """Count probabilities of approval by bin."""
    bins = np.minimum((approvals * SCORE_BINS).astype(np.intp), SCORE_BINS - 1)
    return tuple(np.bincount(bins, minlength=SCORE_BINS).tolist())


def _numeric(values: np.ndarray[tuple[int], np.dtype[np.float64]], missing: int) -> NumericInput:
    # Bins of equal counts; where one value is so common that bins would be empty, fewer.
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1), method="inverted_cdf"))
    if len(edges) == 1:
        edges = np.repeat(edges, 2)
    counts, _ = np.histogram(values, bins=edges)
    return NumericInput(
        minimum=float(values.min()),
        maximum=float(values.max()),
        bin_edges=edges.tolist(),
        counts=counts.tolist(),
        missing=missing,
    )

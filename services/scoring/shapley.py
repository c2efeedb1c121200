"""Exact Shapley values of any model, over the inputs that an applicant knows.

Every coalition of inputs is scored once: its members as in the application, all others as in a
reference profile. The two incomes are one member, as only their sum is scored. Source: Lundberg and
Lee, A Unified Approach to Interpreting Model Predictions (2017), with one background row.
"""

from collections.abc import Mapping
from math import factorial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.scoring.manifest import Input, Manifest, NumericInput
from services.scoring.registry import Bundle, ServedModel
from shared.contract.application import FIELDS, SCORED
from shared.contract.reasons import INCOMES

PLAYERS: Final = (INCOMES, *((name,) for name in SCORED if name not in INCOMES))
"""The inputs that join a coalition together."""

EDGE: Final = 1e-6
"""A forest may answer 0 or 1, whose log-odds are infinite: probabilities end this far from both."""

_DECIMALS: Final = 12

_COALITIONS: Final = (np.arange(2 ** len(PLAYERS))[:, None] >> np.arange(len(PLAYERS)) & 1) == 1


def shapley(
    application: Mapping[str, Any],
    reference: Mapping[str, Any],
    *,
    model: ServedModel,
    bundle: Bundle,
) -> tuple[tuple[float, ...], float, float]:
    """What each of ``PLAYERS`` contributes, the reference's score and the application's.

    In log-odds; the contributions add up to the difference of the scores. Safe in any thread.
    """
    rows = (
        {
            name: (application if member else reference)[name]
            for player, member in zip(PLAYERS, coalition, strict=True)
            for name in player
        }
        for coalition in _COALITIONS
    )
    matrix = np.array([bundle.row_of(row) for row in rows], dtype=np.float32)
    probabilities = model.exported_probabilities(matrix)
    scores = log_odds(probabilities)
    # Rounded, so that an input that changes nothing contributes nothing.
    values = tuple((_WEIGHTS @ scores).round(_DECIMALS).tolist())
    return values, float(scores[0]), float(scores[-1])


def log_odds(probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """The scores of probabilities; none is infinite."""
    inside = np.clip(probabilities.astype(np.float64), EDGE, 1 - EDGE)
    scores: npt.NDArray[np.float64] = np.log(inside / (1 - inside))
    return scores


def typical_applicant(manifest: Manifest) -> dict[str, Any]:
    """The median of each number and the commonest value of each category in training."""
    return {
        field.name: field.value_type(
            manifest.typical[field.name]
            if manifest.typical is not None
            else _typical(manifest.inputs[field.name])
        )
        for field in FIELDS
        if field.use == "scored"
    }


def _typical(reference: Input) -> float | str:
    # An earlier bundle knows no more of a number than its bins.
    if isinstance(reference, NumericInput):
        # The bins hold about as many rows each, so one of the edges is next to the median.
        below = np.cumsum([0, *reference.counts])
        return reference.bin_edges[int(np.abs(below - below[-1] / 2).argmin())]
    return max(reference.counts, key=reference.counts.__getitem__)


def _weights() -> npt.NDArray[np.float64]:
    """One row per player: what turns the coalitions' scores into its Shapley value."""
    players = len(PLAYERS)
    others = _COALITIONS.sum(axis=1)[:, None] - _COALITIONS
    share = np.vectorize(
        lambda size: factorial(size) * factorial(players - size - 1) / factorial(players)
    )(np.minimum(others, players - 1))
    weights: npt.NDArray[np.float64] = np.where(_COALITIONS, share, -share).T
    return weights


_WEIGHTS: Final = _weights()

"""The directions of the inputs, checked when a bundle is loaded.

Training checks them on the labelled applications and on a grid; here a few milliseconds have to do.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from services.scoring.features import DIRECTIONS, FEATURE_INPUTS, FEATURES
from services.scoring.manifest import BundleError
from services.scoring.scorecard import Rows

TOLERANCE: Final = 1e-6
"""Served probabilities are float32 and shown to six digits."""

Values = npt.NDArray[np.float64]

_RANGES: Final = {"Log_Loan_to_Income": (-5.0, 10.0), "Credit_History": (0.0, 1.0)}
"""Of the features that have a direction: the values that applications give them."""
_STEPS: Final = 31
_DIRECTED: Final = [
    (position, np.linspace(*_RANGES[feature], _STEPS)[:: DIRECTIONS[position]])
    for position, feature in enumerate(FEATURES)
    if DIRECTIONS[position]
]
"""Where each stands in a row, and its values from the worst to the best."""


def check_directions(name: str, approvals: Callable[[Rows], Values], rows: Values) -> None:
    """Raise ``BundleError`` if a better value of an input lowers approval in one of ``rows``.

    The rows are of ``FEATURES``; ``approvals`` is called once.
    """
    shape = (len(_DIRECTED), len(rows), _STEPS, rows.shape[1])
    moved: Values = np.broadcast_to(rows[:, np.newaxis], shape).copy()
    for place, (position, values) in enumerate(_DIRECTED):
        moved[place, :, :, position] = values
    found = approvals(moved.reshape(-1, rows.shape[1])).reshape(moved.shape[:3])
    falls = np.diff(found, axis=2) < -TOLERANCE
    inputs = [
        each
        for place, (position, _) in enumerate(_DIRECTED)
        if falls[place].any()
        for each in FEATURE_INPUTS[FEATURES[position]]
    ]
    if inputs:
        raise BundleError(
            f"{name} lowers approval for a better value of {', '.join(inputs)}, although its"
            " manifest says that it is held to the directions; train the bundle again"
        )

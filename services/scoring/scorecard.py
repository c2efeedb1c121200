"""The scorecard of a bundle: its additive models as tables of points, in ``scorecard.json``.

Training writes it, serving scores by it, and reasons are read from it. The file is an object with
``schema_version`` 1 and ``models``, by model name. Points, coefficients, bases and scores are
log-odds: a score is the base plus the points of each feature, and the probability of approval is
1 / (1 + exp(-score)).

- ``kind`` "table": each feature has ascending ``cuts`` and one more ``points`` than cuts. A value
  gets the points at the number of cuts that are below it (``bisect_left``). Cuts lie between
  neighbouring float32 numbers, so a value falls into the same cell before and after it is rounded
  to float32.
- ``kind`` "linear": a feature's points are its ``coefficient`` times its value.

The file names features; where each stands in a row, and which inputs it is computed from, is the
bundle's. Features that change nothing are left out. ``references`` are means over training rows,
which reasons compare an applicant with. ``golden_rows`` are features of a few training rows.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import exp
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from services.scoring.manifest import BundleError

SCORECARD_FILE: Final = "scorecard.json"

ReferenceName = Literal["approved_near_threshold", "all_applicants"]
Row = Sequence[float]
"""The features of one application, in the order of the bundle that the scorecard is of."""
Rows = npt.NDArray[np.float32] | npt.NDArray[np.float64]
"""The features of many, of shape (rows, features)."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Reference(_Frozen):
    """Training rows that an applicant is compared with."""

    id: str
    description: str
    rows: int
    mean_score: float
    points: dict[str, float]
    """Mean points by feature; with the base they add up to ``mean_score``."""


class _Feature(_Frozen):
    feature: str
    position: int = Field(exclude=True)
    """Where it stands in a row."""
    inputs: tuple[str, ...] = Field(exclude=True)
    """What it is computed from."""

    @model_validator(mode="before")
    @classmethod
    def _is_of_the_bundle(cls, content: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        features: Mapping[str, Sequence[str]] | None = info.context
        if features is None:
            return content
        name = content["feature"]
        if name not in features:
            raise ValueError(f"no features: {name}")
        return {**content, "position": list(features).index(name), "inputs": features[name]}


class TableFeature(_Feature):
    """One feature of a table of points."""

    cuts: tuple[float, ...]
    points: tuple[float, ...]

    @model_validator(mode="after")
    def _is_a_table(self) -> Self:
        if list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError(f"the cuts of {self.feature} do not ascend")
        if len(self.points) != len(self.cuts) + 1:
            raise ValueError(f"{self.feature} needs one more points than cuts")
        return self


class LinearFeature(_Feature):
    """One feature of a linear model."""

    coefficient: float


class _Scorecard(_Frozen):
    base: float
    references: dict[ReferenceName, Reference]


class Table(_Scorecard):
    """A model whose score is the sum of one table per feature."""

    kind: Literal["table"] = "table"
    features: tuple[TableFeature, ...]


class Linear(_Scorecard):
    """A model whose score is a weighted sum of the features."""

    kind: Literal["linear"] = "linear"
    features: tuple[LinearFeature, ...]


Scorecard = Annotated[Table | Linear, Field(discriminator="kind")]


class Scorecards(_Frozen):
    """The content of ``scorecard.json``."""

    schema_version: Literal[1] = 1
    models: dict[str, Scorecard]
    golden_rows: tuple[tuple[float, ...], ...]
    """Features of training rows on which serving compares each scorecard with its ONNX model."""


def read_scorecards(content: bytes, features: Mapping[str, Sequence[str]]) -> Scorecards:
    """Return the scorecards in a file's ``content``; raises ``BundleError`` with one sentence.

    ``features`` are the bundle's, in the order of its rows, each with its inputs.
    """
    try:
        scorecards = Scorecards.model_validate_json(content, context=features)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "as a whole"
        raise BundleError(f"{SCORECARD_FILE} is not valid: {fault['msg']} ({where})") from error
    if any(len(row) != len(features) for row in scorecards.golden_rows):
        raise BundleError(
            f"{SCORECARD_FILE} is not valid: a golden row has as many values as there are features"
        )
    return scorecards


def points(scorecard: Table | Linear, row: Row) -> dict[str, float]:
    """Return the points of each feature of a row, in log-odds."""
    if isinstance(scorecard, Linear):
        return {each.feature: each.coefficient * row[each.position] for each in scorecard.features}
    return {
        each.feature: each.points[bisect_left(each.cuts, row[each.position])]
        for each in scorecard.features
    }


def score(scorecard: Table | Linear, row: Row) -> float:
    """Return the score of a row, in log-odds."""
    total = 0.0
    # Added in turn, as ``scores`` does: ``sum`` compensates for rounding from Python 3.12 on.
    for value in points(scorecard, row).values():
        total += value
    return scorecard.base + total


def scores(scorecard: Table | Linear, rows: Rows) -> npt.NDArray[np.float64]:
    """Return the score of each row, in log-odds: the very number that ``score`` returns for it.

    A table's rows may be in float32; a linear model's must be as exact as the row.
    """
    total = np.zeros(len(rows))
    for each in scorecard.features:
        column = rows[:, each.position].astype(np.float64, copy=False)
        if isinstance(each, LinearFeature):
            total += each.coefficient * column
        else:
            total += np.array(each.points)[np.searchsorted(each.cuts, column)]
    return scorecard.base + total


def probability(log_odds: float) -> float:
    """Return the probability of approval of a score."""
    if log_odds >= 0:
        return 1 / (1 + exp(-log_odds))
    return exp(log_odds) / (1 + exp(log_odds))

"""Decisions on record beside what another rule would have decided: its order, and the counts.

A rule is a model, a threshold, or a band in which applications are referred to a person.
"""

from collections import Counter
from datetime import date
from typing import Annotated, Final, Literal, NamedTuple, Self, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, model_validator

from shared.contract.application import FIELDS, MONITORED, Wire
from shared.contract.events import ModelName, Prediction
from shared.contract.ranges import check_range
from shared.contract.rollout import Arm

# --- The counts -----------------------------------------------------------------------------------

BANDS: Final = 20
"""Equal bands of the recorded probability of approval; the last one includes 1."""
SCORE: Final = "score"
"""The attribute whose values are the numbers of bands."""
UNSCORED: Final = "unscored"
"""Decisions with inputs that the other model does not take; they are in no other count."""
OTHER: Final = "other"
"""A value of a category that this version does not know."""
MISSING: Final = "missing"

GROUPED: Final = tuple(
    field for field in FIELDS if field.name in MONITORED or field.name == "Property_Area"
)
"""The inputs whose groups are compared: their columns are the other attributes."""

Instead = Literal["Approved", "Rejected", "Referred", ""]
Known = Literal["good", "bad", ""]


class Swap(NamedTuple):
    """What is counted together."""

    attribute: str
    value: str
    decided: Prediction
    instead: Instead
    """Empty for what is ``UNSCORED``."""
    outcome: Known = ""
    """Of the loan; empty if nothing is known, or nothing that is good or bad."""


Tally: TypeAlias = Counter[Swap]
"""How many decisions there are of each kind; the counts of each attribute have the same sum."""

_ROWS: Final[TypeAdapter[list[tuple[Swap, int]]]] = TypeAdapter(list[tuple[Swap, int]])


def tally_json(tally: Tally) -> str:
    """The counts as they are stored."""
    return _ROWS.dump_json(sorted(tally.items())).decode()


def read_tally(content: str) -> Tally:
    """The counts that ``tally_json`` wrote."""
    return Counter(dict(_ROWS.validate_json(content)))


# --- The order ------------------------------------------------------------------------------------

Day = Annotated[date, Field(strict=True)]
Probability = Annotated[float, Field(ge=0, le=1)]
Cost = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]


class Decider(Wire):
    """A model of any bundle that decisions on record name, of whatever version."""

    bundle: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    model: ModelName


class ReferBand(Wire):
    """Between its ends a person decides; from ``high`` on it is approved, below ``low`` refused."""

    low: Probability
    high: Probability

    @model_validator(mode="after")
    def _has_a_width(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        return self


class Costs(Wire):
    """What a decision costs the lender by what became of the loan; a gain is a negative cost."""

    # All are optional, so a misspelt name would otherwise be ignored.
    model_config = ConfigDict(extra="forbid")

    approved_good: Cost = 0.0
    approved_bad: Cost = 0.0
    rejected_good: Cost = 0.0
    rejected_bad: Cost = 0.0
    referred: Cost = Field(default=0.0, description="Of a person's decision, whatever it is.")


class WhatIf(Wire):
    """Another rule, on the decisions of a period."""

    since: Day | None = Field(default=None, description="Decided on this UTC day or later.")
    until: Day | None = Field(default=None, description="Decided before this UTC day.")
    decided_by: Decider | None = Field(
        default=None, description="Only the decisions of this model; all without it."
    )
    arm: Arm | None = Field(
        default=None,
        description="The model that scores them anew; without it the probabilities on record count,"
        " which have six decimals.",
    )
    threshold: Probability | None = Field(
        default=None, description="Approved from this probability on; the model's own by default."
    )
    refer: ReferBand | None = Field(default=None, description="Instead of a threshold.")
    costs: Costs | None = None

    @model_validator(mode="after")
    def _is_another_rule(self) -> Self:
        check_range(self.since, self.until)
        if self.threshold is not None and self.refer is not None:
            raise ValueError("threshold and refer exclude each other")
        if self.arm is None and self.threshold is None and self.refer is None:
            raise ValueError("one of arm, threshold and refer must be given")
        return self

"""The body of /monitoring/drift."""

from pydantic import BaseModel, Field

from services.history.monitoring.schemas import Estimated


class DriftBin(BaseModel):
    """One bin of an input or of the score: a value, or a range."""

    value: str | None = Field(description="Of a category, other or missing; null for a range.")
    at_least: float | None = Field(description="Of a range; null for one without lower bound.")
    below: float | None = Field(description="Of a range; null for one without upper bound.")
    reference: float = Field(description="The share of the reference's rows.")
    share: float = Field(description="The share of the decisions.")


class MissingShare(BaseModel):
    """How often an input is missing."""

    share: Estimated
    reference: float = Field(description="The share of the reference's rows.")


class Shift(BaseModel):
    """How far decisions are from the reference."""

    decisions: int
    psi: float = Field(description="The population stability index; 0 is no difference.")
    limit: float = Field(description="There is an alarm above it; it falls with more decisions.")
    alarm: bool


class CallerShift(Shift):
    """The decisions of one caller against the same reference."""

    client: str


class Drift(Shift):
    """How far one input, or the probability of approval, is from the bundle's reference."""

    name: str = Field(description="The input, or score for the probability of approval.")
    reference_rows: int
    detectable: float = Field(
        description="So many decisions raise an alarm with 80 % probability if the true index is"
        " this."
    )
    missing: MissingShare | None = Field(description="null for the score.")
    bins: list[DriftBin]
    callers: list[CallerShift] = Field(
        description="Those with enough decisions, the one that differs most first."
    )


class Needed(BaseModel):
    """How many decisions show a shift of the approval share with 80 % probability."""

    shift: float = Field(description="Of the share: 0.05 is 5 percentage points.")
    decisions: int
    enough: bool = Field(description="Whether there are so many.")


class ApprovalShare(BaseModel):
    """The share of decisions that approve."""

    share: Estimated
    reference: float | None = Field(
        description="That of the training rows, out of fold; null as for the score."
    )
    difference: Estimated | None
    needed: list[Needed]


class ModelDrift(BaseModel):
    """How far the applications and scores of one model of one bundle are from its training."""

    model: str
    bundle: str
    month: str | None = Field(description="Of the decisions; null over all months.")
    decisions: int
    without_inputs: int = Field(
        description="Decisions that no numeric input counts: the bundle was not registered yet."
    )
    conclusion: str
    approval: ApprovalShare
    not_compared: str | None = Field(description="Why there are no inputs; null if there are.")
    inputs: list[Drift]
    score_not_compared: str | None = Field(description="Why there is no score; null if there is.")
    score: Drift | None


class LiveDrift(BaseModel):
    """Whether applications and scores still look like those a model was trained on."""

    least_decisions: int = Field(description="Decisions that a comparison needs.")
    models: list[ModelDrift]

"""The body of /monitoring/fairness."""

from typing import Literal

from pydantic import BaseModel, Field

from services.history.monitoring.schemas import Estimated

Screened = Literal["inside", "outside", "undecided"]


class AgainstGroup(BaseModel):
    """A group against the largest one."""

    ratio: Estimated | None = Field(
        description="Of the selection rates; null where nobody of the largest group is approved."
    )
    difference: Estimated = Field(description="Of the selection rates.")
    screen: Screened | None = Field(
        description="Whether the interval of the ratio is inside the screen, outside of it, or has"
        " its edge inside; null without a ratio."
    )
    detectable: float = Field(
        description="The difference of the rates that so many decisions show with 80 % probability."
    )
    true_positive_gap: Estimated | None = Field(
        description="Of the true positive rates; null where either is."
    )


class GroupFairness(BaseModel):
    """How one group is decided about."""

    group: str = Field(description="A value of the attribute, other, or not known.")
    decisions: int
    selection_rate: Estimated = Field(description="The share that is approved.")
    selection_rate_out_of_fold: float | None = Field(
        description="That of the training rows; null if the bundle has none."
    )
    good: int = Field(description="Decisions with a good outcome.")
    true_positive_rate: Estimated | None = Field(
        description="The share of those that was approved; null where they do not suffice, or too"
        " few refused decisions have an outcome."
    )
    true_positive_rate_out_of_fold: float | None
    against_largest: AgainstGroup | None = Field(description="null for the largest group itself.")


class AttributeFairness(BaseModel):
    """One attribute that is recorded to compare its groups, and never scored."""

    attribute: str
    not_stated: Estimated = Field(description="The share of decisions without the attribute.")
    largest: str | None = Field(description="The group the others are compared with.")
    groups: list[GroupFairness]
    suppressed: list[str] = Field(description="Groups too small to be shown.")
    conclusion: str


class ModelFairness(BaseModel):
    """How one model of one bundle treats the groups of each attribute."""

    model: str
    bundle: str
    month: str | None = Field(description="Of the decisions; null over all months.")
    decisions: int
    on_whom: str = Field(description="Whose outcomes the true positive rates are of.")
    attributes: list[AttributeFairness]


class LiveFairness(BaseModel):
    """Whether groups are approved at different rates: a screen, not a finding of discrimination."""

    least_decisions: int = Field(description="Smaller groups are suppressed.")
    least_good: int = Field(description="Good outcomes that a true positive rate needs.")
    screen: float = Field(
        description="FAIRNESS_SCREEN: ratios between it and its reciprocal are inside."
    )
    models: list[ModelFairness]

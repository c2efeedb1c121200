"""Bodies of the routes of shadows and what-ifs."""

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from services.history.monitoring.schemas import Estimated
from services.history.schemas import Cursor, PageSize
from services.history.statistics_schemas import UtcDay
from shared.contract.ranges import check_range
from shared.contract.rollout import Arm
from shared.contract.swaps import Decider, WhatIf
from shared.web.parameters import Parameters

State = Literal["queued", "running", "done", "failed", "cancelled"]


class Swapped(BaseModel):
    """How many of some decisions would have come out otherwise."""

    decisions: int
    agreed: Estimated | None = Field(
        description="The share that comes out the same; null without decisions, as all shares."
    )
    newly_approved: int = Field(description="Refused on record, and would be approved.")
    newly_approved_share: Estimated | None
    newly_refused: int = Field(description="Approved on record, and would be refused.")
    newly_refused_share: Estimated | None
    referred: int = Field(description="Would be referred to a person.")
    referred_share: Estimated | None
    approval_share: Estimated | None = Field(description="On record.")
    approval_share_instead: Estimated | None = Field(
        description="The share that would be approved; what is referred is not approved."
    )
    difference: Estimated | None = Field(
        description="Of the two shares, the latter minus the former, on the same decisions."
    )


class SwappedBand(Swapped):
    """Decisions whose recorded probability of approval is in one band."""

    low: float
    high: float


class SwappedGroup(Swapped):
    """Decisions about one group."""

    group: str = Field(description="A value of the attribute, other, or not known.")


class SwappedAttribute(BaseModel):
    """Decisions by the groups of one attribute."""

    attribute: str
    groups: list[SwappedGroup]
    suppressed: list[str] = Field(description="Groups too small to be shown.")


class Swaps(BaseModel):
    """Who would be decided otherwise."""

    all: Swapped
    bands: list[SwappedBand] = Field(
        description="Those with any decision; bands are no groups of people."
    )
    attributes: list[SwappedAttribute]
    least_decisions: int = Field(description="Smaller groups are suppressed.")
    unscored: int = Field(
        description="Decisions with inputs that the other model does not take; counted only here."
    )


class WhatIfCost(BaseModel):
    """What the decisions cost whose outcome is known to be good or bad."""

    decisions: int
    refused: int = Field(description="Of them, refused on record: few such outcomes are known.")
    on_record: float
    instead: float
    difference: Estimated | None = Field(
        description="The mean of instead minus on record for one decision; null for fewer than 2."
    )
    on_whom: str


# --- Shadows --------------------------------------------------------------------------------------


class ShadowQuery(Parameters):
    """Which decisions."""

    since: UtcDay | None = Field(default=None, description="Of this UTC day or later.")
    until: UtcDay | None = Field(default=None, description="Before this UTC day.")

    @model_validator(mode="after")
    def _range_runs_forwards(self) -> Self:
        check_range(self.since, self.until)
        return self


class ShadowComparison(BaseModel):
    """A shadow beside a model that decided."""

    shadow: Arm
    decider: Decider
    shadowing: bool = Field(description="Whether the shadow is one of the roll-out in force.")
    swaps: Swaps


class ShadowReport(BaseModel):
    """What the shadows would have decided; no caller of a prediction is shown any of it."""

    comparisons: list[ShadowComparison]
    waiting: int = Field(description="Decisions that are not scored yet, counted up to 100,000.")
    method: str


# --- What-ifs -------------------------------------------------------------------------------------


class WhatIfOrder(WhatIf):
    """Another rule, on the decisions of a period; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")


class WhatIfProgress(BaseModel):
    """How far the decisions of the period are read, whichever model decided."""

    read: int
    expected: int = Field(description="In the period when it was asked, erased ones included.")
    rate: float | None = Field(description="Decisions a second.")
    estimated_end: AwareDatetime | None = Field(description="While it runs.")


class WhatIfStatus(BaseModel):
    """A what-if, and once it is done what it found."""

    id: UUID
    state: State
    created_at: AwareDatetime
    created_by: str
    finished_at: AwareDatetime | None
    order: WhatIf
    progress: WhatIfProgress
    problem: str | None = Field(description="Why it failed.")
    swaps: Swaps | None = Field(description="null until it is done.")
    cost: Annotated[
        WhatIfCost | None,
        Field(description="null until it is done, without costs or without outcomes."),
    ]
    method: str


class WhatIfQuery(Parameters):
    """One page of what-ifs, the newest first."""

    limit: PageSize = 20
    cursor: Cursor | None = Field(default=None, description="next_cursor of the page before.")


class WhatIfPage(BaseModel):
    """Some what-ifs, the newest first."""

    items: list[WhatIfStatus]
    next_cursor: str | None = Field(description="null on the last page.")

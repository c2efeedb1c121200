"""Bodies of the routes under /admin."""

import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from services.history.monitoring.schemas import Estimated
from shared.contract.errors import NO_CONTROLS
from shared.contract.rollout import Arm, BundleVersion, Candidate, ReplicaKind, Rollout
from shared.web.parameters import Parameters

Change = Literal["set", "promote", "roll back"]
State = Literal["proposed", "pending", "active", "failed", "superseded", "replaced"]
"""``proposed`` waits for a second person, ``pending`` for the replicas; ``superseded`` never became
active, ``replaced`` did until another one was."""

BasedOn = Annotated[
    int,
    Field(ge=0, description="The newest epoch that the caller has seen, 0 if there is none."),
]
Reason = Annotated[str, Field(min_length=3, max_length=500, pattern=NO_CONTROLS)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(_Body):
    """To promote or to roll back."""

    epoch: BasedOn
    reason: Reason


class RolloutChange(Step):
    """What shall be rolled out."""

    default: Arm
    candidate: Candidate | None = None
    shadows: Annotated[list[Arm], Field(max_length=8)] = []


class RolloutEntry(BaseModel):
    """A roll-out, and what became of it."""

    epoch: int
    state: State
    since: AwareDatetime = Field(description="When it reached that state.")
    why: str | None = Field(description="Why it failed or was superseded.")
    change: Change
    reason: str
    proposed_by: str
    proposed_at: AwareDatetime
    approved_by: str | None = Field(description="Who approved it; null if nobody had to.")
    rollout: Rollout


class Replica(BaseModel):
    """A process that decides, as it reported last."""

    replica: str
    kind: ReplicaKind
    epoch: int = Field(description="What it decides by; 0 is its own default.")
    bundle: str | None = Field(
        description="That decides by default; null for a replica of an earlier version."
    )
    ready: int | None
    failed: int | None = Field(description="The epoch that it cannot load.")
    failure: str | None
    seen_s_ago: float
    seen_at: AwareDatetime
    alive: bool = Field(
        description="Whether it has reported within three seconds. One that has not may have ended:"
        " it does not count among those that decide, and no roll-out waits for it."
    )


class RolloutStatus(BaseModel):
    """Which models decide, what is about to change that, and who follows."""

    epoch: int = Field(description="The newest epoch: what a change has to be based on.")
    approvals: int = Field(description="How many people a change needs: 2 has another key approve.")
    active: RolloutEntry | None = Field(
        description="null until the first roll-out: each replica serves its own default."
    )
    pending: RolloutEntry | None = Field(description="Waits for the replicas.")
    proposed: RolloutEntry | None = Field(description="Waits for another key's approval.")
    replicas: list[Replica] = Field(
        description="Those that reported within the last minute; the living ones first."
    )
    recent: list[RolloutEntry] = Field(description="The newest first, at most 20.")


class RegisteredBundle(BaseModel):
    """A bundle that is known here."""

    version: str
    registered_at: AwareDatetime
    published_at: AwareDatetime | None = Field(
        description="null if it was never published here, such as a bundle that ships."
    )
    published_by: str | None
    retired_at: AwareDatetime | None
    retired_by: str | None
    data_sha256: str | None = Field(description="Digest of the data it was trained on.")
    champion: str | None
    models: list[str]
    gate_passed: bool | None = Field(
        description="Whether it passed the gate of its training; null without one. A bundle that"
        " did not may only shadow."
    )
    uses: list[int] = Field(
        description="Epochs of the active, pending and proposed roll-outs that name it."
    )


class BundleList(BaseModel):
    """All bundles, the newest first."""

    bundles: list[RegisteredBundle]


class BundleDetail(RegisteredBundle):
    """A bundle with its manifest and its model card."""

    manifest: dict[str, Any]
    card: str | None = Field(description="Markdown; null if the bundle is not in the store.")


class Verification(BaseModel):
    """What verifying a bundle in the store found."""

    version: str
    intact: bool
    fault: str | None = Field(description="One sentence; null if every checksum is right.")


class Retirement(_Body):
    """To retire a bundle."""

    reason: Reason


class ComparisonQuery(Parameters):
    """Which two bundles."""

    model_config = ConfigDict(populate_by_name=True)

    of: BundleVersion
    with_: Annotated[BundleVersion, Field(alias="with")]


class Measured(BaseModel):
    """A metric in both bundles, from cross-validation; null where a bundle has no such model."""

    model: str
    metric: str
    of: Estimated | None
    with_: Annotated[Estimated | None, Field(serialization_alias="with")]


class BundleComparison(BaseModel):
    """Two bundles side by side."""

    of: RegisteredBundle
    with_: Annotated[RegisteredBundle, Field(serialization_alias="with")]
    same_data: bool = Field(description="Whether the data have the same digest.")
    differs: list[str] = Field(
        description="Other members of the manifest that are not equal; never data."
    )
    measured: list[Measured] = Field(
        description="Means over folds with their 95 % intervals. On other data the folds are other"
        " ones, and intervals that overlap do not show that two models are equal."
    )


class ExperimentQuery(Parameters):
    """Which experiment."""

    experiment: Annotated[str, Field(pattern="^x[0-9]{1,18}$")] | None = Field(
        default=None, description="The present one, or the last one, if none is named."
    )


class ArmReport(BaseModel):
    """What one arm decided in the experiment."""

    arm: Arm
    decisions: int
    approved: int
    with_warnings: int
    approval_share: Estimated | None = Field(description="null without decisions.")
    mean_confidence: float | None
    good: int = Field(description="Approved, and the current outcome is a good one.")
    bad: int
    bad_share: Estimated | None = Field(
        description="Of approved decisions with a good or bad outcome; null without any."
    )


class ShareDifference(BaseModel):
    """Candidate minus default, with an interval that holds whenever one looks."""

    value: float
    low: float
    high: float
    p_value: float
    different: bool = Field(description="Whether the interval excludes 0.")
    sentence: str


class Guard(BaseModel):
    """The limit at which the share goes back to 0 by itself."""

    largest_difference: float = Field(description="Of the approval shares.")
    crossed: str | None = Field(description="One sentence; null as long as it is not.")


class RolloutReport(BaseModel):
    """The two arms of an experiment side by side."""

    experiment: str
    since: datetime.datetime
    share: int = Field(description="The candidate's last share, in hundredths of a percent.")
    running: bool
    default: ArmReport
    candidate: ArmReport
    approval: ShareDifference | None = Field(
        description="Of the approval shares; null while an arm has too few decisions."
    )
    outcomes: ShareDifference | None = Field(
        description="Of the bad shares; null while an arm has too few outcomes."
    )
    least: int = Field(description="Decisions, or outcomes, that each arm needs for a test.")
    guard: Guard
    method: str

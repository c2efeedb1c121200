"""The roll-out: which bundle and model decide, and for which share of the applications another.

The history service keeps roll-outs, an append-only list numbered by ``epoch``. Every replica that
decides reports to it each ``REPORT_S`` and is answered with the roll-out in force and the one to
prepare, which comes into force once all living replicas have loaded it.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import to_json

from shared.contract.application import SCORED, Wire
from shared.contract.events import KEY_PREFIX, ModelName

INTERNAL_ROLLOUT_PATH: Final = "/internal/rollout"
"""Where the history service takes a ``ReplicaReport`` and answers a ``RolloutState``."""
ROLLOUT_KEY: Final = f"{KEY_PREFIX}rollout"
"""Where Redis has a copy of the roll-out in force, as JSON, for when history does not answer."""
REPORT_S: Final = 0.5
"""How often a replica reports."""
FOLLOW_S: Final = 2.0
"""How long a replica may take to serve the roll-out in force before it is not ready."""

VERSION_PATTERN: Final = "^b-[0-9a-f]{8}$"
BundleVersion = Annotated[str, Field(pattern=VERSION_PATTERN)]

SHARES: Final = 10_000
"""A share is a number of these parts: hundredths of a percent."""
Share = Annotated[int, Field(ge=1, le=SHARES)]

ArmName = Literal["default", "candidate"]
ReplicaKind = Literal["inference", "batch-worker"]
Epoch = Annotated[int, Field(ge=0, le=2**53)]


class Arm(Wire):
    """A model that decides, and the bundle it is in."""

    bundle: BundleVersion
    model: ModelName


class Candidate(Arm):
    """The arm that some applications meet instead of the default."""

    share: Share = Field(description="Of the applications, in hundredths of a percent.")


class Rollout(Wire):
    """What decides when a request names no model.

    Raising the share of a candidate keeps ``salt`` and ``experiment``, so that it only adds
    applications to those that meet the candidate.
    """

    epoch: Annotated[int, Field(ge=1)]
    default: Arm
    candidate: Candidate | None = None
    shadows: list[Arm] = Field(default=[], description="Score what is recorded, decide nothing.")
    salt: str = Field(min_length=1, max_length=64)
    experiment: str | None = Field(
        default=None,
        max_length=64,
        description="Names the comparison of the two arms: x and the epoch in which this candidate"
        " first got a share. null without a candidate.",
    )

    @model_validator(mode="after")
    def _names_its_experiment(self) -> Self:
        if (self.candidate is None) != (self.experiment is None):
            raise ValueError("a candidate and an experiment are given together")
        return self


def arm_of(rollout: Rollout, application: Mapping[str, Any]) -> ArmName:
    """The arm that a parsed application meets: always the same of one roll-out, in any process.

    It follows from the Loan_ID; without one, from the scored inputs alone, so that who an
    applicant is never changes what decides.
    """
    if rollout.candidate is None:
        return "default"
    return "candidate" if bucket(rollout.salt, application) < rollout.candidate.share else "default"


def bucket(salt: str, application: Mapping[str, Any]) -> int:
    """Where the application falls: below a share of ``SHARES`` with just that probability."""
    # An input that a later version adds changes nothing for applications without it.
    identity = application["Loan_ID"] or {
        name: application[name] for name in SCORED if application[name] is not None
    }
    digest = blake2b(to_json([salt, identity]), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SHARES


def arm_label(rollout: Rollout, arm: ArmName) -> str | None:
    """What ``model_info.arm`` says, such as x13:candidate; None outside of an experiment."""
    return None if rollout.experiment is None else f"{rollout.experiment}:{arm}"


class Failure(Wire):
    """Why a replica cannot serve a roll-out."""

    epoch: Epoch
    reason: str = Field(max_length=2000, description="One sentence.")


class ReplicaReport(Wire):
    """What a replica serves, and what it has prepared."""

    replica: Annotated[str, Field(pattern="^[!-~]{1,128}$")] = Field(
        description="Of one process, while it runs."
    )
    kind: ReplicaKind
    epoch: Epoch = Field(description="Served; 0 is the replica's own default.")
    bundle: BundleVersion | None = Field(
        default=None,
        description="That decides by default; null from a replica of an earlier version.",
    )
    ready: Epoch | None = Field(default=None, description="Loaded and verified, not served yet.")
    failed: Failure | None = None


class RolloutState(Wire):
    """What the replicas have to do."""

    active: Rollout | None = Field(
        default=None, description="In force; null: each replica serves its own default."
    )
    pending: Rollout | None = Field(
        default=None, description="To be prepared; in force once every replica is ready."
    )

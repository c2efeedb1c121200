"""Bodies of answers; the decision itself is in ``shared.contract.events``."""

from typing import Literal

from pydantic import BaseModel, Field

from shared.contract.application import Application
from shared.contract.errors import Fault
from shared.contract.events import Decision, ModelInfo, Prediction, Probability
from shared.contract.reasons import DEFAULT_REFERENCE, Reason, ReferenceId
from shared.contract.rollout import BundleVersion
from shared.web.parameters import Parameters


class ValidationReport(BaseModel):
    """The faults and warnings that /predict would find in an application."""

    valid: bool
    validation_errors: list[Fault]
    warnings: list[str]
    input_data: Application | None = Field(description="As parsed; null if not valid.")


class ManyQuery(Parameters):
    """What decides on the applications."""

    model: str | None = Field(
        default=None, description="Name of a served model; the champion if it is left out."
    )


class ManyResult(BaseModel):
    """What came of one application: a decision or faults, and null for the other."""

    index: int = Field(ge=0, description="Where the application stood, from 0.")
    decision: Decision | None = None
    faults: list[Fault] | None = None


class ManyDecisions(BaseModel):
    """What came of each application, in their order; every decision is recorded."""

    results: list[ManyResult]
    decided: int = Field(ge=0)
    faulty: int = Field(ge=0)


class BenchmarkResult(BaseModel):
    """One model's decision on the benchmarked application."""

    prediction: Prediction
    confidence: float
    probability: Probability
    prediction_time_ms: float


class Consensus(BaseModel):
    """The outcome that most models predict; the champion decides a tie."""

    prediction: Prediction
    agreement: float = Field(description="Share of the models that agree, 0.5 to 1.")
    models_agree: int
    total_models: int


class Benchmark(BaseModel):
    """Every model's prediction for one application; it is not recorded."""

    success: Literal[True]
    input_data: Application
    results: dict[str, BenchmarkResult]
    consensus: Consensus
    warnings: list[str]


class ExplainQuery(Parameters):
    """What to compare an application with."""

    reference: ReferenceId = Field(
        default=DEFAULT_REFERENCE,
        description="The training rows whose mean an application is compared with. A model without"
        " a scorecard is compared with typical_applicant instead.",
    )
    bundle: BundleVersion | None = Field(
        default=None,
        description="Explain by this bundle, such as the one that a record names. If it is left out"
        " and no model is named, by the arm of the roll-out that would decide the application; with"
        " a model, by the bundle of the roll-out's default.",
    )


class ReferenceMean(BaseModel):
    """What an application is compared with."""

    id: str = Field(
        description="approved_near_threshold and all_applicants are means over training rows;"
        " typical_applicant is one profile, for models without a scorecard."
    )
    mean: float = Field(description="Its score, in log-odds.")


class Contribution(BaseModel):
    """How far some inputs move the score away from the reference's mean."""

    code: str
    inputs: list[str]
    contribution: float = Field(description="In log-odds; below 0 it speaks against approval.")


class Change(BaseModel):
    """One input, changed."""

    from_: float | None = Field(alias="from", description="null: not given.")
    to: float


class NearestChange(BaseModel):
    """Changes with which the application would be approved."""

    changes: dict[str, Change] = Field(description="By input.")
    probability: Probability


class Explanation(BaseModel):
    """Why a model scores an application as it does; it is not recorded."""

    model_info: ModelInfo
    prediction: Prediction
    probability: Probability
    score: float = Field(description="Log-odds of approval.")
    reference: ReferenceMean
    codes_version: int = Field(description="Version of the list of codes.")
    contributions: list[Contribution] = Field(
        description="The most negative first; they add up to the score less the reference's mean."
    )
    reasons: list[Reason] | None = Field(
        description="Of a refusal, the main reason first, at most four; null in an approval."
    )
    nearest_changes: list[NearestChange] | None = Field(
        description="Of a refusal by a table of points: the smallest changes that are approved, of"
        " amount, time to repay and incomes; empty if there are none. Otherwise null."
    )

"""What the services answer: generated from their OpenAPI documents."""

from datetime import date as date_aliased
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, ConfigDict, Field
from pydantic import BaseModel as _BaseModel
from typing_extensions import TypeAliasType


class BaseModel(_BaseModel):
    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        defer_build=True,
    )


class Application(BaseModel):
    """A loan application as the service read it; null is missing."""

    Loan_ID: Annotated[
        str | None,
        Field(description="The lender's own number: at most 64 visible characters, no spaces."),
    ] = None
    Gender: Annotated[
        str | None, Field(description="Recorded for fairness monitoring, never scored.")
    ] = None
    Married: Annotated[
        str | None, Field(description="Recorded for fairness monitoring, never scored.")
    ] = None
    Dependents: Annotated[
        str | None, Field(description="Number of people who depend on the applicant.")
    ] = None
    Education: Annotated[str | None, Field(description="Whether the applicant has a degree.")] = (
        None
    )
    Self_Employed: Annotated[
        str | None, Field(description="Whether the applicant is self-employed.")
    ] = None
    ApplicantIncome: Annotated[
        float,
        Field(
            description="Income of the applicant; 0 only where the co-applicant has one. Unit: per month."
        ),
    ]
    CoapplicantIncome: Annotated[
        float | None,
        Field(
            description="Income of the co-applicant; missing means that none was declared and counts as 0. Unit: per month."
        ),
    ] = None
    LoanAmount: Annotated[
        float | None,
        Field(description="Amount of the loan applied for. Unit: thousands."),
    ] = None
    Loan_Amount_Term: Annotated[
        float | None, Field(description="Time to repay the loan. Unit: months.")
    ] = None
    Credit_History: Annotated[
        int | None,
        Field(
            description="1 if past credit met its guidelines, 0 if not; missing is a third state, never good."
        ),
    ] = None
    Property_Area: Annotated[
        str | None, Field(description="The kind of area in which the property lies.")
    ] = None


class Attribute(BaseModel):
    """One row of a table of points: a value of a category, or a range of a quantity."""

    value: str | None = None
    above: float | None = None
    up_to: float | None = None
    points: float


class Change(BaseModel):
    """One input, changed."""

    from_: Annotated[float | None, Field(alias="from", description="null: not given.")]
    to: float


class Characteristic(BaseModel):
    """What an applicant gets points for."""

    name: str
    inputs: list[str]
    unit: str | None
    attributes: list[Attribute]
    coefficient: Annotated[
        float | None,
        Field(description="Points per unit, where a quantity has no attributes."),
    ] = None


class CheckResult(BaseModel):
    """What one check found."""

    status: Literal["up", "down"]
    required: bool
    detail: Any | None = None


class ConfusionMatrix(BaseModel):
    """Rows of the holdout by what happened and what was predicted; positive is approved."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int


class Consensus(BaseModel):
    """The outcome that most models predict; the champion decides a tie."""

    prediction: Literal["Approved", "Rejected"]
    agreement: Annotated[float, Field(description="Share of the models that agree, 0.5 to 1.")]
    models_agree: int
    total_models: int


class Contribution(BaseModel):
    """How far some inputs move the score away from the reference's mean."""

    code: str
    inputs: list[str]
    contribution: Annotated[
        float, Field(description="In log-odds; below 0 it speaks against approval.")
    ]


class Data(BaseModel):
    """The labelled applications the models were trained on."""

    sha256: str
    rows: int
    recorded: int = 0
    approved_share: float
    approved_share_by_area: dict[str, float] | None = None


class Difference(BaseModel):
    """One member of the decision that came out otherwise."""

    member: Annotated[
        str,
        Field(description="Its path in the decision, such as probability.approved."),
    ]
    recorded: Any
    replayed: Any
    cause: Annotated[
        Literal["rounding", "threshold", "rules", "model"],
        Field(
            description="What explains it: the last digit of a number, another threshold for the same probability, the service's rules for warnings, which a later version may word otherwise, or the model."
        ),
    ]


class Evaluation(BaseModel):
    """How the metrics were measured."""

    folds: int
    repeats: int
    variant_repeats: int | None = None
    holdout_share: float


class Fairness(BaseModel):
    """
    How one model treats the groups of one monitored attribute, out of fold.

    Applications without the attribute are left out.
    """

    groups: dict[str, int]
    selection_rates: dict[str, float]
    selection_rate_ratio: float | None
    true_positive_rates: dict[str, float]
    true_positive_rate_gap: float | None


class Fault(BaseModel):
    """One fault of one input field."""

    field: str
    message: str
    value: Annotated[Any, Field(description="As received.")] = None


class FieldRule(BaseModel):
    """What one input field must be."""

    name: str
    kind: Literal["number", "integer", "category", "text"]
    description: str
    required: bool = False
    scored: bool = True
    unit: str | None = None
    exclusive_minimum: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    allowed: list[str | int] | None = None


class Health(BaseModel):
    """
    How the service is: ``degraded`` works, with something optional down.

    ``draining`` finishes the requests it has, before it ends.
    """

    status: Literal["ok", "degraded", "down", "draining"]
    service: str
    version: str
    checks: dict[str, CheckResult]


class Holdout(BaseModel):
    """Metrics on one stratified 20 % split: a single draw, shown because it is so often quoted."""

    rows: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    auc: float
    confusion_matrix: ConfusionMatrix


class Index(BaseModel):
    """What this service is and where its routes are."""

    service: str
    description: str
    version: str
    bundle: str
    routes: dict[str, str]


class Interval(BaseModel):
    """A mean over cross-validation folds with its Nadeau-Bengio 95 % interval."""

    mean: float
    low: float
    high: float


class Live(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Location(BaseModel):
    """What the location of the property (Property_Area) changes for one model."""

    rates: Fairness
    scores: dict[str, float]
    refusals: int | None
    among_reasons: int | None
    log_loss: Interval
    auc: Interval


class ModelInfo(BaseModel):
    """Which model decided, from which bundle, and how accurate it was in cross-validation."""

    name: str
    version: Annotated[str, Field(description="Version of the bundle the model came from.")]
    accuracy: Annotated[float, Field(description="Mean accuracy in repeated cross-validation.")]
    arm: Annotated[
        str | None,
        Field(
            description="Which arm of a roll-out decided, such as x13:candidate; null without one."
        ),
    ] = None


class ModelNames(BaseModel):
    """The served models."""

    models: list[str]


class ModelReady(BaseModel):
    """The model is loaded."""

    ready: bool = True
    name: str


class ModelSummary(BaseModel):
    """One served model in brief."""

    name: str
    title: str
    champion: bool
    accuracy: Interval
    auc: Interval
    log_loss: Interval


class OutputTensor(BaseModel):
    """What came out for all applications."""

    name: str
    datatype: Literal["FP64", "FP32", "INT64", "INT32", "BYTES"]
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class Parity(BaseModel):
    """What the export gate found: the served ONNX model against its scikit-learn reference."""

    rows: int
    max_absolute_difference: float
    label_flips: int


class Probability(BaseModel):
    """The model's probability of each outcome; the two add up to 1."""

    approved: float
    rejected: float


class ProtocolError(BaseModel):
    """Why a request of the protocol cannot be answered."""

    error: str


class Reason(BaseModel):
    """One main reason of a refusal."""

    code: str
    inputs: Annotated[list[str], Field(description="The inputs that it is about.")]
    text: Annotated[str, Field(description="What the code means, worded for the applicant.")]
    contribution: Annotated[
        float,
        Field(
            description="By how much these inputs lower the log-odds of approval below the reference's; to the thousandth."
        ),
    ]


class ReasonsBasis(BaseModel):
    """What reasons are measured against, and where their codes are defined."""

    reference: Annotated[str, Field(description="Whose average the application is compared with.")]
    codes_version: Annotated[int, Field(description="Version of the list of codes.")]
    later: Annotated[
        bool,
        Field(
            description="Whether they were found after the decision was answered, and recorded then."
        ),
    ] = False


class ReferenceMean(BaseModel):
    """What an application is compared with."""

    id: Annotated[
        str,
        Field(
            description="approved_near_threshold and all_applicants are means over training rows; typical_applicant is one profile, for models without a scorecard."
        ),
    ]
    mean: Annotated[float, Field(description="Its score, in log-odds.")]


class Replay(BaseModel):
    """Whether a recorded decision comes out the same today, and where it does not."""

    equal: Annotated[
        bool,
        Field(
            description="Whether the decision comes out the same. Warnings that only a later version of the service words otherwise are listed and make no other decision."
        ),
    ]
    prediction_id: str
    bundle_version: str
    fault: Annotated[
        str | None,
        Field(
            description="Why nothing could be compared: the bundle is missing, altered, or made for another version of the service. Null if it was decided again."
        ),
    ]
    differences: list[Difference]


class RoutePerformance(BaseModel):
    """How long the answers of one route took, from a request's arrival to its answer's end."""

    method: str
    route: Annotated[
        str,
        Field(description="The template of the path; unknown for paths of no route."),
    ]
    requests: Annotated[int, Field(description="Whatever the status of their answers.")]
    mean_ms: Annotated[float, Field(description="In milliseconds, exact.")]
    median_ms: Annotated[
        float,
        Field(
            description="An estimate in milliseconds: interpolated in a bucket of the histogram whose upper bound is at most 1.67 times its lower one; in the first, between 0 and 0.1. 10000 stands for that and everything longer."
        ),
    ]
    p95_ms: Annotated[
        float,
        Field(
            description="An estimate in milliseconds: interpolated in a bucket of the histogram whose upper bound is at most 1.67 times its lower one; in the first, between 0 and 0.1. 10000 stands for that and everything longer."
        ),
    ]
    p99_ms: Annotated[
        float,
        Field(
            description="An estimate in milliseconds: interpolated in a bucket of the histogram whose upper bound is at most 1.67 times its lower one; in the first, between 0 and 0.1. 10000 stands for that and everything longer."
        ),
    ]


class RuleComparison(BaseModel):
    """Model minus Credit_History rule, paired fold by fold; a lower log-loss is better."""

    accuracy: Interval
    log_loss: Interval


class ScorecardReference(BaseModel):
    """Training rows that an applicant is compared with."""

    id: Annotated[str, Field(description="Its name and a checksum of its rows.")]
    description: str
    rows: int
    mean_score: float


class ServerLive(BaseModel):
    """The process answers."""

    live: bool = True


class ServerMetadata(BaseModel):
    """What this server is."""

    name: str
    version: str
    extensions: list[str]


class ServerReady(BaseModel):
    """The models are loaded."""

    ready: bool = True


class TensorMetadata(BaseModel):
    """What one tensor is; -1 in its shape is any number."""

    name: str
    datatype: Literal["FP64", "FP32", "INT64", "INT32", "BYTES"]
    shape: list[int]


class Timing(BaseModel):
    """Wall-clock times of one model, the only numbers that differ between runs."""

    training_time_s: float
    prediction_time_per_row_ms: float


class ValidationReport(BaseModel):
    """The faults and warnings that /predict would find in an application."""

    valid: bool
    validation_errors: list[Fault]
    warnings: list[str]
    input_data: Annotated[Application | None, Field(description="As parsed; null if not valid.")]


TrainingRangesAdditionalProperty = TypeAliasType(
    "TrainingRangesAdditionalProperty", tuple[float, float]
)


class WarningRule(BaseModel):
    """A condition that an answer warns of."""

    code: str
    message: str


class InputTensor(BaseModel):
    """One input of all applications."""

    name: str
    datatype: Literal["FP64", "FP32", "INT64", "INT32", "BYTES"]
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: Annotated[list[Any] | None, Field(description="Null if it comes as binary data.")] = None


class RequestedOutput(BaseModel):
    """A tensor that is wanted."""

    name: str
    parameters: dict[str, Any] = {}


class Problem(BaseModel):
    """A problem document (RFC 9457); ``code`` is stable, ``detail`` says what to do."""

    type: str
    title: str
    status: int
    detail: str
    instance: Annotated[str, Field(description="Path of the request.")]
    code: Annotated[str, Field(description="Machine-readable name of the error.")]
    request_id: str


class InvalidInputProblem(BaseModel):
    """A problem document that lists every fault of the input at once."""

    type: str
    title: str
    status: int
    detail: str
    instance: Annotated[str, Field(description="Path of the request.")]
    code: Annotated[str, Field(description="Machine-readable name of the error.")]
    request_id: str
    error: str
    validation_errors: list[Fault]


class About(BaseModel):
    """What this service is and where to go on."""

    service: Literal["history"] = "history"
    version: str
    description: str
    links: dict[str, str]


class Arm(BaseModel):
    """A model that decides, and the bundle it is in."""

    bundle: str
    model: str


class AuditEntry(BaseModel):
    """A row of the audit log; `make verify-audit HEAD=id:hash` proves that it still stands."""

    id: int
    hash: Annotated[str, Field(description="SHA-256, as 64 hex digits.")]


class Bucket(BaseModel):
    """
    Decisions whose confidence is at least ``at_least`` and below ``below``.

    The last bucket includes 1.
    """

    at_least: float
    below: float
    predictions: int


class BundleDetail(BaseModel):
    """A bundle with its manifest and its model card."""

    version: str
    registered_at: AwareDatetime
    published_at: Annotated[
        AwareDatetime | None,
        Field(description="null if it was never published here, such as a bundle that ships."),
    ]
    published_by: str | None
    retired_at: AwareDatetime | None
    retired_by: str | None
    data_sha256: Annotated[str | None, Field(description="Digest of the data it was trained on.")]
    champion: str | None
    models: list[str]
    gate_passed: Annotated[
        bool | None,
        Field(
            description="Whether it passed the gate of its training; null without one. A bundle that did not may only shadow."
        ),
    ]
    uses: Annotated[
        list[int],
        Field(description="Epochs of the active, pending and proposed roll-outs that name it."),
    ]
    manifest: dict[str, Any]
    card: Annotated[
        str | None,
        Field(description="Markdown; null if the bundle is not in the store."),
    ]


class CallerShift(BaseModel):
    """The decisions of one caller against the same reference."""

    decisions: int
    psi: Annotated[float, Field(description="The population stability index; 0 is no difference.")]
    limit: Annotated[
        float,
        Field(description="There is an alarm above it; it falls with more decisions."),
    ]
    alarm: bool
    client: str


class Candidate(BaseModel):
    """The arm that some applications meet instead of the default."""

    bundle: str
    model: str
    share: Annotated[int, Field(description="Of the applications, in hundredths of a percent.")]


class Compared(BaseModel):
    """The approved decisions of some months, and how many had turned out badly by then."""

    months: Annotated[list[str], Field(description="The latest first.")]
    approved: int
    outcomes: Annotated[int, Field(description="Of those, decisions with any outcome.")]
    bad: int


class Conclusion(BaseModel):
    """What figures say, in a sentence."""

    alarm: Annotated[
        bool | None,
        Field(description="null where it is neither an alarm nor its absence."),
    ]
    text: str


class ConfidenceAnalysis(BaseModel):
    """
    How sure the models were: on average per outcome, and in how many decisions.

    ``low`` is below 0.6, ``high`` from 0.8 on, ``medium`` between the two.
    """

    average: float | None
    average_approved: float | None
    average_rejected: float | None
    low: int
    medium: int
    high: int


class Costs(BaseModel):
    """What a decision costs the lender by what became of the loan; a gain is a negative cost."""

    approved_good: float = 0.0
    approved_bad: float = 0.0
    rejected_good: float = 0.0
    rejected_bad: float = 0.0
    referred: Annotated[float, Field(description="Of a person's decision, whatever it is.")] = 0.0


class Decider(BaseModel):
    """A model of any bundle that decisions on record name, of whatever version."""

    bundle: str
    model: str


class DriftBin(BaseModel):
    """One bin of an input or of the score: a value, or a range."""

    value: Annotated[
        str | None,
        Field(description="Of a category, other or missing; null for a range."),
    ]
    at_least: Annotated[
        float | None, Field(description="Of a range; null for one without lower bound.")
    ]
    below: Annotated[
        float | None, Field(description="Of a range; null for one without upper bound.")
    ]
    reference: Annotated[float, Field(description="The share of the reference's rows.")]
    share: Annotated[float, Field(description="The share of the decisions.")]


class Erasure(BaseModel):
    """What was erased, and where that is recorded."""

    erased: Annotated[
        int,
        Field(
            description="Decisions erased by this request; those erased before do not count again."
        ),
    ]
    erased_at: AwareDatetime
    audit: AuditEntry
    salt: Annotated[
        str | None,
        Field(
            description="Keep it: the audit log names a loan by the SHA-256 of salt and loan_id only. null where one decision was named by its id, which the log holds as it is."
        ),
    ]


class Estimated(BaseModel):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


class Guard(BaseModel):
    """The limit at which the share goes back to 0 by itself."""

    largest_difference: Annotated[float, Field(description="Of the approval shares.")]
    crossed: Annotated[str | None, Field(description="One sentence; null as long as it is not.")]


class Labelled(BaseModel):
    """How many decisions there are, and how many of them have a good or a bad outcome."""

    decisions: int
    outcomes: int


class Measured(BaseModel):
    """A metric in both bundles, from cross-validation; null where a bundle has no such model."""

    model: str
    metric: str
    of: Estimated | None
    with_: Annotated[Estimated | None, Field(alias="with")]


class MissingShare(BaseModel):
    """How often an input is missing."""

    share: Estimated
    reference: Annotated[float, Field(description="The share of the reference's rows.")]


class Needed(BaseModel):
    """How many decisions show a shift of the approval share with 80 % probability."""

    shift: Annotated[float, Field(description="Of the share: 0.05 is 5 percentage points.")]
    decisions: int
    enough: Annotated[bool, Field(description="Whether there are so many.")]


class OutcomeFault(BaseModel):
    """Why one report was left out."""

    index: Annotated[int | None, Field(description="Its place in the JSON array, from 0.")] = None
    line: Annotated[int | None, Field(description="Its line in the file, from 1.")] = None
    field: str
    message: str


class OutcomeReceipt(BaseModel):
    """What became of the reports; the counts are of decisions."""

    accepted: Annotated[int, Field(description="Outcomes recorded now.")]
    unchanged: Annotated[
        int,
        Field(description="Outcomes that were recorded before, all members the same."),
    ]
    superseded: Annotated[
        int, Field(description="Earlier outcomes whose place the accepted ones took.")
    ]
    faulty: Annotated[int, Field(description="Reports left out.")]
    faults: Annotated[list[OutcomeFault], Field(description="The first 1,000 of them.")]
    audit: Annotated[AuditEntry | None, Field(description="null where no report could be used.")]


class RecordedOutcome(BaseModel):
    """What became of the loan, as it was reported."""

    outcome: Literal["repaid", "late_90", "default", "prepaid", "withdrawn", "fraud"]
    observed_at: AwareDatetime
    matures_at: Annotated[
        AwareDatetime | None, Field(description="From when on it can change no more.")
    ]
    source: Annotated[str | None, Field(description="The system that reported it.")]
    recorded_at: AwareDatetime


class ReferBand(BaseModel):
    """Between its ends a person decides; from ``high`` on it is approved, below ``low`` refused."""

    low: float
    high: float


class RegisteredBundle(BaseModel):
    """A bundle that is known here."""

    version: str
    registered_at: AwareDatetime
    published_at: Annotated[
        AwareDatetime | None,
        Field(description="null if it was never published here, such as a bundle that ships."),
    ]
    published_by: str | None
    retired_at: AwareDatetime | None
    retired_by: str | None
    data_sha256: Annotated[str | None, Field(description="Digest of the data it was trained on.")]
    champion: str | None
    models: list[str]
    gate_passed: Annotated[
        bool | None,
        Field(
            description="Whether it passed the gate of its training; null without one. A bundle that did not may only shadow."
        ),
    ]
    uses: Annotated[
        list[int],
        Field(description="Epochs of the active, pending and proposed roll-outs that name it."),
    ]


class Replica(BaseModel):
    """A process that decides, as it reported last."""

    replica: str
    kind: Literal["inference", "batch-worker"]
    epoch: Annotated[int, Field(description="What it decides by; 0 is its own default.")]
    bundle: Annotated[
        str | None,
        Field(description="That decides by default; null for a replica of an earlier version."),
    ]
    ready: int | None
    failed: Annotated[int | None, Field(description="The epoch that it cannot load.")]
    failure: str | None
    seen_s_ago: float
    seen_at: AwareDatetime
    alive: Annotated[
        bool,
        Field(
            description="Whether it has reported within three seconds. One that has not may have ended: it does not count among those that decide, and no roll-out waits for it."
        ),
    ]


class Rollout(BaseModel):
    """
    What decides when a request names no model.

    Raising the share of a candidate keeps ``salt`` and ``experiment``, so that it only adds
    applications to those that meet the candidate.
    """

    epoch: int
    default: Arm
    candidate: Candidate | None = None
    shadows: Annotated[
        list[Arm],
        Field(description="Score what is recorded, decide nothing.", validate_default=True),
    ] = []
    salt: str
    experiment: Annotated[
        str | None,
        Field(
            description="Names the comparison of the two arms: x and the epoch in which this candidate first got a share. null without a candidate."
        ),
    ] = None


class RolloutEntry(BaseModel):
    """A roll-out, and what became of it."""

    epoch: int
    state: Literal["proposed", "pending", "active", "failed", "superseded", "replaced"]
    since: Annotated[AwareDatetime, Field(description="When it reached that state.")]
    why: Annotated[str | None, Field(description="Why it failed or was superseded.")]
    change: Literal["set", "promote", "roll back"]
    reason: str
    proposed_by: str
    proposed_at: AwareDatetime
    approved_by: Annotated[str | None, Field(description="Who approved it; null if nobody had to.")]
    rollout: Rollout


class RolloutState(BaseModel):
    """What the replicas have to do."""

    active: Annotated[
        Rollout | None,
        Field(description="In force; null: each replica serves its own default."),
    ] = None
    pending: Annotated[
        Rollout | None,
        Field(description="To be prepared; in force once every replica is ready."),
    ] = None


class RolloutStatus(BaseModel):
    """Which models decide, what is about to change that, and who follows."""

    epoch: Annotated[int, Field(description="The newest epoch: what a change has to be based on.")]
    approvals: Annotated[
        int,
        Field(description="How many people a change needs: 2 has another key approve."),
    ]
    active: Annotated[
        RolloutEntry | None,
        Field(description="null until the first roll-out: each replica serves its own default."),
    ]
    pending: Annotated[RolloutEntry | None, Field(description="Waits for the replicas.")]
    proposed: Annotated[RolloutEntry | None, Field(description="Waits for another key's approval.")]
    replicas: Annotated[
        list[Replica],
        Field(description="Those that reported within the last minute; the living ones first."),
    ]
    recent: Annotated[list[RolloutEntry], Field(description="The newest first, at most 20.")]


class ShareDifference(BaseModel):
    """Candidate minus default, with an interval that holds whenever one looks."""

    value: float
    low: float
    high: float
    p_value: float
    different: Annotated[bool, Field(description="Whether the interval excludes 0.")]
    sentence: str


class Summary(BaseModel):
    """How a set of decisions came out; the two averages are null when there is no decision."""

    total_predictions: int
    approved: int
    rejected: int
    approval_rate: float | None
    average_confidence: float | None


class Swapped(BaseModel):
    """How many of some decisions would have come out otherwise."""

    decisions: int
    agreed: Annotated[
        Estimated | None,
        Field(
            description="The share that comes out the same; null without decisions, as all shares."
        ),
    ]
    newly_approved: Annotated[int, Field(description="Refused on record, and would be approved.")]
    newly_approved_share: Estimated | None
    newly_refused: Annotated[int, Field(description="Approved on record, and would be refused.")]
    newly_refused_share: Estimated | None
    referred: Annotated[int, Field(description="Would be referred to a person.")]
    referred_share: Estimated | None
    approval_share: Annotated[Estimated | None, Field(description="On record.")]
    approval_share_instead: Annotated[
        Estimated | None,
        Field(description="The share that would be approved; what is referred is not approved."),
    ]
    difference: Annotated[
        Estimated | None,
        Field(description="Of the two shares, the latter minus the former, on the same decisions."),
    ]


class SwappedBand(BaseModel):
    """Decisions whose recorded probability of approval is in one band."""

    decisions: int
    agreed: Annotated[
        Estimated | None,
        Field(
            description="The share that comes out the same; null without decisions, as all shares."
        ),
    ]
    newly_approved: Annotated[int, Field(description="Refused on record, and would be approved.")]
    newly_approved_share: Estimated | None
    newly_refused: Annotated[int, Field(description="Approved on record, and would be refused.")]
    newly_refused_share: Estimated | None
    referred: Annotated[int, Field(description="Would be referred to a person.")]
    referred_share: Estimated | None
    approval_share: Annotated[Estimated | None, Field(description="On record.")]
    approval_share_instead: Annotated[
        Estimated | None,
        Field(description="The share that would be approved; what is referred is not approved."),
    ]
    difference: Annotated[
        Estimated | None,
        Field(description="Of the two shares, the latter minus the former, on the same decisions."),
    ]
    low: float
    high: float


class SwappedGroup(BaseModel):
    """Decisions about one group."""

    decisions: int
    agreed: Annotated[
        Estimated | None,
        Field(
            description="The share that comes out the same; null without decisions, as all shares."
        ),
    ]
    newly_approved: Annotated[int, Field(description="Refused on record, and would be approved.")]
    newly_approved_share: Estimated | None
    newly_refused: Annotated[int, Field(description="Approved on record, and would be refused.")]
    newly_refused_share: Estimated | None
    referred: Annotated[int, Field(description="Would be referred to a person.")]
    referred_share: Estimated | None
    approval_share: Annotated[Estimated | None, Field(description="On record.")]
    approval_share_instead: Annotated[
        Estimated | None,
        Field(description="The share that would be approved; what is referred is not approved."),
    ]
    difference: Annotated[
        Estimated | None,
        Field(description="Of the two shares, the latter minus the former, on the same decisions."),
    ]
    group: Annotated[str, Field(description="A value of the attribute, other, or not known.")]


class Verification(BaseModel):
    """What verifying a bundle in the store found."""

    version: str
    intact: bool
    fault: Annotated[
        str | None, Field(description="One sentence; null if every checksum is right.")
    ]


class VintagePoint(BaseModel):
    """How many of a month's approved decisions had turned out badly by then."""

    months_on_book: int
    bad: int
    share: Estimated


class VintageTrend(BaseModel):
    """Whether the newest vintages turned out worse than those before, at the same age."""

    months_on_book: int
    recent: Annotated[Compared, Field(description="The newest months that are that old.")]
    earlier: Annotated[Compared, Field(description="All months before those.")]
    difference: Annotated[
        Estimated | None,
        Field(
            description="The recent share of bad outcomes minus the earlier one; null where there is not enough yet."
        ),
    ]
    worse: Annotated[bool | None, Field(description="null where that is not known.")]
    conclusion: Conclusion


class WhatIf(BaseModel):
    """Another rule, on the decisions of a period."""

    since: Annotated[
        date_aliased | None, Field(description="Decided on this UTC day or later.")
    ] = None
    until: Annotated[date_aliased | None, Field(description="Decided before this UTC day.")] = None
    decided_by: Annotated[
        Decider | None,
        Field(description="Only the decisions of this model; all without it."),
    ] = None
    arm: Annotated[
        Arm | None,
        Field(
            description="The model that scores them anew; without it the probabilities on record count, which have six decimals."
        ),
    ] = None
    threshold: Annotated[
        float | None,
        Field(description="Approved from this probability on; the model's own by default."),
    ] = None
    refer: Annotated[ReferBand | None, Field(description="Instead of a threshold.")] = None
    costs: Costs | None = None


class WhatIfCost(BaseModel):
    """What the decisions cost whose outcome is known to be good or bad."""

    decisions: int
    refused: Annotated[
        int,
        Field(description="Of them, refused on record: few such outcomes are known."),
    ]
    on_record: float
    instead: float
    difference: Annotated[
        Estimated | None,
        Field(
            description="The mean of instead minus on record for one decision; null for fewer than 2."
        ),
    ]
    on_whom: str


class WhatIfProgress(BaseModel):
    """How far the decisions of the period are read, whichever model decided."""

    read: int
    expected: Annotated[
        int, Field(description="In the period when it was asked, erased ones included.")
    ]
    rate: Annotated[float | None, Field(description="Decisions a second.")]
    estimated_end: Annotated[AwareDatetime | None, Field(description="While it runs.")]


class Failure(BaseModel):
    """Why a replica cannot serve a roll-out."""

    epoch: int
    reason: Annotated[str, Field(description="One sentence.")]


class Batch(BaseModel):
    """A file of applications on its way to decisions."""

    id: UUID
    state: Annotated[
        Literal["queued", "checking", "running", "done", "failed", "cancelled"],
        Field(
            description="queued, checking (its rows are read), running (they are decided), done, failed or cancelled."
        ),
    ]
    client: Annotated[str, Field(description="Who asked for it.")]
    model: Annotated[
        str,
        Field(
            description="What decides; once the batch is begun, that of the roll-out then in force."
        ),
    ]
    bundle_version: Annotated[str, Field(description="The bundle of that model.")]
    candidate: Annotated[
        Candidate | None,
        Field(
            description="Decides a share of the rows instead, if the batch is put on record and that roll-out has a candidate; model_info of each decision says what decided it."
        ),
    ]
    record: bool
    faulty_rows: Literal["skip", "stop"]
    rows: Annotated[int, Field(description="Rows read so far; all of them once it runs.")]
    faulty: Annotated[int, Field(description="Rows that cannot be decided.")]
    decided: int
    approved: int
    with_warnings: Annotated[int, Field(description="Decisions that have warnings.")]
    rate: Annotated[float | None, Field(description="Decisions a second since it runs.")]
    estimated_end: Annotated[AwareDatetime | None, Field(description="While it runs.")]
    created_at: AwareDatetime
    finished_at: AwareDatetime | None
    expires_at: Annotated[
        AwareDatetime | None,
        Field(description="When it and its results are deleted; known once it has ended."),
    ]
    remarks: Annotated[
        list[str], Field(description="How the file was read, and what was left out.")
    ]
    problem: Annotated[str | None, Field(description="Why it failed.")]


class BatchPage(BaseModel):
    """Some of the caller's batches."""

    items: list[Batch]
    next_cursor: Annotated[
        UUID | None, Field(description="Of the next page; null on the last one.")
    ]


class BenchmarkResult(BaseModel):
    """One model's decision on the benchmarked application."""

    prediction: Literal["Approved", "Rejected"]
    confidence: float
    probability: Probability
    prediction_time_ms: float


class CrossValidation(BaseModel):
    """Metrics over the folds of repeated stratified cross-validation."""

    accuracy: Interval
    balanced_accuracy: Interval
    auc: Interval
    brier: Interval
    log_loss: Interval


class Decision(BaseModel):
    """One answered application."""

    success: Literal[True] = True
    prediction_id: Annotated[
        UUID,
        Field(
            description="UUID of version 7, which sorts by time; of version 8 where it is derived from an Idempotency-Key."
        ),
    ]
    prediction: Literal["Approved", "Rejected"]
    prediction_code: Annotated[Literal[0, 1], Field(description="1 is Approved.")]
    confidence: Annotated[float, Field(description="Probability of the outcome predicted.")]
    probability: Probability
    model_info: ModelInfo
    input_data: Application
    imputed: Annotated[
        list[str],
        Field(description="Inputs that were missing and filled in by the model."),
    ]
    warnings: list[str]
    timestamp: Annotated[AwareDatetime, Field(description="When it was decided, in UTC.")]
    reasons: Annotated[
        list[Reason] | None,
        Field(
            description="Of a refusal by an additive model: what lowers the application's score most, the main reason first, at most four. null in an approval, and from any other model: POST /reasons finds those of its refusals later."
        ),
    ] = None
    reasons_basis: Annotated[
        ReasonsBasis | None,
        Field(description="What the reasons are measured against; null without reasons."),
    ] = None


class Directions(BaseModel):
    """Whether a better value of an input ever lowers approval, and what keeping it so costs."""

    held: bool
    rows: int
    violations: dict[str, int]
    log_loss: Interval | None
    auc: Interval | None


class InferenceAnswer(BaseModel):
    """The scores of applications, in their order."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class ManyResult(BaseModel):
    """What came of one application: a decision or faults, and null for the other."""

    index: Annotated[int, Field(description="Where the application stood, from 0.")]
    decision: Decision | None = None
    faults: list[Fault] | None = None


class ModelList(BaseModel):
    """The served models."""

    version: str
    champion: str
    champion_reason: str
    models: list[ModelSummary]


class ModelMetadata(BaseModel):
    """A model's inputs, which are those of an application, and its outputs."""

    name: str
    versions: list[str]
    platform: Annotated[
        str,
        Field(description="What scores: scorecard (a table of points) or onnxruntime_onnx."),
    ]
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelScorecard(BaseModel):
    """A model as a scorecard; points and scores are log-odds of approval."""

    model: str
    version: str
    base: Annotated[float, Field(description="The score before any points.")]
    passing_score: Annotated[
        float, Field(description="An application is approved from this score on.")
    ]
    characteristics: list[Characteristic]
    references: dict[str, ScorecardReference]


class NearestChange(BaseModel):
    """Changes with which the application would be approved."""

    changes: Annotated[dict[str, Change], Field(description="By input.")]
    probability: Probability


class Performance(BaseModel):
    """All requests since this replica of the service was started."""

    routes: Annotated[list[RoutePerformance], Field(description="The most requested first.")]
    cache_hit_rate: Annotated[
        float | None,
        Field(
            description="Share of the answers that could come from the cache and did, 0 to 1; null before the first, and where there is no cache."
        ),
    ]


class TrainedModel(BaseModel):
    """One model and everything that was measured of it."""

    title: str
    parameters: dict[str, str]
    fitted_on: int | None = None
    cross_validation: CrossValidation
    holdout: Holdout
    fairness: dict[str, Fairness]
    importances: dict[str, float]
    parity: Parity
    directions: Directions
    location: Location | None = None
    log_loss_above_champion: Interval | None
    against_rule: RuleComparison
    verdict: list[str]


class ValidationRules(BaseModel):
    """The rules for an application and the reasons for warnings, as data."""

    fields: list[FieldRule]
    warnings: list[WarningRule]
    training_ranges: Annotated[
        dict[str, TrainingRangesAdditionalProperty],
        Field(
            description="Smallest and largest value of each numeric input that the models were trained on: beyond them an answer warns."
        ),
    ]
    unknown_fields: str
    missing: str


class AgainstGroup(BaseModel):
    """A group against the largest one."""

    ratio: Annotated[
        Estimated | None,
        Field(
            description="Of the selection rates; null where nobody of the largest group is approved."
        ),
    ]
    difference: Annotated[Estimated, Field(description="Of the selection rates.")]
    screen: Annotated[
        Literal["inside", "outside", "undecided"] | None,
        Field(
            description="Whether the interval of the ratio is inside the screen, outside of it, or has its edge inside; null without a ratio."
        ),
    ]
    detectable: Annotated[
        float,
        Field(
            description="The difference of the rates that so many decisions show with 80 % probability."
        ),
    ]
    true_positive_gap: Annotated[
        Estimated | None,
        Field(description="Of the true positive rates; null where either is."),
    ]


class AgainstRule(BaseModel):
    """The model against the rule that refuses where Credit_History is 0, on the same rows."""

    outcomes: Annotated[
        int,
        Field(description="Good or bad outcomes, those of erased decisions left out."),
    ]
    model_accuracy: Estimated
    rule_accuracy: Estimated
    difference: Annotated[Estimated, Field(description="The model's accuracy minus the rule's.")]
    better: Annotated[
        bool | None,
        Field(description="null where the interval of the difference has 0."),
    ]


class ApprovalShare(BaseModel):
    """The share of decisions that approve."""

    share: Estimated
    reference: Annotated[
        float | None,
        Field(description="That of the training rows, out of fold; null as for the score."),
    ]
    difference: Estimated | None
    needed: list[Needed]


class ArmReport(BaseModel):
    """What one arm decided in the experiment."""

    arm: Arm
    decisions: int
    approved: int
    with_warnings: int
    approval_share: Annotated[Estimated | None, Field(description="null without decisions.")]
    mean_confidence: float | None
    good: Annotated[int, Field(description="Approved, and the current outcome is a good one.")]
    bad: int
    bad_share: Annotated[
        Estimated | None,
        Field(description="Of approved decisions with a good or bad outcome; null without any."),
    ]


class BundleComparison(BaseModel):
    """Two bundles side by side."""

    of: RegisteredBundle
    with_: Annotated[RegisteredBundle, Field(alias="with")]
    same_data: Annotated[bool, Field(description="Whether the data have the same digest.")]
    differs: Annotated[
        list[str],
        Field(description="Other members of the manifest that are not equal; never data."),
    ]
    measured: Annotated[
        list[Measured],
        Field(
            description="Means over folds with their 95 % intervals. On other data the folds are other ones, and intervals that overlap do not show that two models are equal."
        ),
    ]


class BundleList(BaseModel):
    """All bundles, the newest first."""

    bundles: list[RegisteredBundle]


class CalibrationBin(BaseModel):
    """Decisions whose probability of approval is at least ``at_least`` and below ``below``."""

    at_least: float
    below: float
    outcomes: int
    predicted: Annotated[float, Field(description="The mean probability.")]
    observed: Annotated[Estimated, Field(description="The share with a good outcome.")]


class CalibrationTest(BaseModel):
    """Whether as many outcomes are good as the probabilities of the same decisions said."""

    outcomes: Annotated[int, Field(description="Good or bad.")]
    expected: Annotated[
        float, Field(description="The share of good ones that the probabilities said.")
    ]
    observed: Annotated[Estimated, Field(description="The share of good ones.")]
    p_value: Annotated[
        float,
        Field(description="How probable so great a difference is if the probabilities are right."),
    ]
    holds: Annotated[bool, Field(description="Whether that is at least 5 %.")]
    conclusion: Conclusion


class CrossValidated(BaseModel):
    """What cross-validation found of a model: means over the folds."""

    accuracy: Estimated
    balanced_accuracy: Estimated
    auc: Estimated
    brier: Estimated
    log_loss: Estimated


class Day(Summary):
    """One UTC day."""

    date: date_aliased


class Drift(BaseModel):
    """How far one input, or the probability of approval, is from the bundle's reference."""

    decisions: int
    psi: Annotated[float, Field(description="The population stability index; 0 is no difference.")]
    limit: Annotated[
        float,
        Field(description="There is an alarm above it; it falls with more decisions."),
    ]
    alarm: bool
    name: Annotated[str, Field(description="The input, or score for the probability of approval.")]
    reference_rows: int
    detectable: Annotated[
        float,
        Field(
            description="So many decisions raise an alarm with 80 % probability if the true index is this."
        ),
    ]
    missing: Annotated[MissingShare | None, Field(description="null for the score.")]
    bins: list[DriftBin]
    callers: Annotated[
        list[CallerShift],
        Field(description="Those with enough decisions, the one that differs most first."),
    ]


class Expected(BaseModel):
    """An estimate of how right all decisions are, with or without outcome; not a measurement."""

    decisions: int
    accuracy: Estimated
    good_among_approved: Annotated[
        Estimated | None,
        Field(
            description="The share of approved decisions that turn out well; null where they are few."
        ),
    ]
    weakness: str
    calibration: Annotated[
        CalibrationTest | None,
        Field(description="Whether the estimate may be relied on; null where outcomes are few."),
    ]


class Figures(BaseModel):
    """What the outcomes say of a model; null is a figure that they do not suffice for."""

    accuracy: Annotated[Estimated, Field(description="Approved and good, or refused and bad.")]
    balanced_accuracy: Annotated[
        Estimated | None,
        Field(description="null unless enough refused decisions have outcomes."),
    ]
    auc: Estimated
    auc_error: Annotated[float, Field(description="How far binning can move the AUC.")]
    brier: Estimated
    log_loss: Estimated
    calibration: list[CalibrationBin]
    rule: AgainstRule | None


class GroupFairness(BaseModel):
    """How one group is decided about."""

    group: Annotated[str, Field(description="A value of the attribute, other, or not known.")]
    decisions: int
    selection_rate: Annotated[Estimated, Field(description="The share that is approved.")]
    selection_rate_out_of_fold: Annotated[
        float | None,
        Field(description="That of the training rows; null if the bundle has none."),
    ]
    good: Annotated[int, Field(description="Decisions with a good outcome.")]
    true_positive_rate: Annotated[
        Estimated | None,
        Field(
            description="The share of those that was approved; null where they do not suffice, or too few refused decisions have an outcome."
        ),
    ]
    true_positive_rate_out_of_fold: float | None
    against_largest: Annotated[
        AgainstGroup | None, Field(description="null for the largest group itself.")
    ]


class ModelDrift(BaseModel):
    """How far the applications and scores of one model of one bundle are from its training."""

    model: str
    bundle: str
    month: Annotated[str | None, Field(description="Of the decisions; null over all months.")]
    decisions: int
    without_inputs: Annotated[
        int,
        Field(
            description="Decisions that no numeric input counts: the bundle was not registered yet."
        ),
    ]
    conclusion: str
    approval: ApprovalShare
    not_compared: Annotated[
        str | None, Field(description="Why there are no inputs; null if there are.")
    ]
    inputs: list[Drift]
    score_not_compared: Annotated[
        str | None, Field(description="Why there is no score; null if there is.")
    ]
    score: Drift | None


class ModelPerformance(BaseModel):
    """The live performance of one model of one bundle."""

    model: str
    bundle: str
    month: Annotated[str | None, Field(description="Of the decisions; null over all months.")]
    outcomes: dict[str, int]
    good: int
    bad: int
    approved: Labelled
    refused: Labelled
    on_whom: str
    not_enough: Annotated[
        str | None,
        Field(description="Why there are no figures yet; null if there are."),
    ]
    figures: Figures | None
    conclusions: Annotated[list[Conclusion], Field(description="Empty where there are no figures.")]
    cross_validated: Annotated[
        CrossValidated | None,
        Field(
            description="On the training data, whose labels are past decisions; null if the bundle has not been registered."
        ),
    ]
    expected: Annotated[
        Expected | None,
        Field(description="Before outcomes are known; null where decisions are few."),
    ]


class Period(Summary):
    """The decisions from one UTC day to before another."""

    since: date_aliased
    until: date_aliased


class Record(Decision):
    """A stored decision: what was answered, who asked, and what became of it."""

    client: Annotated[str, Field(description="Who asked: a client's name, or anonymous.")]
    request_id: str
    recorded_at: Annotated[AwareDatetime, Field(description="When it was stored, in UTC.")]
    outcomes: Annotated[
        list[RecordedOutcome],
        Field(
            description="What became of it: the current outcome first, then those it superseded."
        ),
    ]


class RolloutReport(BaseModel):
    """The two arms of an experiment side by side."""

    experiment: str
    since: AwareDatetime
    share: Annotated[
        int,
        Field(description="The candidate's last share, in hundredths of a percent."),
    ]
    running: bool
    default: ArmReport
    candidate: ArmReport
    approval: Annotated[
        ShareDifference | None,
        Field(description="Of the approval shares; null while an arm has too few decisions."),
    ]
    outcomes: Annotated[
        ShareDifference | None,
        Field(description="Of the bad shares; null while an arm has too few outcomes."),
    ]
    least: Annotated[
        int,
        Field(description="Decisions, or outcomes, that each arm needs for a test."),
    ]
    guard: Guard
    method: str


class Statistics(Summary):
    """The decisions that the parameters leave; all that are recorded if there are none."""

    by_model: dict[str, Summary]
    groups: Annotated[
        dict[str, Summary] | None,
        Field(
            description="By group_by, at most the last 366. A week or month is its first day; the outcome none is that of decisions without one; inputs have missing and other, and no average confidence. null without group_by."
        ),
    ]
    previous: Annotated[Period | None, Field(description="The days before; null without compare.")]


class SwappedAttribute(BaseModel):
    """Decisions by the groups of one attribute."""

    attribute: str
    groups: list[SwappedGroup]
    suppressed: Annotated[list[str], Field(description="Groups too small to be shown.")]


class Swaps(BaseModel):
    """Who would be decided otherwise."""

    all: Swapped
    bands: Annotated[
        list[SwappedBand],
        Field(description="Those with any decision; bands are no groups of people."),
    ]
    attributes: list[SwappedAttribute]
    least_decisions: Annotated[int, Field(description="Smaller groups are suppressed.")]
    unscored: Annotated[
        int,
        Field(
            description="Decisions with inputs that the other model does not take; counted only here."
        ),
    ]


class Vintage(BaseModel):
    """The approved decisions of one month."""

    month: str
    approved: int
    outcomes: Annotated[int, Field(description="Of those, decisions with any outcome.")]
    on_whom: str
    curve: list[VintagePoint]


class Vintages(BaseModel):
    """
    Cumulative shares of bad outcomes by the months between decision and observation.

    A decision without an outcome counts as not bad yet, so young vintages look better than they
    are. A loan counts where its current outcome was observed.
    """

    vintages: list[Vintage]
    trends: list[VintageTrend]


class WhatIfStatus(BaseModel):
    """A what-if, and once it is done what it found."""

    id: UUID
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    created_at: AwareDatetime
    created_by: str
    finished_at: AwareDatetime | None
    order: WhatIf
    progress: WhatIfProgress
    problem: Annotated[str | None, Field(description="Why it failed.")]
    swaps: Annotated[Swaps | None, Field(description="null until it is done.")]
    cost: Annotated[
        WhatIfCost | None,
        Field(description="null until it is done, without costs or without outcomes."),
    ]
    method: str


class Baseline(BaseModel):
    """A rule that needs no model, measured on the same folds and the same split."""

    description: str
    cross_validation: CrossValidation
    holdout: Holdout


class Benchmark(BaseModel):
    """Every model's prediction for one application; it is not recorded."""

    success: Literal[True]
    input_data: Application
    results: dict[str, BenchmarkResult]
    consensus: Consensus
    warnings: list[str]


class ChampionInfo(BaseModel):
    """The deciding model, and the bundle it came in."""

    name: str
    version: str
    champion_reason: str
    threshold: float
    features: list[str]
    data: Data
    libraries: dict[str, str]
    details: TrainedModel


class ComparedModel(BaseModel):
    """One model, in comparison with the others."""

    title: str
    cross_validation: CrossValidation
    holdout: Holdout
    log_loss_above_champion: Interval | None
    verdict: list[str]
    scores: Annotated[
        list[int] | None,
        Field(
            description="Training rows by the probability of approval that a model gave them which was trained without them, in 20 equal bins from 0 to 1. Null in an earlier bundle."
        ),
    ]


class Explanation(BaseModel):
    """Why a model scores an application as it does; it is not recorded."""

    model_info: ModelInfo
    prediction: Literal["Approved", "Rejected"]
    probability: Probability
    score: Annotated[float, Field(description="Log-odds of approval.")]
    reference: ReferenceMean
    codes_version: Annotated[int, Field(description="Version of the list of codes.")]
    contributions: Annotated[
        list[Contribution],
        Field(
            description="The most negative first; they add up to the score less the reference's mean."
        ),
    ]
    reasons: Annotated[
        list[Reason] | None,
        Field(
            description="Of a refusal, the main reason first, at most four; null in an approval."
        ),
    ]
    nearest_changes: Annotated[
        list[NearestChange] | None,
        Field(
            description="Of a refusal by a table of points: the smallest changes that are approved, of amount, time to repay and incomes; empty if there are none. Otherwise null."
        ),
    ]


class ManyDecisions(BaseModel):
    """What came of each application, in their order; every decision is recorded."""

    results: list[ManyResult]
    decided: int
    faulty: int


class ModelComparison(BaseModel):
    """The models compared with each other and with rules that need no model."""

    version: str
    champion: str
    champion_reason: str
    data: Data
    evaluation: Evaluation
    models: dict[str, ComparedModel]
    baselines: dict[str, Baseline]


class ModelDetail(BaseModel):
    """Everything measured of one model."""

    name: str
    version: str
    champion: bool
    details: TrainedModel
    timing: Timing


class Analytics(BaseModel):
    """
    Decisions over time, by confidence and by applicant.

    With parameters the groups by applicant have no average confidence, and decisions of applicants
    that were erased may be missing there.
    """

    overall: Summary
    previous: Annotated[Period | None, Field(description="The days before; null without compare.")]
    last_24_hours: Annotated[
        Summary,
        Field(
            description="In whole UTC hours: the present one and 24 before; parameters do not count."
        ),
    ]
    daily_trend: Annotated[
        list[Day],
        Field(description="Of the last 30 UTC days of the range those that have decisions."),
    ]
    trend: Annotated[
        list[Period] | None,
        Field(
            description="By group_by, at most the last 366 that have decisions; null without it."
        ),
    ]
    confidence_analysis: ConfidenceAnalysis
    confidence_histogram: list[Bucket]
    by_property_area: Annotated[dict[str, Summary], Field(description="missing: not given.")]
    by_credit_history: Annotated[
        dict[str, Summary], Field(description="1, 0, or missing: not given.")
    ]


class AttributeFairness(BaseModel):
    """One attribute that is recorded to compare its groups, and never scored."""

    attribute: str
    not_stated: Annotated[
        Estimated, Field(description="The share of decisions without the attribute.")
    ]
    largest: Annotated[str | None, Field(description="The group the others are compared with.")]
    groups: list[GroupFairness]
    suppressed: Annotated[list[str], Field(description="Groups too small to be shown.")]
    conclusion: str


class LiveDrift(BaseModel):
    """Whether applications and scores still look like those a model was trained on."""

    least_decisions: Annotated[int, Field(description="Decisions that a comparison needs.")]
    models: list[ModelDrift]


class LivePerformance(BaseModel):
    """Whether the models were right, by the outcomes that are known."""

    least_outcomes: Annotated[int, Field(description="Good and bad outcomes that figures need.")]
    least_of_each: Annotated[int, Field(description="Outcomes of either kind that figures need.")]
    models: list[ModelPerformance]


class ModelFairness(BaseModel):
    """How one model of one bundle treats the groups of each attribute."""

    model: str
    bundle: str
    month: Annotated[str | None, Field(description="Of the decisions; null over all months.")]
    decisions: int
    on_whom: Annotated[str, Field(description="Whose outcomes the true positive rates are of.")]
    attributes: list[AttributeFairness]


class Page(BaseModel):
    """Some records, the newest first, and where the next ones begin."""

    items: list[Record]
    next_cursor: Annotated[str | None, Field(description="null on the last page.")]


class ShadowComparison(BaseModel):
    """A shadow beside a model that decided."""

    shadow: Arm
    decider: Decider
    shadowing: Annotated[
        bool, Field(description="Whether the shadow is one of the roll-out in force.")
    ]
    swaps: Swaps


class ShadowReport(BaseModel):
    """What the shadows would have decided; no caller of a prediction is shown any of it."""

    comparisons: list[ShadowComparison]
    waiting: Annotated[
        int,
        Field(description="Decisions that are not scored yet, counted up to 100,000."),
    ]
    method: str


class WhatIfPage(BaseModel):
    """Some what-ifs, the newest first."""

    items: list[WhatIfStatus]
    next_cursor: Annotated[str | None, Field(description="null on the last page.")]


class LiveFairness(BaseModel):
    """Whether groups are approved at different rates: a screen, not a finding of discrimination."""

    least_decisions: Annotated[int, Field(description="Smaller groups are suppressed.")]
    least_good: Annotated[int, Field(description="Good outcomes that a true positive rate needs.")]
    screen: Annotated[
        float,
        Field(description="FAIRNESS_SCREEN: ratios between it and its reciprocal are inside."),
    ]
    models: list[ModelFairness]

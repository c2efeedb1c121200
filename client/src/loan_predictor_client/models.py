"""What the services answer, as a client needs it; a decision is in ``shared.contract.events``.

These are not the services' own schemas, which may change with the service: each type here has the
members that a client may rely on and ignores whatever else a newer service says.
``tests/contract/test_client_types.py`` holds them to both services.
"""

from datetime import date
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shared.contract.errors import Fault as Fault  # noqa: PLC0414 - re-exported until generated
from shared.contract.events import Application as Application  # noqa: PLC0414 - re-exported until generated
from shared.contract.events import Decision as Decision  # noqa: PLC0414 - re-exported until generated
from shared.contract.events import ModelInfo as ModelInfo  # noqa: PLC0414 - re-exported until generated
from shared.contract.events import Prediction as Prediction  # noqa: PLC0414 - re-exported until generated
from shared.contract.events import Probability as Probability  # noqa: PLC0414 - re-exported until generated


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Record(Decision):
    """A stored decision: what was answered, and who asked."""

    client: str
    request_id: str
    recorded_at: AwareDatetime


class Page(_Answer):
    """Some records, the newest first; ``next_cursor`` is None on the last page."""

    items: list[Record]
    next_cursor: str | None


class Summary(_Answer):
    """How a set of decisions came out; the two averages are None when there is no decision."""

    total_predictions: int
    approved: int
    rejected: int
    approval_rate: float | None
    average_confidence: float | None


class Statistics(Summary):
    """All decisions ever recorded, and those of each model."""

    by_model: dict[str, Summary]


class Day(Summary):
    """One UTC day."""

    date: date


class ConfidenceAnalysis(_Answer):
    """How sure the models were; ``low`` is below 0.6, ``high`` from 0.8 on."""

    average: float | None
    average_approved: float | None
    average_rejected: float | None
    low: int
    medium: int
    high: int


class Bucket(_Answer):
    """Decisions whose confidence is at least ``at_least`` and below ``below``."""

    at_least: float
    below: float
    predictions: int


class Analytics(_Answer):
    """Decisions over time, by confidence and by applicant."""

    overall: Summary
    last_24_hours: Summary
    daily_trend: list[Day]
    confidence_analysis: ConfidenceAnalysis
    confidence_histogram: list[Bucket]
    by_property_area: dict[str, Summary]
    by_credit_history: dict[str, Summary]


class BenchmarkResult(_Answer):
    """One model's decision on the benchmarked application."""

    prediction: Prediction
    confidence: float
    probability: Probability
    prediction_time_ms: float


class Consensus(_Answer):
    """What the models together say; ``agreement`` is the share that agrees."""

    prediction: Prediction
    agreement: float
    models_agree: int
    total_models: int


class Benchmark(_Answer):
    """All models on one application, by the models' names; not recorded."""

    input_data: Application
    results: dict[str, BenchmarkResult]
    consensus: Consensus
    warnings: list[str]


class ValidationReport(_Answer):
    """What a decision would make of an application; ``input_data`` is None if it is not valid."""

    valid: bool
    validation_errors: list[Fault]
    warnings: list[str]
    input_data: Application | None


class Interval(_Answer):
    """A mean over cross-validation folds with its 95 % interval."""

    mean: float
    low: float
    high: float


class ModelSummary(_Answer):
    """One served model in a line."""

    name: str
    title: str
    champion: bool
    accuracy: Interval
    auc: Interval
    log_loss: Interval


class ModelList(_Answer):
    """The served models."""

    version: str
    champion: str
    champion_reason: str
    models: list[ModelSummary]


class Data(_Answer):
    """The labelled applications that the models were trained on."""

    sha256: str
    rows: int
    approved_share: float


class Evaluation(_Answer):
    """How the figures were measured."""

    folds: int
    repeats: int
    holdout_share: float


class CrossValidation(_Answer):
    """Figures over the folds of repeated cross-validation."""

    accuracy: Interval
    balanced_accuracy: Interval
    auc: Interval
    brier: Interval
    log_loss: Interval


class Holdout(_Answer):
    """Figures on one split, a single draw."""

    rows: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    auc: float


class ComparedModel(_Answer):
    """One model beside the others; ``verdict`` says in sentences what follows."""

    title: str
    cross_validation: CrossValidation
    holdout: Holdout
    log_loss_above_champion: Interval | None
    verdict: list[str]


class Baseline(_Answer):
    """A rule that needs no model, measured likewise."""

    description: str
    cross_validation: CrossValidation
    holdout: Holdout


class ModelComparison(_Answer):
    """The models beside each other and beside the baselines, by name."""

    version: str
    champion: str
    champion_reason: str
    data: Data
    evaluation: Evaluation
    models: dict[str, ComparedModel]
    baselines: dict[str, Baseline]


class TrainedModel(_Answer):
    """Everything measured of a model that a client is likely to show."""

    title: str
    parameters: dict[str, str]
    cross_validation: CrossValidation
    holdout: Holdout
    importances: dict[str, float]
    verdict: list[str]


class ModelDetail(_Answer):
    """One model."""

    name: str
    version: str
    champion: bool
    details: TrainedModel


class ChampionInfo(_Answer):
    """The deciding model, and the bundle it came in."""

    name: str
    version: str
    champion_reason: str
    threshold: float
    features: list[str]
    data: Data
    libraries: dict[str, str]
    details: TrainedModel


class FieldRule(_Answer):
    """What one input field must be."""

    name: str
    kind: str
    description: str
    required: bool
    scored: bool
    unit: str | None = None
    exclusive_minimum: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    allowed: list[str | int] | None = None


class WarningRule(_Answer):
    """One reason to look twice."""

    code: str
    message: str


class ValidationRules(_Answer):
    """What an application must be, and what is warned about."""

    fields: list[FieldRule]
    warnings: list[WarningRule]
    unknown_fields: str
    missing: str


class CheckResult(_Answer):
    """What one check of a service found."""

    status: Literal["up", "down"]
    required: bool
    detail: Any = None


class RoutePerformance(_Answer):
    """How long the answers of one route took, in milliseconds; all but the mean are estimates."""

    method: str
    route: str
    requests: int
    mean_ms: float
    median_ms: float
    p95_ms: float
    p99_ms: float


class Performance(_Answer):
    """How fast each route of a service answers, and how often from the cache if it has one."""

    routes: list[RoutePerformance]
    cache_hit_rate: float | None


class Health(_Answer):
    """How a service is: ``degraded`` works, with something optional down."""

    status: Literal["ok", "degraded", "down"]
    service: str
    version: str
    checks: dict[str, CheckResult]

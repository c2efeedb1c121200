"""Bodies of requests and answers; the decision itself is in ``shared.contract.events``."""

from typing import Literal

from pydantic import BaseModel, Field

from shared.contract.errors import Fault
from shared.contract.events import Application, ModelName, Prediction, Probability


class ValidationReport(BaseModel):
    """What /predict would make of an application, without a decision."""

    valid: bool
    validation_errors: list[Fault]
    warnings: list[str]
    input_data: Application | None = Field(description="As understood; null if not valid.")


class BenchmarkResult(BaseModel):
    """One model's decision on the benchmarked application."""

    prediction: Prediction
    confidence: float
    probability: Probability
    prediction_time_ms: float


class Consensus(BaseModel):
    """What the models together say; the champion decides a tie."""

    prediction: Prediction
    agreement: float = Field(description="Share of the models that agree, 0.5 to 1.")
    models_agree: int
    total_models: int


class Benchmark(BaseModel):
    """All models on one application. It is not recorded."""

    success: Literal[True]
    input_data: Application
    results: dict[ModelName, BenchmarkResult]
    consensus: Consensus
    warnings: list[str]

"""Bodies of answers; the decision itself is in ``shared.contract.events``."""

from typing import Literal

from pydantic import BaseModel, Field

from shared.contract.application import Application
from shared.contract.errors import Fault
from shared.contract.events import Prediction, Probability


class ValidationReport(BaseModel):
    """The faults and warnings that /predict would find in an application."""

    valid: bool
    validation_errors: list[Fault]
    warnings: list[str]
    input_data: Application | None = Field(description="As parsed; null if not valid.")


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

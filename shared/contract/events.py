"""The wire contract between the services: a decision, and the event that records it.

The decision that the client is answered with is, byte for byte, the ``decision`` member of the
event: what is stored is what was said. Within version 1 members may be added but never removed,
renamed or given another meaning; readers ignore members they do not know.
"""

from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

STREAM = "predictions"
DEAD_LETTER_STREAM = "predictions:dead"
CONSUMER_GROUP = "history"
EVENT_FIELD = "event"
"""The one field of a stream entry; its value is one event as JSON, or several, one per line."""

INTERNAL_PREDICTIONS_PATH = "/internal/predictions"
"""Where the history service takes events as NDJSON when the stream cannot be reached."""

ANONYMOUS = "anonymous"

MAX_LOAN_ID_LENGTH: Final = 64
# By ranges, not by categories of Unicode: these are the same to every reader of the schema and do
# not change with the version of a library.
_VISIBLE: Final = (
    r"!-~\u00a1-\u00ac\u00ae-\u05ff\u0606-\u061b\u061d-\u06dc\u06de-\u070e\u0710-\u088f"
    r"\u0892-\u08e1\u08e3-\u167f\u1681-\u180d\u180f-\u1fff\u2010-\u2027\u2030-\u205e"
    r"\u2070-\u2fff\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufefe\uff00-\uffef"
)
LoanId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_LOAN_ID_LENGTH, pattern=f"^[{_VISIBLE}]+$"),
]
"""Visible characters of the basic plane: no white space, no control or format characters.

What one service takes in and records, the other can be asked for.
"""

EXAMPLE: Final[dict[str, str | int]] = {
    "Loan_ID": "LP001003",
    "Gender": "Male",
    "Married": "Yes",
    "Dependents": "1",
    "Education": "Graduate",
    "Self_Employed": "No",
    "ApplicantIncome": 4583,
    "CoapplicantIncome": 1508,
    "LoanAmount": 128,
    "Loan_Amount_Term": 360,
    "Credit_History": 1,
    "Property_Area": "Rural",
}
"""The documented example."""

ModelName = Literal[
    "random_forest", "logistic_regression", "gradient_boosting", "support_vector_machine"
]
Prediction = Literal["Approved", "Rejected"]
Sex = Literal["Male", "Female"]
YesNo = Literal["Yes", "No"]
DependentsBand = Literal["0", "1", "2", "3+"]
EducationLevel = Literal["Graduate", "Not Graduate"]
PropertyArea = Literal["Urban", "Semiurban", "Rural"]


class _Wire(BaseModel):
    """Frozen, and tolerant of members that a newer writer added."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=()
    )


class Probability(_Wire):
    """The model's probability of each outcome; the two add up to 1."""

    approved: float = Field(ge=0, le=1)
    rejected: float = Field(ge=0, le=1)


class ModelInfo(_Wire):
    """Which model decided, from which bundle, and how accurate it was in cross-validation."""

    name: str
    version: str = Field(description="Version of the bundle the model came from.")
    accuracy: float = Field(ge=0, le=1, description="Mean accuracy in repeated cross-validation.")


class Application(_Wire):
    """A loan application as the service understood it; null is missing."""

    Loan_ID: str | None = None
    Gender: Sex | None = None
    Married: YesNo | None = None
    Dependents: DependentsBand | None = None
    Education: EducationLevel | None = None
    Self_Employed: YesNo | None = None
    ApplicantIncome: float = Field(description="Per month.")
    CoapplicantIncome: float | None = Field(default=None, description="Per month.")
    LoanAmount: float | None = Field(default=None, description="In thousands.")
    Loan_Amount_Term: float | None = Field(default=None, description="In months.")
    Credit_History: Literal[0, 1] | None = None
    Property_Area: PropertyArea | None = None


class Decision(_Wire):
    """One answered application."""

    success: Literal[True] = True
    prediction_id: UUID = Field(
        description="UUID of version 7, which sorts by time; of version 8 where it is derived from"
        " an Idempotency-Key."
    )
    prediction: Prediction
    prediction_code: Literal[0, 1] = Field(description="1 is Approved.")
    confidence: float = Field(ge=0, le=1, description="Probability of the outcome predicted.")
    probability: Probability
    model_info: ModelInfo
    input_data: Application
    imputed: list[str] = Field(description="Inputs that were missing and filled in by the model.")
    warnings: list[str]
    timestamp: AwareDatetime = Field(description="When it was decided, in UTC.")


class PredictionRecorded(_Wire):
    """A decision was made and must be stored exactly once, under ``decision.prediction_id``."""

    type: Literal["PredictionRecorded"] = "PredictionRecorded"
    version: Literal[1] = 1
    client: str = Field(max_length=64, description="Who asked: a client's name, or anonymous.")
    request_id: str = Field(max_length=128)
    traceparent: str | None = Field(
        default=None, description="Its place in a trace (W3C Trace Context), if it is traced."
    )
    decision: Decision


def answer_key(prediction_id: UUID) -> str:
    """The Redis key of the stored answer to a request with an Idempotency-Key.

    Inference stores it; history removes it when the decision is erased.
    """
    return f"idempotency:answer:{prediction_id}"

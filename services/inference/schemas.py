"""Bodies of requests and answers. The decision itself is in ``shared.events``: it is the record."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from services.inference.rules import (
    LOAN_ID_PATTERN,
    MAX_INCOME,
    MAX_LOAN_ID_LENGTH,
    MAX_TERM_MONTHS,
)
from shared.errors import Fault, InvalidInput
from shared.events import (
    EXAMPLE,
    Application,
    DependentsBand,
    EducationLevel,
    ModelName,
    Prediction,
    Probability,
    PropertyArea,
    Sex,
    YesNo,
)


def _number(value: object) -> object:
    # Pydantic would read true as the number 1.
    if isinstance(value, bool):
        raise PydanticCustomError("number", "must be a number, not a boolean")
    return value


def _category(
    *values: str | int,
    numbers: Mapping[float, str | int] | None = None,
    booleans: Mapping[bool, str | int] | None = None,
) -> Callable[[object], object]:
    """A reader that is lenient in form: any letter case, and numbers or booleans where named."""
    by_name = {str(value).casefold(): value for value in values}
    by_number = numbers or {}
    by_boolean = booleans or {}
    expected = ", ".join(str(value) for value in values)

    def read(value: object) -> object:
        found: object = None
        if isinstance(value, str):
            found = by_name.get(value.strip().casefold())
        elif isinstance(value, bool):
            found = by_boolean.get(value)
        elif isinstance(value, int | float):
            found = by_number.get(value)
        if found is None:
            raise PydanticCustomError(
                "category", "must be one of: {expected}", {"expected": expected}
            )
        return found

    return read


def _dependents(value: object) -> object:
    # People are counted in whole numbers or their strings; from three on the data set stops.
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 3:
        value = "3+" if value == int(value) else value
    return _read_dependents(value)


_YES_NO = _category("Yes", "No", booleans={True: "Yes", False: "No"})
_read_dependents = _category("0", "1", "2", "3+", numbers={0: "0", 1: "1", 2: "2", 3: "3+"})
_CREDIT_HISTORY = _category(0, 1, numbers={0: 0, 1: 1}, booleans={False: 0, True: 1})

_YesNo = Annotated[YesNo, BeforeValidator(_YES_NO)]


class LoanApplication(BaseModel):
    """An application for a loan, under the data set's own names; null is missing.

    Lenient in form (numeric strings, any letter case, booleans for Yes and No, integers for
    Dependents), strict in meaning (NaN, infinities and unknown fields are errors). The values are
    then as understood: ``vars()`` of an instance has every field, None where missing.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{**EXAMPLE}]})

    Loan_ID: (
        Annotated[str, StringConstraints(max_length=MAX_LOAN_ID_LENGTH, pattern=LOAN_ID_PATTERN)]
        | None
    ) = Field(default=None, description="The lender's own number of the application.")
    Gender: Annotated[Sex, BeforeValidator(_category("Male", "Female"))] | None = Field(
        default=None, description="Recorded for fairness monitoring, never scored."
    )
    Married: _YesNo | None = Field(
        default=None, description="Recorded for fairness monitoring, never scored."
    )
    Dependents: Annotated[DependentsBand, BeforeValidator(_dependents)] | None = None
    Education: (
        Annotated[EducationLevel, BeforeValidator(_category("Graduate", "Not Graduate"))] | None
    ) = None
    Self_Employed: _YesNo | None = None
    ApplicantIncome: Annotated[
        float, Field(gt=0, le=MAX_INCOME, allow_inf_nan=False), BeforeValidator(_number)
    ] = Field(description="Per month.")
    CoapplicantIncome: (
        Annotated[float, Field(ge=0, le=MAX_INCOME, allow_inf_nan=False), BeforeValidator(_number)]
        | None
    ) = Field(default=None, description="Per month; missing means none was declared.")
    LoanAmount: (
        Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)] | None
    ) = Field(default=None, description="In thousands.")
    Loan_Amount_Term: (
        Annotated[
            float, Field(gt=0, le=MAX_TERM_MONTHS, allow_inf_nan=False), BeforeValidator(_number)
        ]
        | None
    ) = Field(default=None, description="In months.")
    Credit_History: Annotated[Literal[0, 1], BeforeValidator(_CREDIT_HISTORY)] | None = Field(
        default=None, description="1 if past credit met its guidelines; missing is a third state."
    )
    Property_Area: (
        Annotated[PropertyArea, BeforeValidator(_category("Urban", "Semiurban", "Rural"))] | None
    ) = None


_FIELDS = tuple(LoanApplication.model_fields)
_read_application = TypeAdapter(LoanApplication).validator.validate_json


def understand(body: bytes) -> dict[str, Any]:
    """The application in a JSON body: every field by its name, None where missing.

    Raises ``InvalidInput`` with all faults of the body at once.
    """
    try:
        application: LoanApplication = _read_application(body)
    except ValidationError as error:
        raise InvalidInput([_fault(fault) for fault in error.errors(include_url=False)]) from None
    return vars(application)


_MESSAGES: Final = {
    "missing": "is required",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_type": "must be a string",
    "string_too_long": "must be at most {max_length} characters",
    "string_pattern_mismatch": "must be visible characters, without spaces",
    "json_invalid": "is not valid JSON: {error}",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
}


def _fault(details: ErrorDetails) -> Fault:
    field = ".".join(str(part) for part in details["loc"]) or "body"
    kind = details["type"]
    value = None if kind in ("missing", "json_invalid") else details["input"]
    if kind == "extra_forbidden":
        nearest = get_close_matches(field, _FIELDS, n=1, cutoff=0.0)[0]
        message = f"is not a known field; the nearest one is {nearest}"
    elif kind in _MESSAGES:
        message = _MESSAGES[kind].format(**details.get("ctx", {}))
    else:
        message = details["msg"]
    return Fault(field=field, message=message, value=value)


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

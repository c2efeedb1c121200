"""The loan application: its fields, how leniently each is read, and what is wrong with one."""

import json
import sys
from collections import Counter
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from shared.contract.errors import MAX_FAULTS, MAX_NAME_LENGTH, Fault, InvalidInput
from shared.contract.events import (
    EXAMPLE,
    DependentsBand,
    EducationLevel,
    LoanId,
    PropertyArea,
    Sex,
    YesNo,
)
from shared.contract.lenient import (
    AMOUNT,
    INCOME,
    INCOME_OR_NONE,
    TERM,
    category,
    decimal,
    dependents,
)

MAX_INCOME: Final = 100_000
MAX_TERM_MONTHS: Final = 600
MAX_AMOUNT: Final = sys.float_info.max
"""Any number that there is; what is unusually high is warned about."""

_YesNo = Annotated[YesNo, category("Yes", "No", booleans={True: "Yes", False: "No"})]


class LoanApplication(BaseModel):
    """An application for a loan, under the data set's own names; null is missing.

    Lenient in form (numeric strings, any letter case, booleans for Yes and No, integers for
    Dependents), strict in meaning (NaN, infinities, unknown fields and fields given twice are
    errors). The values are then as understood: ``vars()`` of an instance has every field, None
    where missing.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{**EXAMPLE}]})

    Loan_ID: LoanId | None = Field(
        default=None, description="The lender's own number of the application."
    )
    Gender: Annotated[Sex, category("Male", "Female")] | None = Field(
        default=None, description="Recorded for fairness monitoring, never scored."
    )
    Married: _YesNo | None = Field(
        default=None, description="Recorded for fairness monitoring, never scored."
    )
    Dependents: Annotated[DependentsBand, dependents()] | None = None
    Education: Annotated[EducationLevel, category("Graduate", "Not Graduate")] | None = None
    Self_Employed: _YesNo | None = None
    ApplicantIncome: Annotated[
        float, Field(gt=0, le=MAX_INCOME, allow_inf_nan=False), decimal(INCOME)
    ] = Field(description="Per month.")
    CoapplicantIncome: (
        Annotated[float, Field(ge=0, le=MAX_INCOME, allow_inf_nan=False), decimal(INCOME_OR_NONE)]
        | None
    ) = Field(default=None, description="Per month; missing means none was declared.")
    LoanAmount: (
        Annotated[float, Field(gt=0, le=MAX_AMOUNT, allow_inf_nan=False), decimal(AMOUNT)] | None
    ) = Field(default=None, description="In thousands.")
    Loan_Amount_Term: (
        Annotated[float, Field(gt=0, le=MAX_TERM_MONTHS, allow_inf_nan=False), decimal(TERM)] | None
    ) = Field(default=None, description="In months.")
    Credit_History: (
        Annotated[
            Literal[0, 1],
            category(0, 1, numbers={0: 0, 1: 1}, booleans={False: 0, True: 1}),
        ]
        | None
    ) = Field(
        default=None, description="1 if past credit met its guidelines; missing is a third state."
    )
    Property_Area: Annotated[PropertyArea, category("Urban", "Semiurban", "Rural")] | None = None


_FIELDS = tuple(LoanApplication.model_fields)
_read_application = TypeAdapter(LoanApplication).validator.validate_json


def parse_application(body: bytes) -> dict[str, Any]:
    """The application in a JSON body: every field by its name, None where missing.

    Raises ``InvalidInput`` with all faults of the body at once.
    """
    try:
        application: LoanApplication = _read_application(body)
    except ValidationError as error:
        raise InvalidInput(_faults(error)) from None
    # Each member takes one colon, so no more of them than members means that none came twice.
    if body.count(b":") != len(application.model_fields_set):
        _refuse_repeated_members(body)
    return vars(application)


def _refuse_repeated_members(body: bytes) -> None:
    names = Counter(name for name, _ in json.loads(body, object_pairs_hook=list))
    repeated = [name for name, times in names.items() if times > 1]
    if repeated:
        raise InvalidInput([Fault(field=name, message=_REPEATED) for name in repeated])


def _faults(error: ValidationError) -> list[Fault]:
    """Every fault, unless there are so many that no person would read them."""
    details = error.errors(include_url=False)
    faults = [_fault(fault) for fault in details[:MAX_FAULTS]]
    if len(details) > MAX_FAULTS:
        faults.append(
            Fault(field="body", message=f"has {len(details)} faults; the rest is left out")
        )
    return faults


_REPEATED: Final = "is given more than once, and only one of them can be meant"
_MESSAGES: Final = {
    "missing": "is required",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_type": "must be a string",
    "string_too_short": "must be visible characters, at least one",
    "string_too_long": "must be at most {max_length} characters",
    "string_pattern_mismatch": "must be visible characters, without spaces",
    "json_invalid": "is not valid JSON: {error}",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
}


def _fault(details: ErrorDetails) -> Fault:
    field = ".".join(str(part) for part in details["loc"])[:MAX_NAME_LENGTH] or "body"
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

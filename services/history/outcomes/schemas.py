"""Bodies of the routes that take outcomes in."""

import re
from datetime import datetime
from typing import Annotated, Final, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from services.history.schemas import AuditEntry, in_utc
from shared.contract.outcomes import OutcomeKind, WhichDecisions
from shared.contract.parsing import LoanId

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_EXPECTED: Final = "must be a day or a time with its zone: 2026-01-31 or 2026-01-31T12:00:00Z"


def _day_or_moment(value: object) -> object:
    if isinstance(value, str):
        if _DAY.fullmatch(value):
            return f"{value}T00:00:00Z"
        if _MOMENT.fullmatch(value):
            return value
    elif value is None or isinstance(value, datetime):
        return value
    raise PydanticCustomError("spelling", _EXPECTED)


_Observed = Annotated[
    AwareDatetime,
    BeforeValidator(_day_or_moment),
    AfterValidator(in_utc),
    WithJsonSchema({"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}),
]


class OutcomeReport(BaseModel):
    """What became of one decision, or of the decisions about one application."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "oneOf": [
                {
                    "required": ["prediction_id"],
                    "properties": {
                        "prediction_id": {"type": "string"},
                        "loan_id": {"type": "null"},
                        "which": {"type": "null"},
                    },
                },
                {
                    "required": ["loan_id", "which"],
                    "properties": {
                        "prediction_id": {"type": "null"},
                        "loan_id": {"type": "string"},
                        "which": {"type": "string"},
                    },
                },
            ]
        },
    )

    prediction_id: UUID | None = None
    loan_id: LoanId | None = None
    which: WhichDecisions | None = Field(
        default=None,
        description="With loan_id: whether the outcome is of all decisions about the application"
        " or of the latest.",
    )
    outcome: OutcomeKind
    observed_at: _Observed = Field(
        description="When it was so: a time with its zone, or a day, which stands for its start in"
        " UTC."
    )
    matures_at: _Observed | None = Field(
        default=None, description="From when on it can change no more."
    )
    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")] | None = Field(
        default=None, description="The system that reports it; never a person: it is not erased."
    )

    @model_validator(mode="after")
    def _names_its_decisions(self) -> Self:
        if (self.prediction_id is None) == (self.loan_id is None):
            raise ValueError("must name a decision by either prediction_id or loan_id")
        if (self.which is None) != (self.loan_id is None):
            raise ValueError("`which` is required with loan_id and not allowed without it")
        return self


class OutcomeFault(BaseModel):
    """Why one report was left out."""

    index: int | None = Field(default=None, description="Its place in the JSON array, from 0.")
    line: int | None = Field(default=None, description="Its line in the file, from 1.")
    field: str
    message: str


class OutcomeReceipt(BaseModel):
    """What became of the reports; the counts are of decisions."""

    accepted: int = Field(description="Outcomes recorded now.")
    unchanged: int = Field(description="Outcomes that were recorded before, all members the same.")
    superseded: int = Field(description="Earlier outcomes whose place the accepted ones took.")
    faulty: int = Field(description="Reports left out.")
    faults: list[OutcomeFault] = Field(description="The first 1,000 of them.")
    audit: AuditEntry | None = Field(description="null where no report could be used.")

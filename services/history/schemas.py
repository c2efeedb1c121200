"""Parameters and bodies of the history service's routes."""

import datetime
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Literal, Self
from uuid import UUID
from zlib import crc32

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from services.history.records import Record
from shared.contract.events import ModelName, Prediction
from shared.contract.outcomes import OutcomeKind
from shared.contract.parsing import LoanId
from shared.contract.ranges import check_range
from shared.web.parameters import Parameters

_UUID_BYTES = 16
_CHECK_BYTES = 4
_CURSOR = "[A-Za-z0-9_-]{27}"
"""The 20 bytes of both in base64, without padding."""


def encode_cursor(last: UUID) -> str:
    """The cursor of the page after the record ``last``."""
    return urlsafe_b64encode(last.bytes + _checksum(last.bytes)).rstrip(b"=").decode()


def decode_cursor(value: object) -> UUID:
    """The last record of the page before; raises ``ValueError`` for an invalid cursor.

    The checksum detects a truncated or altered cursor. It need not be secret: a cursor gives access
    to nothing that the same request without it does not.
    """
    text = str(value)
    # The decoder skips characters outside its alphabet.
    raw = urlsafe_b64decode(text + "=") if re.fullmatch(_CURSOR, text) else b""
    identifier, check = raw[:_UUID_BYTES], raw[_UUID_BYTES:]
    if len(identifier) != _UUID_BYTES or check != _checksum(identifier):
        raise ValueError("is not a next_cursor of this service; begin without one")
    return UUID(bytes=identifier)


def _checksum(identifier: bytes) -> bytes:
    return crc32(identifier).to_bytes(_CHECK_BYTES, "big")


Cursor = Annotated[
    UUID,
    BeforeValidator(decode_cursor),
    WithJsonSchema({"type": "string", "format": "cursor"}),
]


def written_as(pattern: str, kind: str) -> BeforeValidator:
    """Refuse spellings that Pydantic reads but the documented type does not allow.

    For example, "1_0" as a number, a Unix time as a date-time, "on" as a boolean.
    """
    expected = re.compile(pattern, re.ASCII)

    def check(value: object) -> object:
        if isinstance(value, str) and not expected.fullmatch(value):
            raise PydanticCustomError("spelling", "must be {kind}", {"kind": kind})
        return value

    return BeforeValidator(check)


_FIRST_MOMENT = datetime.datetime.min.replace(tzinfo=datetime.UTC)
_LAST_MOMENT = datetime.datetime.max.replace(tzinfo=datetime.UTC)


def in_utc(moment: datetime.datetime) -> datetime.datetime:
    """``moment`` in UTC; the first or last one of UTC if it lies before or after all of them."""
    try:
        return moment.astimezone(datetime.UTC)
    except OverflowError:
        return _FIRST_MOMENT if moment.year == 1 else _LAST_MOMENT


# NaN passes here, to be refused as a number out of range.
_Confidence = Annotated[
    float,
    Field(ge=0, le=1),
    written_as(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|nan", "a number"),
]
PageSize = Annotated[int, Field(ge=1, le=100), written_as(r"-?\d{1,18}", "a whole number")]
_Boolean = Annotated[bool, written_as("true|false", "true or false")]
_Moment = Annotated[
    AwareDatetime,
    written_as(
        r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)?",
        "a datetime such as 2026-01-31T12:00:00Z",
    ),
    AfterValidator(in_utc),
]


class Filters(Parameters):
    """Which records; each filter narrows what the others leave."""

    prediction: Prediction | None = None
    model: ModelName | None = None
    since: _Moment | None = Field(default=None, description="Decided then or later.")
    until: _Moment | None = Field(default=None, description="Decided before then.")
    min_confidence: _Confidence | None = None
    max_confidence: _Confidence | None = None
    had_warnings: _Boolean | None = None
    loan_id: LoanId | None = None
    outcome: OutcomeKind | None = Field(default=None, description="What became of it.")
    has_outcome: _Boolean | None = None

    @model_validator(mode="after")
    def _ranges_run_forwards(self) -> Self:
        check_range(self.since, self.until)
        lowest, highest = self.min_confidence, self.max_confidence
        if lowest is not None and highest is not None and lowest > highest:
            raise ValueError("min_confidence must not be above max_confidence")
        return self


class PageQuery(Filters):
    """One page of records, the newest first."""

    limit: PageSize = 20
    cursor: Cursor | None = Field(default=None, description="next_cursor of the page before.")


class ExportQuery(Filters):
    """All records that the filters leave, the newest first."""

    format: Literal["csv", "ndjson"] = "ndjson"


class ErasureQuery(Parameters):
    """Which application's decisions to erase."""

    loan_id: LoanId


class AuditEntry(BaseModel):
    """A row of the audit log; `make verify-audit HEAD=id:hash` proves that it still stands."""

    id: int
    hash: str = Field(description="SHA-256, as 64 hex digits.")


class Erasure(BaseModel):
    """What was erased, and where that is recorded."""

    erased: int = Field(
        description="Decisions erased by this request; those erased before do not count again."
    )
    erased_at: AwareDatetime
    audit: AuditEntry
    salt: str | None = Field(
        description="Keep it: the audit log names a loan by the SHA-256 of salt and loan_id only."
        " null where one decision was named by its id, which the log holds as it is."
    )


class Page(BaseModel):
    """Some records, the newest first, and where the next ones begin."""

    items: list[Record]
    next_cursor: str | None = Field(description="null on the last page.")


class About(BaseModel):
    """What this service is and where to go on."""

    service: Literal["history"] = "history"
    version: str
    description: str
    links: dict[str, str]

"""Parameters and bodies of the batch service's routes."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    Field,
    WithJsonSchema,
)

from services.batch.jobs import FaultyRows, Job, State, UnknownColumns
from services.batch.results import Format
from shared.contract.events import ModelName
from shared.contract.rollout import Candidate
from shared.files.spellings import descriptions
from shared.web.parameters import Parameters

MAX_ADDRESS_LENGTH = 2000
_SPELLINGS = descriptions()
_PageSize = Annotated[int, Field(ge=1, le=100)]


def _known_spelling(key: str) -> str:
    if key not in _SPELLINGS:
        raise ValueError(f"must be one of: {', '.join(_SPELLINGS)}")
    return key


_Spelling = Annotated[
    str, AfterValidator(_known_spelling), WithJsonSchema({"type": "string", "enum": [*_SPELLINGS]})
]


_Address = Annotated[
    str, Field(max_length=MAX_ADDRESS_LENGTH, json_schema_extra={"format": "webhook"})
]


class OrderQuery(Parameters):
    """What is to be done with a file."""

    model: ModelName | None = Field(
        default=None, description="Name of a served model; the champion by default."
    )
    record: bool = Field(
        default=True,
        description="Whether decisions are put on record; a what-if leaves none.",
    )
    faulty: FaultyRows = Field(
        default="skip",
        description="Rows that cannot be decided are skipped, or nothing is decided if there are"
        " any. GET /batches/{id}/faults names them either way.",
    )
    unknown: UnknownColumns = Field(
        default="stop",
        description="A file is refused if an unknown column is near the name of an input that it"
        " lacks; with skip that column is left out, like any other unknown one.",
    )
    spelling: list[_Spelling] = Field(
        default=[],
        description="How cells are meant that are refused otherwise; may be repeated."
        + "".join(f" `{key}` {reads}." for key, reads in _SPELLINGS.items()),
    )
    webhook: _Address | None = Field(
        default=None,
        description="An address on an allowed host, to which the batch is posted when it ends,"
        " signed as Standard Webhooks describes it.",
    )


class BatchPageQuery(Parameters):
    """One page of the caller's batches, the newest first."""

    limit: _PageSize = 20
    cursor: UUID | None = Field(default=None, description="next_cursor of the page before.")


class ResultsQuery(Parameters):
    """The form of the decisions."""

    format: Format = "csv"


class Batch(BaseModel):
    """A file of applications on its way to decisions."""

    id: UUID
    state: State = Field(
        description="queued, checking (its rows are read), running (they are decided), done,"
        " failed or cancelled."
    )
    client: str = Field(description="Who asked for it.")
    model: str = Field(
        description="What decides; once the batch is begun, that of the roll-out then in force."
    )
    bundle_version: str = Field(description="The bundle of that model.")
    candidate: Candidate | None = Field(
        description="Decides a share of the rows instead, if the batch is put on record and that"
        " roll-out has a candidate; model_info of each decision says what decided it."
    )
    record: bool
    faulty_rows: FaultyRows
    rows: int = Field(description="Rows read so far; all of them once it runs.")
    faulty: int = Field(description="Rows that cannot be decided.")
    decided: int
    approved: int
    with_warnings: int = Field(description="Decisions that have warnings.")
    rate: float | None = Field(description="Decisions a second since it runs.")
    estimated_end: AwareDatetime | None = Field(description="While it runs.")
    created_at: AwareDatetime
    finished_at: AwareDatetime | None
    expires_at: AwareDatetime | None = Field(
        description="When it and its results are deleted; known once it has ended."
    )
    remarks: list[str] = Field(description="How the file was read, and what was left out.")
    problem: str | None = Field(description="Why it failed.")

    @classmethod
    def of(cls, job: Job, *, retention_days: float) -> "Batch":
        """The batch as it is shown now."""
        rate, left = None, None
        if job.started_at is not None:
            took = (job.finished_at or datetime.now(UTC)) - job.started_at
            rate = job.decided / max(took.total_seconds(), 0.001)
        if job.state == "running" and rate:
            left = timedelta(seconds=(job.rows - job.faulty - job.decided) / rate)
        same: dict[str, Any] = {
            name: getattr(job, name) for name in cls.model_fields if hasattr(job, name)
        }
        return cls(
            **same,
            rate=rate and round(rate, 1),
            estimated_end=None if left is None else datetime.now(UTC) + left,
            expires_at=job.finished_at and job.finished_at + timedelta(days=retention_days),
        )


class BatchPage(BaseModel):
    """Some of the caller's batches."""

    items: list[Batch]
    next_cursor: UUID | None = Field(description="Of the next page; null on the last one.")

"""Files on their way to a batch: read, checked by line, and ordered once the person says so.

Drafts are in this process's memory, for the session that uploaded them, and never on disk. What is
ordered is the batch service's: it outlives the session, and this process.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import Any, Final

from loan_predictor_client import RetryPolicy
from loan_predictor_client.calls import FileKind
from loan_predictor_client.models import Batch
from services.dashboard.sessions import Session
from services.dashboard.uploading import File
from shared.contract.errors import InvalidInput
from shared.contract.parsing import read_application
from shared.contract.warnings import TrainingRanges, warnings_for
from shared.files.applications import TOO_MANY_ROWS, ApplicationFile, Row, read_applications
from shared.files.spellings import Spelling, applied, offered
from shared.files.tables import FileError

MAX_ROWS: Final = 10_000
LARGER_FILES: Final = (
    " Send a larger one to the batch service with POST /batches,"
    " or use the command loan-predictor score, which records nothing."
)
MAX_DRAFTS: Final = 20
"""A further one displaces the oldest."""
_MAGIC: Final[dict[bytes, FileKind]] = {b"PAR1": "parquet", b"PK\x03\x04": "xlsx"}
_RETRY_POLICY: Final = RetryPolicy(total_s=30, attempt_s=20)


@dataclass
class Draft:
    """A file that is not ordered yet."""

    name: str
    owner: Session
    identifier: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    problem: str = ""
    """Why the file cannot be used."""
    content: bytes = b""
    file: ApplicationFile | None = None
    spellings: Sequence[Spelling] = ()
    """The questions that the person answers before the rows are checked."""
    chosen: Sequence[str] | None = None
    """The answers; None until they are given."""
    faults: dict[int, str] = field(default_factory=dict)
    """What is wrong with a row, by its line."""
    applications: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The rows that can be decided, by line; none before they are checked."""
    warnings: dict[str, list[int]] | None = None
    """The lines of each warning; None until ``warn`` has found them."""
    _checking: Lock = field(default_factory=Lock)
    """Two pages may show this file: the first answer counts."""

    @property
    def rows(self) -> Sequence[Row]:
        """All rows of the file; none of one that cannot be used."""
        return self.file.rows if self.file else ()

    @property
    def with_warnings(self) -> int | None:
        """How many applications have warnings; None until ``warn`` has found them."""
        return None if self.warnings is None else len(set().union(*self.warnings.values()))

    def check(self, chosen: Collection[str]) -> None:
        """Check all rows, reading the ``chosen`` spellings as meant; only the first call counts."""
        with self._checking:
            if self.file is None or self.chosen is not None:
                return
            keys = sorted(each.key for each in self.spellings if each.key in chosen)
            self.file = applied(self.file, keys)
            for row in self.file.rows:
                read = _read(row)
                if isinstance(read, str):
                    self.faults[row.line] = read
                else:
                    self.applications[row.line] = read
            self.chosen = keys  # last: from then on pages show the rows as checked

    def warn(self, training_ranges: TrainingRanges) -> None:
        """Find the warnings that the decisions will have."""
        found: dict[str, list[int]] = {}
        for line, application in self.applications.items():
            for warning in warnings_for(application, training_ranges):
                found.setdefault(warning, []).append(line)
        self.warnings = found


class Drafts:
    """All drafts of this process."""

    def __init__(self) -> None:
        self._drafts: dict[str, Draft] = {}

    def begin(self, upload: File, owner: Session) -> Draft:
        """Read a file, and check its rows unless it raises a question. Takes long: in a thread."""
        draft = Draft(upload.name, owner)
        try:
            draft.file = read_applications(upload.content, max_rows=MAX_ROWS)
        except FileError as error:
            draft.problem = str(error)
            if draft.problem == TOO_MANY_ROWS.format(MAX_ROWS):
                draft.problem += LARGER_FILES
        else:
            draft.content = upload.content
            draft.spellings = offered(draft.file)
            if not (draft.spellings or draft.file.unknown):
                draft.check(())
        while len(self._drafts) >= MAX_DRAFTS:
            del self._drafts[next(iter(self._drafts))]
        self._drafts[draft.identifier] = draft
        return draft

    def find(self, identifier: str, owner: Session) -> Draft | None:
        """The draft, if it belongs to ``owner``."""
        draft = self._drafts.get(identifier)
        return draft if draft is not None and draft.owner is owner else None


async def order(draft: Draft, *, record: bool) -> Batch:
    """Have a checked file decided. The same file is the same batch, as long as that is kept.

    Raises ``CallFailed`` and ``SignedOut``.
    """
    kinds = (kind for magic, kind in _MAGIC.items() if draft.content.startswith(magic))
    kind: FileKind = next(kinds, "csv")
    chosen = draft.chosen or ()
    options = f"{record} {' '.join(chosen)}".encode()
    return await draft.owner.api.variant(retry_policy=_RETRY_POLICY).create_batch(
        draft.content,
        kind=kind,
        record=record,
        unknown="skip",  # The person was asked about them.
        spellings=chosen,
        idempotency_key=f"dashboard-{sha256(sha256(draft.content).digest() + options).hexdigest()}",
    )


def _read(row: Row) -> dict[str, Any] | str:
    """The application in a row, or what is wrong with it."""
    if row.fault is not None:
        return row.fault
    try:
        return read_application(row.application)
    except InvalidInput as error:
        return "; ".join(f"{fault.field} {fault.message}" for fault in error.faults)

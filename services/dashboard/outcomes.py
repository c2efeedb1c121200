"""Outcomes of loans as people see and report them, one by one or from a file."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from loan_predictor_client import (
    AsyncLoanPredictorClient,
    CallFailed,
    InvalidRequest,
    OutcomeKind,
    RetryPolicy,
)
from loan_predictor_client.models import Fault, OutcomeFault, OutcomeReceipt
from services.dashboard.forms import FormField, Option
from services.dashboard.sessions import Session, SignedOut
from shared.files.outcomes import read_outcome_rows
from shared.files.tables import FileError

OUTCOME_TITLES: Final[Mapping[OutcomeKind, str]] = {
    "repaid": "Repaid",
    "prepaid": "Repaid early",
    "late_90": "90 days late",
    "default": "Default",
    "fraud": "Fraud",
    "withdrawn": "Withdrawn",
}
OUTCOME_OPTIONS: Final = tuple(Option(kind, title) for kind, title in OUTCOME_TITLES.items())
OUTCOME_FIELDS: Final = (
    FormField(
        "outcome", "What became of it", options=(Option("", "Choose\u2026"), *OUTCOME_OPTIONS)
    ),
    FormField("observed_at", "Observed on", type="date", required=True),
    FormField(
        "matures_at", "Final from", type="date", help="If it can change no more from a day on."
    ),
)

MAX_FAULTS: Final = 1000
MAX_UPLOADS: Final = 20
"""A further one displaces the oldest."""
_AT_ONCE: Final = 1000
_RETRY_POLICY: Final = RetryPolicy(total_s=60, attempt_s=30)


def outcome_title(kind: str) -> str:
    """An outcome in words; an unknown kind stays."""
    return {str(name): title for name, title in OUTCOME_TITLES.items()}.get(kind, kind)


@dataclass
class Upload:
    """A file of outcomes on its way to the history service."""

    name: str
    owner: Session
    identifier: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    problem: str = ""
    """Why the rest of the file was not recorded."""
    at_work: bool = True
    total: int = 0
    """Its rows, once it is read."""
    done: int = 0
    accepted: int = 0
    unchanged: int = 0
    superseded: int = 0
    faulty: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)
    """The first faults, each with its line."""


class Uploads:
    """All uploads of this process; each belongs to the session that made it."""

    def __init__(self) -> None:
        self._uploads: dict[str, Upload] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, name: str, content: bytes, owner: Session) -> Upload:
        """Start recording the outcomes of a file."""
        while len(self._uploads) >= MAX_UPLOADS:
            del self._uploads[next(iter(self._uploads))]
        upload = Upload(name, owner)
        self._uploads[upload.identifier] = upload
        task = asyncio.create_task(_record(upload, content))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return upload

    def find(self, identifier: str, owner: Session) -> Upload | None:
        """The upload, if it belongs to ``owner``."""
        upload = self._uploads.get(identifier)
        return upload if upload is not None and upload.owner is owner else None

    async def stop(self) -> None:
        """Cancel all work; what was recorded stays, and the same file again adds the rest."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _record(upload: Upload, content: bytes) -> None:
    try:
        rows = await asyncio.to_thread(lambda: list(read_outcome_rows(content)))
        upload.total = len(rows)
        if not rows:
            upload.problem = "The file has a header and no rows."
        left = iter(rows)
        while group := list(islice(left, _AT_ONCE)):
            await _send(upload, group)
    except SignedOut:
        upload.problem = "The session of this file has ended."
    except (FileError, CallFailed) as error:
        upload.problem = str(error)
    finally:
        upload.at_work = False


async def report(
    api: AsyncLoanPredictorClient, reports: Sequence[Mapping[str, object]]
) -> OutcomeReceipt:
    """Record what can be; if nothing can, that is a receipt with the faults, too."""
    try:
        return await api.report_outcomes(reports)
    except InvalidRequest as error:
        if not error.validation_errors:
            raise
        faults = [_located(fault) for fault in error.validation_errors]
        return OutcomeReceipt(
            accepted=0,
            unchanged=0,
            superseded=0,
            faulty=len(reports),
            faults=faults,
            audit=None,
        )


def _located(fault: Fault) -> OutcomeFault:
    """A fault whose field is like ``line 3.outcome``."""
    line, _, name = fault.field.removeprefix("line ").partition(".")
    if not line.isdecimal():
        return OutcomeFault(field=fault.field, message=fault.message)
    return OutcomeFault(line=int(line), field=name, message=fault.message)


async def _send(upload: Upload, group: list[tuple[int, dict[str, str]]]) -> None:
    api = upload.owner.api.variant(retry_policy=_RETRY_POLICY)
    receipt = await report(api, [values for _, values in group])
    upload.done += len(group)
    upload.accepted += receipt.accepted
    upload.unchanged += receipt.unchanged
    upload.superseded += receipt.superseded
    upload.faulty += receipt.faulty
    faults = sorted(receipt.faults, key=lambda fault: fault.line or 1)
    upload.faults += [
        (group[(fault.line or 1) - 1][0], f"{fault.field} {fault.message}")
        for fault in faults[: MAX_FAULTS - len(upload.faults)]
    ]

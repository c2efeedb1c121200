"""Recorded applications with outcomes, as training data beside a file of labelled ones."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from pydantic_core import from_json, to_json

from services.training.applications import LabelledApplications
from shared.contract.errors import InvalidInput
from shared.contract.outcomes import BAD, GOOD
from shared.contract.parsing import read_application

METHOD: Final = (
    "A recorded application counts if it was approved, and what became of the loan is good (repaid,"
    " prepaid) or bad (late_90, default, fraud) and can change no more. A good loan is labelled as"
    " approved, a bad one as rejected. Of several records of one Loan_ID the newest counts; one"
    " that the file holds, too, does not. Every row weighs the same. Nothing is known of refused"
    " applications, and nothing is imputed to them: only the file speaks for those, so candidate"
    " and served bundle are compared on the file's rows and on the recorded ones, each alone. Loans"
    " fail sooner than they are repaid, so outcomes of recent decisions look worse than they will"
    " be; report matures_at to keep them out until then."
)

_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class Recorded:
    """The recorded applications that can be learnt from."""

    applications: tuple[Mapping[str, object], ...]
    labels: tuple[int, ...]
    left_out: Mapping[str, int]
    """Records by the reason for which they are left out."""


@contextmanager
def export_lines(source: str, *, key: str | None) -> Iterator[Iterable[str]]:
    """Open the records with outcomes: an NDJSON export, or the address of a history service.

    Raises ``OSError`` or ``httpx.HTTPError``.
    """
    if not source.startswith(("http://", "https://")):
        with Path(source).open(encoding="utf-8") as lines:
            yield lines
        return
    with httpx.stream(
        "GET",
        f"{source.rstrip('/')}/history/export",
        params={"format": "ndjson", "has_outcome": "true"},
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=_TIMEOUT_S,
    ) as response:
        response.raise_for_status()
        yield response.iter_lines()


def read_recorded(lines: Iterable[str], *, known: Iterable[object], now: datetime) -> Recorded:
    """Read exported records, the newest first, as ``METHOD`` says.

    ``known`` are the Loan_IDs of the file. Raises ``ValueError`` if a line is no record.
    """
    seen = {identifier for identifier in known if identifier is not None}
    applications, labels = [], []
    left_out: Counter[str] = Counter()
    for line in lines:
        record = from_json(line)
        fault = _why_left_out(record, now)
        application = {} if fault else _application(record)
        identifier = application.get("Loan_ID")
        if not fault and not application:
            fault = "not accepted any more"
        elif identifier in seen:
            fault = "a Loan_ID that is known already"
        if fault:
            left_out[fault] += 1
            continue
        if identifier is not None:
            seen.add(identifier)
        applications.append(application)
        labels.append(int(record["outcomes"][0]["outcome"] in GOOD))
    return Recorded(tuple(applications), tuple(labels), left_out)


def _application(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The application as it would be read today; empty if it would be refused."""
    try:
        return read_application(record["input_data"])
    except InvalidInput:
        return {}


def _why_left_out(record: Mapping[str, Any], now: datetime) -> str | None:
    if record["prediction"] != "Approved":
        return "refused"
    if not record["outcomes"]:
        return "no outcome"
    current = record["outcomes"][0]
    if current["outcome"] not in GOOD | BAD:
        return "neither good nor bad"
    matures_at = current["matures_at"]
    if matures_at is not None and datetime.fromisoformat(matures_at).astimezone(UTC) > now:
        return "not mature"
    return None


def with_recorded(data: LabelledApplications, recorded: Recorded) -> LabelledApplications:
    """Return the rows of the file, then the recorded ones."""
    if not recorded.applications:
        return data
    digest = hashlib.sha256(data.sha256.encode())
    for row in zip(recorded.applications, recorded.labels, strict=True):
        digest.update(to_json(row))
    return LabelledApplications(
        sha256=digest.hexdigest(),
        applications=(*data.applications, *recorded.applications),
        approved=np.concatenate([data.approved, np.array(recorded.labels, np.int64)]),
        recorded=len(recorded.labels),
    )

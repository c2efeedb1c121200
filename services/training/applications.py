"""Read labelled applications from a file, and check all of it first."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from shared.contract.application import FIELDS_BY_USE, SCORED
from shared.contract.errors import InvalidInput
from shared.contract.parsing import read_application
from shared.files.applications import OUTCOME, ApplicationFile, Row
from shared.files.applications import read_applications as read_file
from shared.files.tables import FileError

Labels = npt.NDArray[np.int64]

COLUMNS: Final = (*(field.name for field in FIELDS_BY_USE), OUTCOME)
MINIMUM_ROWS_PER_LABEL: Final = 20
"""Fewer could not fill the folds of the cross-validation and those of the calibration inside."""
MOST_LINES: Final = 10
"""A fault that more rows share is named once."""

_APPROVED: Final = frozenset({"y", "yes", "1", "1.0", "true", "approved"})
_REJECTED: Final = frozenset({"n", "no", "0", "0.0", "false", "rejected"})
_NAMES: Final = {1: "approved", 0: "rejected"}


class DataError(Exception):
    """The file cannot be trained on; ``faults`` names each fault with its lines."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        super().__init__(f"{path} has {len(faults)} fault(s):\n" + "\n".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class LabelledApplications:
    """Checked applications with what was decided on them, in the order of the file."""

    sha256: str
    """Of the file's bytes."""
    applications: tuple[Mapping[str, object], ...]
    """By the data set's field names; None is missing, numbers are float."""
    approved: Labels
    """1 is approved; one per application."""
    recorded: int = 0
    """The last rows, so many, are recorded applications labelled by the outcome of the loan."""


class _RowFault(NamedTuple):
    line: int
    what: str
    found: str


def read_applications(path: Path, *, target: str = OUTCOME) -> LabelledApplications:
    """Every labelled application of the file at ``path``: CSV, Excel or Parquet.

    It is read exactly as files for serving are. ``target`` is the column that says what was
    decided, as Y and N, 1 and 0, or Approved and Rejected. A column that no model needs may be
    missing. Raises ``DataError`` with all faults at once: unusable columns, or
    each value that the service would refuse too, by line number.
    """
    try:
        content = path.read_bytes()
        file = read_file(content, also=(*SCORED, target))
    except OSError as error:
        raise DataError(path, [f"it cannot be read: {error.strerror}"]) from error
    except FileError as error:
        raise DataError(path, [str(error)]) from error
    if file.unknown:
        names = ", ".join(column.name for column in file.unknown)
        raise DataError(path, [f"unknown column(s): {names}"])
    applications: list[dict[str, object]] = []
    labels: list[int] = []
    row_faults = [*_repeated(file)]
    for row in file.rows:
        row_faults += _read_row(row, target, applications, labels)
    faults = list(_grouped(row_faults)) or _too_few(applications, labels, target)
    if faults:
        raise DataError(path, faults)
    return LabelledApplications(
        sha256=file.sha256,
        applications=tuple(applications),
        approved=np.array(labels, dtype=np.int64),
    )


def _read_row(
    row: Row, target: str, applications: list[dict[str, object]], labels: list[int]
) -> Iterator[_RowFault]:
    if row.fault is not None:
        yield _RowFault(row.line, row.fault, "")
        return
    try:
        applications.append(read_application(row.application))
    except InvalidInput as error:
        for fault in error.faults:
            found = f", not {row.cells.get(fault.field) or ''!r}"
            yield _RowFault(row.line, f"{fault.field} {fault.message}", found)
    label = (row.cells[target] or "").casefold()
    if label not in _APPROVED | _REJECTED:
        what = f"{target} must be Y or N, 1 or 0, Approved or Rejected"
        yield _RowFault(row.line, what, f", not {row.cells[target] or ''!r}")
    labels.append(int(label in _APPROVED))


def _repeated(file: ApplicationFile) -> Iterator[_RowFault]:
    # The same application in two folds would be learnt in one and asked about in the other.
    for identifier, (first, *others) in file.repeated.items():
        for line in others:
            yield _RowFault(line, f"{identifier!r} is on line {first} too", "")


def _grouped(faults: Iterable[_RowFault]) -> Iterator[str]:
    """Each fault by its line, but one sentence for a fault that many rows share."""
    by_line = sorted(faults, key=lambda fault: fault.line)
    rows = Counter(fault.what for fault in by_line)
    for fault in by_line:
        times = rows[fault.what]
        if 0 < times <= MOST_LINES:
            yield f"line {fault.line}: {fault.what}{fault.found}"
        elif times > MOST_LINES:
            yield f"{times:,} rows from line {fault.line} on: {fault.what}{fault.found}"
            rows[fault.what] = 0


def _too_few(applications: list[dict[str, object]], labels: list[int], target: str) -> list[str]:
    faults = [
        f"{labels.count(label)} rows are {name} by {target}; at least"
        f" {MINIMUM_ROWS_PER_LABEL} are needed"
        for label, name in _NAMES.items()
        if labels.count(label) < MINIMUM_ROWS_PER_LABEL
    ]
    faults += [
        f"{name} is missing in every row"
        for name in SCORED
        if all(application[name] is None for application in applications)
    ]
    return faults

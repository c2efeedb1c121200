"""Read labelled applications from a CSV in the data set's schema, and check all of it first."""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.contract.application import FIELDS_BY_USE, SCORED
from shared.contract.errors import InvalidInput
from shared.contract.parsing import read_application

Labels = npt.NDArray[np.int64]

LABEL: Final = "Loan_Status"
COLUMNS: Final = (*(field.name for field in FIELDS_BY_USE), LABEL)
_OPTIONAL: Final = tuple(
    field.name for field in FIELDS_BY_USE if field.use in ("recorded", "identifier")
)
MINIMUM_ROWS_PER_LABEL: Final = 20
"""Fewer could not fill the folds of the cross-validation and those of the calibration inside."""

_NUMBERS: Final = frozenset(
    field.name for field in FIELDS_BY_USE if field.kind in ("number", "integer")
)
_EXPONENT: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?[eE][+-]?[0-9]+")
_LABELS = {"Y": 1, "N": 0}


class DataError(Exception):
    """The CSV cannot be trained on; ``faults`` names each fault with its line."""

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


def read_applications(path: Path) -> LabelledApplications:
    """Every labelled application of the CSV at ``path``.

    Raises ``DataError`` with all faults at once: columns that are missing, unknown or doubled,
    and each value that the service would refuse too, by line number. An empty cell, and a column
    that no model and no fairness check needs, may be missing.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise DataError(path, [f"it cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise DataError(path, [f"it is not UTF-8 text: {error.reason}"]) from error

    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(lines, [])
        faults = _column_faults(header)
        if faults:
            raise DataError(path, faults)
        rows = [(lines.line_num, cells) for cells in lines]
    except csv.Error as error:
        raise DataError(path, [f"line {lines.line_num}: {error}"]) from error

    applications, labels, faults = _read_rows(header, rows)
    if not faults:
        faults = _too_few(applications, labels)
    if faults:
        raise DataError(path, faults)
    return LabelledApplications(
        sha256=hashlib.sha256(content).hexdigest(),
        applications=tuple(applications),
        approved=np.array(labels, dtype=np.int64),
    )


def _column_faults(header: list[str]) -> list[str]:
    missing = [name for name in COLUMNS if name not in (*header, *_OPTIONAL)]
    unknown = [name for name in header if name not in COLUMNS]
    doubled = [name for name in COLUMNS if header.count(name) > 1]
    return [
        f"line 1: {kind} column(s): {', '.join(names)}"
        for kind, names in (("missing", missing), ("unknown", unknown), ("doubled", doubled))
        if names
    ]


def _read_rows(
    header: list[str], rows: Iterable[tuple[int, list[str]]]
) -> tuple[list[dict[str, object]], list[int], list[str]]:
    applications = []
    labels = []
    faults = []
    line_of_id: dict[object, int] = {}
    for line, cells in rows:
        if len(cells) != len(header):
            faults.append(f"line {line}: {len(cells)} cells where {len(header)} are expected")
            continue
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        application: dict[str, object] = {}
        try:
            application = read_application(
                {name: _value(name, cell) for name, cell in row.items() if cell and name != LABEL}
            )
        except InvalidInput as error:
            faults += [
                f"line {line}: {fault.field} {fault.message}, not {row.get(fault.field, '')!r}"
                for fault in error.faults
            ]
        label = _LABELS.get(row[LABEL])
        if label is None:
            faults.append(f"line {line}: {LABEL} must be Y or N, not {row[LABEL]!r}")
            continue
        # The same application in two folds would be learnt in one and asked about in the other.
        loan_id = application.get("Loan_ID")
        if loan_id in line_of_id:
            faults.append(f"line {line}: Loan_ID {loan_id!r} is on line {line_of_id[loan_id]} too")
        elif loan_id is not None:
            line_of_id[loan_id] = line
        applications.append(application)
        labels.append(label)
    return applications, labels, faults


def _value(name: str, cell: str) -> float | str:
    # A request has exponents in its numbers alone, a CSV in its text.
    return float(cell) if name in _NUMBERS and _EXPONENT.fullmatch(cell) else cell


def _too_few(applications: list[dict[str, object]], labels: list[int]) -> list[str]:
    faults = [
        f"{labels.count(label)} rows have {LABEL} {name}; at least"
        f" {MINIMUM_ROWS_PER_LABEL} are needed"
        for name, label in _LABELS.items()
        if labels.count(label) < MINIMUM_ROWS_PER_LABEL
    ]
    faults += [
        f"{name} is missing in every row"
        for name in SCORED
        if all(application[name] is None for application in applications)
    ]
    return faults

"""Read labelled applications from a CSV in the data set's schema, and check all of it first."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from services.scoring.rules import FIELD_RULES, FieldRule

Labels = npt.NDArray[np.int64]

LABEL: Final = "Loan_Status"
COLUMNS: Final = (*(rule.name for rule in FIELD_RULES), LABEL)
MINIMUM_ROWS_PER_LABEL: Final = 20
"""Fewer could not fill the folds of the cross-validation and those of the calibration inside."""

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
    and each value that is not what ``FIELD_RULES`` says, by line number. Whatever the service
    would refuse is refused here too. An empty cell is a missing value.
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
    missing = [name for name in COLUMNS if name not in header]
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
        for rule in FIELD_RULES:
            try:
                application[rule.name] = _value(rule, row[rule.name])
            except ValueError as error:
                faults.append(f"line {line}: {rule.name} {error}, not {row[rule.name]!r}")
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


def _value(rule: FieldRule, text: str) -> object:
    if not text:
        if rule.required:
            raise ValueError("is required")
        return None
    if rule.kind == "number":
        return _number(rule, text)
    if rule.kind == "category":
        return _category(rule, text)
    return text


def _number(rule: FieldRule, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("must be a number") from None
    if not isfinite(value):
        raise ValueError("must be a finite number")
    if rule.exclusive_minimum is not None and value <= rule.exclusive_minimum:
        raise ValueError(f"must be greater than {rule.exclusive_minimum:g}")
    if rule.minimum is not None and value < rule.minimum:
        raise ValueError(f"must be at least {rule.minimum:g}")
    if rule.maximum is not None and value > rule.maximum:
        raise ValueError(f"must be at most {rule.maximum:g}")
    return value


def _category(rule: FieldRule, text: str) -> object:
    for value in rule.allowed or ():
        # A column of 0, 1 and missing values is often written as 0.0 and 1.0.
        if text == str(value) or (isinstance(value, int) and text == f"{value:.1f}"):
            return value
    raise ValueError(f"must be one of: {', '.join(map(str, rule.allowed or ()))}")


def _too_few(applications: list[dict[str, object]], labels: list[int]) -> list[str]:
    faults = [
        f"{labels.count(label)} rows have {LABEL} {name}; at least"
        f" {MINIMUM_ROWS_PER_LABEL} are needed"
        for name, label in _LABELS.items()
        if labels.count(label) < MINIMUM_ROWS_PER_LABEL
    ]
    faults += [
        f"{rule.name} is missing in every row"
        for rule in FIELD_RULES
        if rule.scored and all(application[rule.name] is None for application in applications)
    ]
    return faults

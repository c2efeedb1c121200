"""Applications out of a file: its columns by the names of the contract, and all that was odd."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from shared.contract.application import FIELDS
from shared.contract.nearest import nearest
from shared.contract.spreadsheet import original
from shared.files.tables import FileError, folded, read_table

OUTCOME: Final = "Loan_Status"
"""What became of the applications of the training set; nothing that a model may see."""

DECISION_COLUMNS: Final = (
    *("line", "id", "prediction_id", "decided_at", "recorded_at", "prediction", "confidence"),
    *("probability_approved", "probability_rejected", "model", "model_accuracy", "bundle"),
    *("bundle_version", "client", "request_id", "imputed", "warnings", "fault"),
)
"""The columns of the product's own exports that are no part of an application."""

_MISSING: Final = frozenset({"na", "n/a", "#n/a", "nan", "<na>", "null", "none", "-", "?"})
_INDEX: Final = re.compile(r"(?:unnamed:\d+|index|(?:index)?level\d+)?")
"""Folded names of the columns that pandas, and who uses it, writes for row numbers."""


@dataclass(frozen=True)
class Row:
    """One row of a file: its cells by the names of their columns, None where missing."""

    line: int
    """Where it begins; in a Parquet file its number."""
    cells: Mapping[str, str | None]
    fault: str | None = None
    """Why the row as a whole cannot be read."""


@dataclass(frozen=True)
class UnknownColumn:
    """A column that no input is called, and the input it comes near, if any."""

    name: str
    nearest: str | None


@dataclass(frozen=True)
class ApplicationFile:
    """The applications of one file, as text that nobody has validated yet."""

    sha256: str
    """Of the file's bytes."""
    columns: tuple[str, ...]
    """The inputs that the file has columns for, and what else was wanted of it."""
    rows: tuple[Row, ...]
    unknown: tuple[UnknownColumn, ...] = ()
    """Left out of the rows."""
    remarks: tuple[str, ...] = ()
    """Sentences on what was left out, and on how the file was read."""
    missing: Mapping[str, int] = field(default_factory=dict)
    """How often each spelling of a missing value was found; empty cells do not count."""

    @property
    def repeated(self) -> dict[str, tuple[int, ...]]:
        """The lines of each identifier that more than one row has."""
        lines: dict[str, list[int]] = {}
        for name in (known.name for known in FIELDS if known.use == "identifier"):
            for row in self.rows:
                identifier = row.cells.get(name)
                if identifier is not None:
                    lines.setdefault(identifier, []).append(row.line)
        return {name: tuple(found) for name, found in lines.items() if len(found) > 1}


def read_applications(
    content: bytes, *, max_rows: int | None = None, also: Sequence[str] = ()
) -> ApplicationFile:
    """The applications of a file: CSV, Excel or Parquet.

    Columns are found by their names, whatever their case, spaces, ``_`` and ``-``; the required
    ones have to be there. ``also`` names columns besides the inputs that are read and have to be
    there. A row with other cells than the header is a faulty row. Raises ``FileError``.
    """
    names = {folded(name): name for name in (*(field.name for field in FIELDS), *also)}
    table = read_table(content, names)
    lines = iter(table.lines)
    header = [name.strip() for name in next(lines, (0, ()))[1]]
    places, unknown, skipped = _places(header, names)
    _refuse_lacking(header, places, unknown, also)
    missing: Counter[str] = Counter()
    rows: list[Row] = []
    for row in _rows(lines, len(header), places, missing):
        if len(rows) == max_rows:
            raise FileError(f"The file has more than {max_rows:,} rows.")
        rows.append(row)
    if not rows:
        raise FileError("The file has a header and no rows.")
    return ApplicationFile(
        sha256=sha256(content).hexdigest(),
        columns=tuple(places),
        rows=tuple(rows),
        unknown=unknown,
        remarks=(*table.remarks, *skipped),
        missing=missing,
    )


def _places(
    header: Sequence[str], names: Mapping[str, str]
) -> tuple[dict[str, int], tuple[UnknownColumn, ...], list[str]]:
    """Where each known column stands, the unknown ones, and what is said of the others."""
    places: dict[str, int] = {}
    unknown, nameless, ignored = [], [], []
    ignorable = {folded(name) for name in (OUTCOME, *DECISION_COLUMNS)}
    for place, title in enumerate(header):
        name = names.get(folded(title))
        if name in places:
            raise FileError(f"Two columns are both {name}: {header[places[name]]!r} and {title!r}.")
        if name is not None:
            places[name] = place
        elif _INDEX.fullmatch(folded(title)):
            nameless.append(title or f"column {place + 1}")
        elif folded(title) in ignorable:
            ignored.append(title)
        else:
            unknown.append(UnknownColumn(title, nearest(title, names.values())))
    remarks = []
    if nameless:
        remarks.append(f"Left out, for it has no name or is an index: {', '.join(nameless)}.")
    if ignored:
        remarks.append(f"Left out, for it is no part of an application: {', '.join(ignored)}.")
    return places, tuple(unknown), remarks


def _refuse_lacking(
    header: Sequence[str],
    places: Mapping[str, int],
    unknown: Iterable[UnknownColumn],
    also: Sequence[str],
) -> None:
    required = (*(field.name for field in FIELDS if field.required), *also)
    lacking = [name for name in required if name not in places]
    if not lacking:
        return
    if not header:
        raise FileError("The file is empty.")
    hints = [
        f" Perhaps {column.name!r} should be {column.nearest}."
        for column in unknown
        if column.nearest in lacking
    ]
    raise FileError(
        f"The first line has to name the columns, and it does not name {' and '.join(lacking)}."
        + "".join(hints)
        + f" It begins with: {', '.join(header)[:60]}"
    )


def _rows(
    lines: Iterable[tuple[int, Sequence[str]]],
    width: int,
    places: Mapping[str, int],
    missing: Counter[str],
) -> Iterator[Row]:
    for line, cells in lines:
        if len(cells) < width or any(cell.strip() for cell in cells[width:]):
            yield Row(line, {}, f"has {len(cells)} cells, the header has {width}")
            continue
        row: dict[str, str | None] = {}
        for name, place in places.items():
            cell = cells[place].strip()
            if cell.casefold() in _MISSING:
                missing[cell] += 1
                cell = ""
            row[name] = original(cell) or None
        yield Row(line, row)

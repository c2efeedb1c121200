"""Applications out of a file: its columns by the names of the contract, and all that was odd."""

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from itertools import islice
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
    *("bundle_version", "arm", "client", "request_id", "imputed", "warnings", "reasons"),
    "fault",
)
"""The columns of the product's own exports that are no part of an application."""

NO_ROWS: Final = "The file has a header and no rows."
TOO_MANY_ROWS: Final = "The file has more than {:,} rows."

_MISSING: Final = frozenset({"na", "n/a", "#n/a", "nan", "<na>", "null", "none", "-", "?"})
_INPUTS: Final = frozenset(known.name for known in FIELDS)
_SCORED: Final = tuple(known.name for known in FIELDS if known.use == "scored")
_NUMBERS: Final = frozenset(known.name for known in FIELDS if known.kind in ("number", "integer"))
_EXPONENT: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?[eE][+-]?[0-9]{1,3}")
_MOST_SENTENCES: Final = 10
_INDEX: Final = re.compile(r"(?:unnamed:\d+|index|(?:index)?level\d+)?")
"""Folded names of the columns that pandas, and who uses it, writes for row numbers."""


Cells = tuple[int, Sequence[str]]
"""A line of a file: where it begins, and its cells as they stand."""


@dataclass(frozen=True)
class Row:
    """One row of a file: its cells by the names of their columns, None where missing."""

    line: int
    """Where it begins; in a Parquet file its number."""
    cells: Mapping[str, str | None]
    fault: str | None = None
    """Why the row as a whole cannot be read."""

    @property
    def application(self) -> dict[str, str]:
        """The inputs that are not missing."""
        return {
            name: cell for name, cell in self.cells.items() if cell is not None and name in _INPUTS
        }


@dataclass(frozen=True)
class UnknownColumn:
    """A column that no input is called, and the input it comes near, if any."""

    name: str
    nearest: str | None

    @property
    def sentence(self) -> str:
        """That it is unknown, and what it should perhaps be."""
        hint = f"; perhaps it should be {self.nearest}" if self.nearest else ""
        return f"{self.name!r} is not a known column{hint}."


@dataclass(frozen=True)
class ApplicationFile:
    """The applications of one file, as text that is not validated yet."""

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


@dataclass(frozen=True)
class OpenedFile:
    """A file whose columns can be used; its lines are read as they are taken."""

    width: int
    """How many cells a line has."""
    places: Mapping[str, int]
    """Where in a line each column stands."""
    unknown: tuple[UnknownColumn, ...]
    remarks: tuple[str, ...]
    lines: Iterator[Cells]
    """Raises ``FileError`` where the file breaks off."""
    missing: Counter[str] = field(default_factory=Counter)
    """Counts the spellings of a missing value in each ``row`` that is read."""

    def row(self, line: Cells) -> Row:
        """One of the lines as a row."""
        number, cells = line
        fault = width_fault(cells, self.width)
        if fault:
            return Row(number, {}, fault)
        row = {name: meaning(name, cells[place]) for name, place in self.places.items()}
        self.missing.update(
            cells[self.places[name]].strip()
            for name, cell in row.items()
            if cell is None and cells[self.places[name]].strip()
        )
        return Row(number, row)


def open_applications(content: bytes, *, also: Sequence[str] = ()) -> OpenedFile:
    """The applications of a file, in bounded memory besides ``content``.

    Its columns are those of ``read_applications``. Raises ``FileError``.
    """
    table = read_table(content, column_names(also))
    lines = iter(table.lines)
    header = next(lines, (0, ()))[1]
    columns = usable_columns(header, also)
    return OpenedFile(
        width=len(header),
        places=columns.places,
        unknown=tuple(columns.unknown),
        remarks=(*table.remarks, *columns.remarks()),
        lines=lines,
    )


def read_applications(
    content: bytes, *, max_rows: int | None = None, also: Sequence[str] = ()
) -> ApplicationFile:
    """The applications of a file: CSV, Excel or Parquet.

    Columns are found by their names, whatever their case, spaces, ``_`` and ``-``; the required
    ones have to be there. ``also`` names columns besides the inputs that are read and have to be
    there. A row with other cells than the header is a faulty row. Raises ``FileError``.
    """
    opened = open_applications(content, also=also)
    rows: list[Row] = []
    for line in opened.lines:
        if len(rows) == max_rows:
            raise FileError(TOO_MANY_ROWS.format(max_rows))
        rows.append(opened.row(line))
    if not rows:
        raise FileError(NO_ROWS)
    return ApplicationFile(
        sha256=sha256(content).hexdigest(),
        columns=tuple(opened.places),
        rows=tuple(rows),
        unknown=opened.unknown,
        remarks=opened.remarks,
        missing=opened.missing,
    )


def column_names(also: Sequence[str] = ()) -> dict[str, str]:
    """The columns that are looked for, by their folded names."""
    return {folded(name): name for name in (*(field.name for field in FIELDS), *also)}


def usable_columns(header: Sequence[str], also: Sequence[str] = ()) -> "Columns":
    """Where each column stands in ``header``.

    Raises ``FileError`` with all that is wrong with the header, unless the rows can be read.
    """
    header = [title.strip() for title in header]
    columns = _columns(header, column_names(also))
    _refuse_unusable(header, columns, also)
    return columns


def misspelt(unknown: Iterable[UnknownColumn], columns: Container[str]) -> str:
    """Sentences on the unknown columns that come near an input which is not among ``columns``.

    Decided without that input, every row would be decided differently. Empty if there are none.
    """
    found = (each for each in unknown if each.nearest and each.nearest not in columns)
    return " ".join(each.sentence for each in islice(found, _MOST_SENTENCES))


@dataclass(frozen=True)
class Columns:
    """Where each known column stands, and the titles of all others."""

    places: dict[str, int] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)
    nameless: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unknown: list[UnknownColumn] = field(default_factory=list)

    def remarks(self) -> Iterator[str]:
        """What is left out without a question, and what is absent."""
        if self.nameless:
            yield f"Left out because it has no name or is an index: {', '.join(self.nameless)}."
        if self.ignored:
            ignored = ", ".join(self.ignored)
            yield f"Left out because it is not part of an application: {ignored}."
        yield from self.absences()

    def absences(self) -> Iterator[str]:
        """Which scored inputs the file has no column for, if any."""
        absent = [name for name in _SCORED if name not in self.places]
        if absent:
            yield f"Missing in every row because it has no column: {', '.join(absent)}."


def _columns(header: Sequence[str], names: Mapping[str, str]) -> Columns:
    columns = Columns()
    ignorable = {folded(name) for name in (OUTCOME, *DECISION_COLUMNS)}
    for place, title in enumerate(header):
        name = names.get(folded(title))
        if name in columns.places:
            columns.doubled.append(name)
        elif name is not None:
            columns.places[name] = place
        elif _INDEX.fullmatch(folded(title)):
            columns.nameless.append(title or f"column {place + 1}")
        elif folded(title) in ignorable:
            columns.ignored.append(title)
        else:
            columns.unknown.append(UnknownColumn(title, nearest(title, names.values())))
    return columns


def _refuse_unusable(header: Sequence[str], columns: Columns, also: Sequence[str]) -> None:
    required = dict.fromkeys((*(known.name for known in FIELDS if known.required), *also))
    lacking = [name for name in required if name not in columns.places]
    if not header:
        raise FileError("The file is empty.")
    if not lacking and not columns.doubled:
        return
    sentences = [f"Two columns are both {name}." for name in columns.doubled]
    if lacking:
        sentences.append(
            "The first line has to name the columns, and it does not name"
            f" {' and '.join(lacking)}. It begins with: {', '.join(header)[:60]}."
        )
    # If no column is known, this may be a row of values in a file without a header.
    sentences += [each.sentence for each in columns.unknown if columns.places or each.nearest]
    raise FileError(" ".join(sentences[:_MOST_SENTENCES]))


def width_fault(cells: Sequence[str], width: int) -> str | None:
    """What is wrong with the number of cells in a row, if anything; more blank ones are not."""
    if len(cells) < width or any(cell.strip() for cell in cells[width:]):
        there = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
        return f"has {there}, the header has {width}"
    return None


def meaning(name: str, cell: str) -> str | None:
    """What ``cell`` of a file stands for in the column of an input, None if it is missing."""
    cell = cell.strip()
    if cell.isdecimal():
        # Most numbers are that plain: to look for all else takes six times as long.
        return cell
    if cell.casefold() in _MISSING:
        return None
    return _plain(name, original(cell)) or None


def _plain(name: str, cell: str) -> str:
    """``cell`` without an exponent, which the contract knows in JSON numbers alone."""
    if name in _NUMBERS and _EXPONENT.fullmatch(cell):
        return f"{Decimal(cell):f}"
    return cell

"""From the bytes of a file to checked chunks of applications. It connects to nothing."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic_core import from_json, to_json

from services.batch.jobs import Kind
from shared.contract.application import FIELDS
from shared.contract.errors import Fault, InvalidInput
from shared.contract.parsing import has_income, parse_application, read_application, read_input
from shared.files.applications import (
    NO_ROWS,
    TOO_MANY_ROWS,
    ApplicationFile,
    Cells,
    OpenedFile,
    UnknownColumn,
    meaning,
    misspelt,
    open_applications,
)
from shared.files.spellings import applied, notation_of, spelt
from shared.files.tables import FileError

CHUNK_ROWS: Final = 1000
"""Decided, kept and published together, for three transactions, one of which waits for the disk."""
MAX_LINE_BYTES: Final = 64 * 1024
"""Of an application in NDJSON, as in the body of a single request."""

MEDIA_TYPES: Final[Mapping[str, Kind]] = {
    "text/csv": "csv",
    "application/x-ndjson": "ndjson",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
_LOOKS: Final[Mapping[Kind | None, str]] = {
    "parquet": "a Parquet file",
    "xlsx": "an Excel file",
    None: "text",
}
_MAGIC: Final[Mapping[Kind, bytes]] = {"parquet": b"PAR1", "xlsx": b"PK\x03\x04"}
_MOST_TRIED: Final = 100
"""Faulty cells for which a spelling is looked for, which takes time."""
_NAMES: Final = tuple(field.name for field in FIELDS)
_FAULTY: Final = object()
_UNREAD: Final = {"": _FAULTY}
_CODEC: Final = "zstd"
"""A chunk becomes a twentieth as large in 0.6 ms; zlib takes four times as long for a fifteenth."""


class Checked(NamedTuple):
    """An application that can be decided."""

    line: int
    application: dict[str, Any]


class Faulty(NamedTuple):
    """A row that cannot be decided, and all that is wrong with it."""

    line: int
    loan_id: str | None
    faults: list[Fault]


@dataclass(frozen=True)
class CheckedChunk:
    """Consecutive rows of a file."""

    checked: list[Checked]
    faulty: list[Faulty]

    @property
    def rows(self) -> int:
        """How many rows of the file it holds."""
        return len(self.checked) + len(self.faulty)

    @property
    def lines(self) -> tuple[int, int]:
        """Its first and its last line."""
        lines = [row.line for row in self.checked] + [row.line for row in self.faulty]
        return min(lines), max(lines)


@dataclass
class CheckedFile:
    """A file whose rows are checked as its chunks are taken."""

    chunks: Iterator[CheckedChunk]
    """Raises ``FileError`` where the file cannot be read any further, or has too many rows."""
    remarks: list[str] = field(default_factory=list)
    """Sentences on what was left out and how the file was read; all once the chunks are taken."""
    misspelt: str = ""
    """Sentences on the columns that are probably misspelt."""


@dataclass
class _Oddities:
    """What is remarked on once all rows are read."""

    missing: Counter[str] = field(default_factory=Counter)
    """How often each spelling of a missing value was found."""
    readable: dict[str, str] = field(default_factory=dict)
    """A faulty cell for each spelling that would read it."""
    tried: int = 0
    loan_ids: "array[int]" = field(default_factory=lambda: array("q"))
    """Hashes of all that are given, in eight bytes each."""

    def see(self, name: str, cell: str) -> None:
        """Find a spelling that reads a faulty cell."""
        self.tried += 1
        key = notation_of(name, cell) if self.tried <= _MOST_TRIED else None
        if key is not None:
            self.readable.setdefault(key, f"{cell!r} in {name}")

    def remarks(self) -> Iterator[str]:
        """A sentence on each."""
        for marker, times in self.missing.items():
            cells = "1 cell" if times == 1 else f"{times:,} cells"
            yield f"{marker} counts as a missing value, in {cells}."
        repeated = len(self.loan_ids) - len(np.unique(self.loan_ids))
        if repeated:
            rows = "1 row repeats" if repeated == 1 else f"{repeated:,} rows repeat"
            yield f"{rows} the Loan_ID of an earlier row."
        for key, cell in self.readable.items():
            yield f"The spelling {key!r} would read faulty cells such as {cell}."


def check(
    content: bytes, kind: Kind, *, max_rows: int, spellings: Sequence[str] = ()
) -> CheckedFile:
    """Begin to check a file; raises ``FileError`` if its header or its form cannot be used.

    An application is read as in the body of a single request. Memory is bounded besides
    ``content``.
    """
    _refuse_other_kinds(content, kind)
    unsure = ""
    oddities = _Oddities()
    if kind == "ndjson":
        rows: Iterator[Checked | Faulty] = _json_lines(content)
        remarks: list[str] = []
    else:
        opened = open_applications(content)
        rows = _table_rows(opened, spellings, oddities)
        remarks = [*opened.remarks, *map(_left_out, opened.unknown)]
        unsure = misspelt(opened.unknown, opened.places)
    first = next(rows, None)
    if first is None:
        raise FileError(NO_ROWS)
    if kind == "ndjson" and isinstance(first, Faulty) and first.faults[0].field == "body":
        # An array, JSON over several lines, or no JSON at all: so no line would be one.
        raise FileError(
            f"Line {first.line} {first.faults[0].message}. In NDJSON each line is one application."
        )
    return CheckedFile(_chunks(first, rows, max_rows, oddities, remarks), remarks, unsure)


def _refuse_other_kinds(content: bytes, kind: Kind) -> None:
    if not content:
        raise FileError("The file is empty.")
    found: Kind | None = next((each for each, m in _MAGIC.items() if content.startswith(m)), None)
    if found == (kind if kind in _MAGIC else None):
        return
    fitting = [
        name for name, each in MEDIA_TYPES.items() if (each if each in _MAGIC else None) == found
    ]
    sent = next(name for name, each in MEDIA_TYPES.items() if each == kind)
    raise FileError(
        f"The file looks like {_LOOKS[found]}, but its Content-Type is {sent}; send it as"
        f" {' or '.join(fitting)}."
    )


def _left_out(column: UnknownColumn) -> str:
    hint = f"; perhaps it should be {column.nearest}" if column.nearest else ""
    return f"Left out because it is not a known column: {column.name!r}{hint}."


def _chunks(
    first: Checked | Faulty,
    rows: Iterator[Checked | Faulty],
    max_rows: int,
    oddities: _Oddities,
    remarks: list[str],
) -> Iterator[CheckedChunk]:
    total = 0
    chunk = [first, *islice(rows, CHUNK_ROWS - 1)]
    while chunk:
        total += len(chunk)
        if total > max_rows:
            raise FileError(TOO_MANY_ROWS.format(max_rows))
        checked = [row for row in chunk if isinstance(row, Checked)]
        faulty = [row for row in chunk if isinstance(row, Faulty)]
        loan_ids = chain(
            (row.application["Loan_ID"] for row in checked), (r.loan_id for r in faulty)
        )
        oddities.loan_ids.extend(hash(loan_id) for loan_id in loan_ids if loan_id is not None)
        yield CheckedChunk(checked, faulty)
        chunk = list(islice(rows, CHUNK_ROWS))
    remarks += oddities.remarks()


def _table_rows(
    file: OpenedFile, spellings: Sequence[str], oddities: _Oddities
) -> Iterator[Checked | Faulty]:
    while some := list(islice(file.lines, CHUNK_ROWS)):
        whole = [cells for _, cells in some if len(cells) == file.width]
        columns = list(zip(*whole, strict=True))
        values = [
            _values(name, columns[file.places[name]], spellings, oddities)
            if columns and name in file.places
            else repeat(None)
            for name in _NAMES
        ]
        applications = (dict(zip(_NAMES, row, strict=True)) for row in zip(*values, strict=False))
        for line in some:
            application = next(applications) if len(line[1]) == file.width else _UNREAD
            if _FAULTY in application.values() or not has_income(application):
                yield _row_by_itself(file, line, spellings)
            else:
                yield Checked(line[0], application)


def _values(
    name: str, cells: Sequence[str], spellings: Sequence[str], oddities: _Oddities
) -> Iterator[Any]:
    """The value of each cell in a column; ``_FAULTY`` for one that cannot be read.

    Most cells repeat, so each distinct one is read once.
    """

    def value(cell: str) -> Any:
        meant = meaning(name, cell)
        if meant is None and cell.strip():
            oddities.missing[cell.strip()] += cells.count(cell)
        if meant and spellings:
            meant = spelt(spellings, name, meant)
        try:
            return read_input(name, meant)
        except ValueError:
            if meant:
                oddities.see(name, meant)
            return _FAULTY

    return map({cell: value(cell) for cell in set(cells)}.__getitem__, cells)


def _row_by_itself(file: OpenedFile, line: Cells, spellings: Sequence[str]) -> Checked | Faulty:
    """A row that is read as a whole, for all its faults."""
    table = ApplicationFile("", tuple(file.places), (file.row(line),))
    [row] = applied(table, spellings).rows
    if row.fault is not None:
        return Faulty(row.line, None, [Fault(field="row", message=row.fault)])
    try:
        return Checked(row.line, read_application(row.application))
    except InvalidInput as error:
        return Faulty(row.line, row.cells.get("Loan_ID"), error.faults)


def _json_lines(content: bytes) -> Iterator[Checked | Faulty]:
    line, start = 0, 3 if content.startswith(b"\xef\xbb\xbf") else 0
    while start < len(content):
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        line += 1
        # Bounded before it is copied: a file may be one line.
        text = content[start : min(end, start + MAX_LINE_BYTES + 1)].strip()
        start = end + 1
        if text:
            yield _json_line(line, text)


def _json_line(line: int, text: bytes) -> Checked | Faulty:
    if len(text) > MAX_LINE_BYTES:
        message = f"has more than {MAX_LINE_BYTES} bytes"
        return Faulty(line, None, [Fault(field="row", message=message)])
    try:
        return Checked(line, parse_application(text))
    except InvalidInput as error:
        return Faulty(line, _loan_id(text), error.faults)


def _loan_id(text: bytes) -> str | None:
    try:
        found = from_json(text)
    except ValueError:
        return None
    loan_id = found.get("Loan_ID") if isinstance(found, dict) else None
    return loan_id if isinstance(loan_id, str) else None


# --- How rows are kept ----------------------------------------------------------------------------


def packed(lines: Iterable[bytes]) -> bytes:
    """JSON documents, one a line, compressed."""
    return _compressed(b"\n".join(lines))


def unpacked(content: bytes) -> list[bytes]:
    """What ``packed`` was given."""
    text = _decompressed(content)
    return text.split(b"\n") if text else []


def _compressed(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, codec=_CODEC, asbytes=True)
    return packed


def _decompressed(content: bytes) -> bytes:
    text: bytes = pa.input_stream(pa.py_buffer(content), compression=_CODEC).read()
    return text


def packed_rows(rows: Sequence[Checked] | Sequence[Faulty]) -> bytes:
    """Checked or faulty rows, as one JSON document, compressed."""
    # Plain tuples: it takes twice as long to find out that named ones are tuples.
    return _compressed(to_json([tuple(row) for row in rows]))


def checked_rows(content: bytes) -> list[Checked]:
    """What ``packed_rows`` made of checked rows."""
    return [Checked(*row) for row in from_json(_decompressed(content))]


def faulty_rows(content: bytes) -> list[Faulty]:
    """What ``packed_rows`` made of faulty rows; each fault is a dictionary."""
    return [Faulty(*row) for row in from_json(_decompressed(content))]

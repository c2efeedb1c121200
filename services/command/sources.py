"""The rows of large files, in chunks that each worker reads by itself.

A chunk is a few row groups of a Parquet file, or the bytes of some whole lines of a CSV file: no
file is ever held in memory. Cells mean what they mean to ``shared.files``.
"""

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from services.command.storage import FileLocation
from shared.files.applications import column_names, width_fault
from shared.files.tables import (
    Dialect,
    FileError,
    csv_lines,
    decoded,
    dialect_of,
    reading,
    refuse_other_formats,
    separator_remarks,
    utf_16,
)

Format = Literal["csv", "parquet"]

_START_BYTES: Final = 16
_BLOCK_BYTES: Final = 4 * 2**20
_MAX_LINE_BYTES: Final = 64 * 2**20
_CHUNK_ROWS: Final = 100_000
"""Row groups are put together until they have so many rows; one that has more is a chunk."""
BATCH_ROWS: Final = 65_536
"""How many rows of a Parquet file are held at a time."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a file, in order."""

    table: pa.Table
    lines: "range | list[int]"
    """Where each begins; in a Parquet file its number."""
    faults: Mapping[int, str]
    """Rows that are not in the table, by line: what is wrong with their form."""


@dataclass(frozen=True)
class ParquetChunk:
    """Row groups of a Parquet file."""

    location: FileLocation
    row_groups: tuple[int, ...]
    rows_before: int
    size: int

    def rows(self) -> Iterator[Rows]:
        """The rows, a bounded number at a time."""
        before = self.rows_before
        with open_parquet(self.location) as file:
            for batch in file.iter_batches(
                BATCH_ROWS, row_groups=list(self.row_groups), use_threads=False
            ):
                table = pa.Table.from_batches([batch]).replace_schema_metadata()
                yield Rows(table, range(before + 1, before + 1 + len(table)), {})
                before += len(table)


@dataclass(frozen=True)
class CsvChunk:
    """Whole lines of a CSV file."""

    location: FileLocation
    header: tuple[str, ...]
    dialect: Dialect
    content: bytes
    lines_before: int

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content)

    def rows(self) -> Iterator[Rows]:
        """The rows, all at once."""
        yield self._plain_rows() or self._exact_rows()

    def _plain_rows(self) -> Rows | None:
        """The rows if each line is one, with a cell for each column: read many times faster."""
        if not self.lines_before or b'"' in self.content or b"\0" in self.content:
            return None
        names = [str(place) for place in range(len(self.header))]
        try:
            table = arrow_csv.read_csv(
                io.BytesIO(self.content),
                arrow_csv.ReadOptions(
                    column_names=names, use_threads=False, block_size=len(self.content) + 1
                ),
                arrow_csv.ParseOptions(
                    delimiter=self.dialect.separator, quote_char=False, ignore_empty_lines=False
                ),
                arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
            )
        except pa.ArrowInvalid:
            return None
        first = self.lines_before + 1
        lines = line_breaks(self.content) + (self.content[-1:] not in b"\r\n")
        if len(table) != lines or _has_blank_row(table):
            return None
        return Rows(table.rename_columns(self.header), range(first, first + len(table)), {})

    def _exact_rows(self) -> Rows:
        text, _ = decoded(self.content)
        lines = csv_lines(text, self.dialect, lines_before=self.lines_before)
        if not self.lines_before:
            next(lines)
        width = len(self.header)
        faults, numbers, rows = {}, [], []
        for line, cells in lines:
            fault = width_fault(cells, width)
            if fault:
                faults[line] = fault
            else:
                numbers.append(line)
                rows.append(cells[:width])
        columns = zip(*rows, strict=True) if rows else [()] * width
        arrays = [pa.array(column, pa.string()) for column in columns]
        return Rows(pa.Table.from_arrays(arrays, names=list(self.header)), numbers, faults)


Chunk = ParquetChunk | CsvChunk


@dataclass(frozen=True)
class Source:
    """One file of applications."""

    location: FileLocation
    schema: pa.Schema
    """Its columns, as they stand there."""
    size: int
    """In rows of a Parquet file, in bytes of a CSV file."""
    dialect: Dialect | None
    """Of a CSV file."""
    remarks: tuple[str, ...] = ()
    """Sentences on how it is read."""

    @property
    def kind(self) -> Format:
        """What kind of file it is."""
        return "csv" if self.dialect else "parquet"

    def chunks(self) -> Iterator[Chunk]:
        """All rows, in order; raises ``FileError`` while they are taken."""
        with named(self.location):
            yield from self._lines(self.dialect) if self.dialect else self._row_groups()

    def _row_groups(self) -> Iterator[ParquetChunk]:
        with open_parquet(self.location) as file:
            sizes = [
                file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)
            ]
        first, before, rows = 0, 0, 0
        for number, size in enumerate(sizes):
            rows += size
            if rows >= _CHUNK_ROWS or (rows and number == len(sizes) - 1):
                yield ParquetChunk(self.location, tuple(range(first, number + 1)), before, rows)
                first, before, rows = number + 1, before + rows, 0

    def _lines(self, dialect: Dialect) -> Iterator[CsvChunk]:
        header = tuple(self.schema.names)
        before = 0
        for content in _whole_records(_blocks(self.location), dialect):
            yield CsvChunk(self.location, header, dialect, content, before)
            before += line_breaks(content)


@contextmanager
def named(location: FileLocation) -> Iterator[None]:
    """Say of which file a ``FileError`` is."""
    try:
        yield
    except FileError as error:
        raise FileError(f"{location}: {error}") from None


def open_source(location: FileLocation) -> Source:
    """The file at ``location``, of which only the start or the end is read.

    Raises ``FileError`` if it is no table or lacks a column, with all that is wrong with it.
    """
    with location.opened() as file:
        start = file.read(_START_BYTES)
    if start.startswith(b"PAR1"):
        with reading("Parquet"), open_parquet(location) as parquet_file:
            schema = parquet_file.schema_arrow.remove_metadata()
            size = parquet_file.metadata.num_rows
        return Source(location, schema, size, None)
    if start.startswith(b"PK"):
        raise FileError("This is an Excel file or an archive; save the table as CSV or Parquet.")
    refuse_other_formats(start)
    start = next(_blocks(location), b"")
    # A character may be cut at the end.
    text, remarks = decoded(start[: start.rfind(b"\n") + 1] or start)
    dialect = dialect_of(text, column_names())
    _, header = next(csv_lines(text, dialect), (0, ()))
    schema = pa.schema([(title, pa.string()) for title in header])
    remarks += separator_remarks(dialect)
    return Source(location, schema, location.size(), dialect, tuple(remarks))


def _blocks(location: FileLocation) -> Iterator[bytes]:
    """The text of a file in blocks, UTF-16 as UTF-8."""
    with location.opened() as file:
        blocks = iter(lambda: file.read(_BLOCK_BYTES), b"")
        start = next(blocks, b"")
        encoding = utf_16(start)
        if encoding is None:
            yield start
            yield from blocks
            return
        decoder = codecs.getincrementaldecoder(encoding)()
        yield decoder.decode(start).removeprefix("\ufeff").encode()
        for block in blocks:
            yield decoder.decode(block).encode()


def line_breaks(content: bytes) -> int:
    """How many lines end in ``content``, as csv counts them."""
    return content.count(b"\n") + content.count(b"\r") - content.count(b"\r\n")


def _has_blank_row(table: pa.Table) -> bool:
    blank: Any = True
    for column in table.columns:
        blank = pc.and_(blank, pc.equal(pc.utf8_trim_whitespace(column), ""))
        if not pc.any(blank).as_py():
            return False
    return True


def _whole_records(blocks: Iterable[bytes], dialect: Dialect) -> Iterator[bytes]:
    held, lines = b"", 0
    for block in blocks:
        held += block
        end = _end_of_records(held, dialect, lines)
        if end:
            yield held[:end]
            lines += line_breaks(held[:end])
            held = held[end:]
        elif len(held) > _MAX_LINE_BYTES:
            raise FileError(f"The file is not a CSV file: line {lines + 1} does not end.")
    if held:
        yield held


def _end_of_records(content: bytes, dialect: Dialect, lines_before: int) -> int:
    """Where the last line ends that is complete; 0 if none is."""
    if b'"' not in content:
        # The line feed after a carriage return at the very end may be still to come.
        return content.rfind(b"\n") + 1 or content.rfind(b"\r", 0, len(content) - 1) + 1
    # For the structure, any encoding that keeps ASCII does.
    lines = io.StringIO(content.decode("latin-1"), newline="")
    taken = complete = before = 0

    def counted() -> Iterator[str]:
        nonlocal taken
        for line in lines:
            taken += len(line)
            yield line

    reader = csv.reader(counted(), delimiter=dialect.separator, strict=True)
    try:
        for _ in reader:
            before, complete = complete, taken
    except csv.Error as error:
        if not complete and "unexpected end" not in str(error):
            line = lines_before + reader.line_num
            raise FileError(f"The file is not a CSV file: {error} (line {line}).") from None
        return complete
    return complete if content.endswith(b"\n") else before


def open_parquet(location: FileLocation) -> Any:
    """The Parquet file at ``location``; the library raises what it likes if it is damaged."""
    # Buffered are all columns of a row group, which spares a distant store many requests.
    buffered = not location.is_local
    return parquet.ParquetFile(location.path, filesystem=location.store, pre_buffer=buffered)

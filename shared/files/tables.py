"""The bytes of a file as a table of text cells: CSV in any common dialect, Excel and Parquet."""

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import IO, Any, Final, NamedTuple

from shared.contract.application import FIELDS

SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
MAX_UNPACKED_BYTES: Final = 200 * 1024 * 1024
"""What a packed file may unpack to."""
MAX_COLUMNS: Final = 256

_SEPARATOR_LINE: Final = re.compile(r'"?sep=([^"])"?', re.IGNORECASE)
_UTF_16: Final = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_TYPOGRAPHY: Final = frozenset("\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u20ac\u00a3\u00b0\u00a0")
_OTHER_FORMATS: Final = {
    b"\xd0\xcf\x11\xe0": "This is an old Excel file (.xls); save it as .xlsx or CSV.",
    b"PK\x03\x04": "This is an archive, not an Excel file; unpack it first.",
    b"\x1f\x8b": "This file is compressed; unpack it first.",
    b"%PDF": "This is a PDF; export the table as CSV.",
    b"{": "This is JSON; export the table as CSV.",
    b"[": "This is JSON; export the table as CSV.",
}
_NEEDS_EXTRA: Final = "{format} files need the extra 'files' of this product; save it as CSV."


class FileError(Exception):
    """The file as a whole cannot be used; the message is the sentence to show."""


@dataclass
class RawTable:
    """Lines of cells, each with its number in the file; the first is the header."""

    lines: Iterable[tuple[int, Sequence[str]]]
    remarks: list[str] = field(default_factory=list)
    """Sentences on how the file was read, where that was not plain."""


def read_table(content: bytes, names: Collection[str]) -> RawTable:
    """The lines that are not blank, lazily; ``names`` are folded names of columns to expect.

    Raises ``FileError``, while the lines are taken, too.
    """
    if content.startswith(b"PAR1"):
        return RawTable(_parquet(content))
    if content.startswith(b"PK\x03\x04") and b"xl/" in content:
        return _excel(content)
    refuse_other_formats(content)
    return _text(content, names)


def refuse_other_formats(content: bytes) -> None:
    """Raise ``FileError`` if ``content`` begins as no table does, with what to do about it."""
    for start, sentence in _OTHER_FORMATS.items():
        if content.startswith(start):
            raise FileError(sentence)


def folded(name: str) -> str:
    """``name`` without what does not matter in a column's name: case, spaces, _ and -."""
    return re.sub(r"[\s_-]+", "", name).casefold()


_BOOLEANS: Final = {(0, 1): ("0", "1"), ("Yes", "No"): ("No", "Yes")}
_INPUTS_OF_BOOLEANS: Final = {
    folded(each.name): _BOOLEANS[each.allowed] for each in FIELDS if each.allowed in _BOOLEANS
}
"""What false and true stand for in a column of theirs, as in JSON."""


class Dialect(NamedTuple):
    """How a CSV file separates its cells."""

    separator: str
    is_stated: bool
    """Whether the first line states it, as Excel's ``sep=;`` does."""


def dialect_of(text: str, names: Collection[str]) -> Dialect:
    """The dialect of a CSV file that begins with ``text``."""
    # Lines are counted as csv counts them: by \r\n, \n or \r.
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "").strip("\n")
    stated = _SEPARATOR_LINE.fullmatch(first)
    return Dialect(stated[1] if stated else _separator(first, names), stated is not None)


def _text(content: bytes, names: Collection[str]) -> RawTable:
    text, remarks = decoded(content)
    dialect = dialect_of(text, names)
    return RawTable(csv_lines(text, dialect), [*remarks, *separator_remarks(dialect)])


def separator_remarks(dialect: Dialect) -> list[str]:
    """A sentence on the separator, unless it is the usual one."""
    separator = dialect.separator
    if separator == ",":
        return []
    return [f"Cells are separated by {SEPARATORS.get(separator, repr(separator))}."]


def csv_lines(
    text: str, dialect: Dialect, *, lines_before: int = 0
) -> Iterator[tuple[int, Sequence[str]]]:
    """The lines of a CSV file, or of its rest after so many lines, that are not blank.

    Raises ``FileError`` while they are taken.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=dialect.separator, strict=True)
    before = lines_before
    skip = dialect.is_stated and not lines_before
    try:
        for cells in reader:
            # A quoted cell may hold line breaks; a line is named by where it begins.
            line, before = before + 1, lines_before + reader.line_num
            if not "".join(cells).strip():
                continue
            if skip:
                skip = False
                continue
            yield line, cells
    except csv.Error as error:
        line = lines_before + reader.line_num
        raise FileError(f"The file is not a CSV file: {error} (line {line}).") from None


def _separator(first: str, names: Collection[str]) -> str:
    """The separator that makes the most of the first line columns that are known."""

    def known(separator: str) -> int:
        try:
            cells = next(csv.reader([first], delimiter=separator), [])
        except csv.Error:
            return 0
        return sum(folded(cell) in names for cell in cells)

    return max(SEPARATORS, key=known)


def utf_16(start: bytes) -> str | None:
    """The encoding of a text that starts so, if it is UTF-16."""
    return _UTF_16.get(start[:2]) or _utf_16_without_mark(start)


def decoded(content: bytes) -> tuple[str, list[str]]:
    """The text in ``content``, with sentences on its encoding; raises ``FileError``."""
    encoding = utf_16(content)
    if encoding:
        try:
            return content.decode(encoding).removeprefix("\ufeff"), ["The text is UTF-16."]
        except UnicodeDecodeError as error:
            raise FileError(f"The file is broken UTF-16 text: {error.reason}.") from None
    if b"\0" in content:
        raise FileError("The file is not a text, Excel or Parquet file; save the table as CSV.")
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = f"line {line} has the byte 0x{content[error.start]:02x}"
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        text = "\ufffd"
    if not all(c.isascii() or c.isalpha() or c in _TYPOGRAPHY for c in text) or "\ufffd" in text:
        raise FileError(
            f"The file is not UTF-8 text ({found}), nor certainly any other; save it as CSV UTF-8."
        )
    return text, [f"The text is read as Windows-1252 because it is not UTF-8 ({found})."]


def _utf_16_without_mark(content: bytes) -> str | None:
    """UTF-16 of mostly ASCII text has a zero in every other byte, and no other text has any."""
    start = content[:512]
    zeros = start[::2].count(0), start[1::2].count(0)
    if max(zeros) * 4 < len(start) or min(zeros) > 0:
        return None
    return "utf-16-be" if zeros[0] else "utf-16-le"


def _excel(content: bytes) -> RawTable:
    try:
        import openpyxl  # noqa: PLC0415 - of an extra
    except ImportError:
        raise FileError(_NEEDS_EXTRA.format(format="Excel")) from None
    # What a file has besides its cells is not looked at.
    warnings.filterwarnings("ignore", module="openpyxl")
    with reading("Excel"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked_bytes = sum(member.file_size for member in archive.infolist())
        if unpacked_bytes > MAX_UNPACKED_BYTES:
            raise FileError("The Excel file unpacks to more than 200 MB.")
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheet = book.worksheets[0]
    remarks = []
    if len(book.worksheets) > 1:
        remarks = [f"Of {len(book.worksheets)} sheets the first is read: {sheet.title}."]
    return RawTable(_excel_lines(sheet), remarks)


def _excel_lines(sheet: Any) -> Iterator[tuple[int, Sequence[str]]]:
    # What the sheet says of its own size is not relied on, and may be far too large.
    sheet.reset_dimensions()
    width = 0
    titles: Sequence[str] = [""] * MAX_COLUMNS
    # There is no public way to what a sheet holds of both a formula and its result.
    with reading("Excel"), sheet._get_source() as source:  # noqa: SLF001 - as above
        calculated = _calculated_rows(source)
        for line, row in enumerate(sheet.iter_rows(values_only=True, max_col=MAX_COLUMNS), start=1):
            # Never behind: the blank rows that the source leaves out are in ``row`` only.
            next(calculated, None)
            cells = [cell_text(*cell) for cell in zip(row, titles, strict=False)]
            used = max((i for i, cell in enumerate(cells, start=1) if cell.strip()), default=0)
            if used:
                # Unlike in a text file, a row has no end of its own.
                if not width:
                    width, titles = used, cells
                yield line, cells[: max(used, width)]


def _calculated_rows(source: IO[bytes]) -> Iterator[None]:
    """Take the rows of a sheet one by one; ``FileError`` for a formula without a stored result.

    To the library such a cell is an empty one.
    """
    from openpyxl.xml.functions import iterparse  # noqa: PLC0415 - of an extra

    is_formula = False
    for _, element in iterparse(source):
        kind = element.tag.rpartition("}")[2]
        if kind == "f":
            is_formula = True
        elif kind == "c" and is_formula:
            is_formula = False
            # The result of a formula may be an empty text.
            result = element.find("{*}v")
            if result is None or (not result.text and element.get("t") != "str"):
                raise FileError(
                    f"Cell {element.get('r', '')} is a formula without a stored result; open the"
                    " file in Excel and save it."
                )
        elif kind == "row":
            element.clear()
            yield


def _parquet(content: bytes) -> Iterator[tuple[int, Sequence[str]]]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - of an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise FileError(_NEEDS_EXTRA.format(format="Parquet")) from None
    with reading("Parquet"):
        file = parquet.ParquetFile(pa.BufferReader(content))
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        if sum(group.total_byte_size for group in groups) > MAX_UNPACKED_BYTES:
            raise FileError("The Parquet file unpacks to more than 200 MB.")
        titles = file.schema_arrow.names
        yield 0, titles
        line = 0
        for batch in file.iter_batches(batch_size=1000):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                line += 1
                yield line, [cell_text(*cell) for cell in zip(row, titles, strict=True)]


@contextmanager
def reading(format_: str) -> Iterator[None]:
    """Turn whatever a library raises because of a damaged file into ``FileError``."""
    try:
        yield
    except FileError:
        raise
    except zipfile.BadZipFile:
        raise FileError(f"The {format_} file is damaged or incomplete.") from None
    except Exception as error:  # noqa: BLE001 - there is no list of them
        reason = " ".join(str(error).split()).removesuffix(".")
        raise FileError(f"The {format_} file cannot be read: {reason}.") from None


def cell_text(value: object, title: str) -> str:
    """A typed cell, in the column of that title, as CSV would hold it; raises ``FileError``."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return _INPUTS_OF_BOOLEANS.get(folded(title), ("FALSE", "TRUE"))[value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise FileError(
                f"{title} has bytes that are not UTF-8 text: 0x{value[:8].hex()}."
            ) from None
    if isinstance(value, float | Decimal):
        return f"{Decimal(str(value or 0)).normalize():f}"  # of minus zero, zero
    return str(value)

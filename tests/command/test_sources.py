"""Large files in chunks: whatever the size of a chunk, the rows of the file."""

from pathlib import Path
from typing import Final

import pyarrow as pa
import pytest
from pyarrow import parquet

from services.command import sources
from services.command.sources import open_source
from services.command.storage import FileLocation
from shared.files.applications import column_names, width_fault
from shared.files.tables import FileError, read_table

_HEADER: Final = "Loan_ID,ApplicantIncome,Note"
_FILES: Final = {
    "plain": f"{_HEADER}\nA,1,x\nB,2,y\nC,3,z\n",
    "no line break at the end": f"{_HEADER}\nA,1,x\nB,2,y",
    "line breaks of Windows": f"{_HEADER}\r\nA,1,x\r\nB,2,y\r\n",
    "line breaks of old": f"{_HEADER}\rA,1,x\rB,2,y\r",
    "mixed line breaks": f"{_HEADER}\r\nA,1,x\rB,2,y\nC,3,z",
    "quotes": f'{_HEADER}\nA,1,"x, ""y"""\nB,2,"two\nlines"\nC,3,5" pipe\nD,4,"\r\n"\nE,5,z\n',
    "quotes to the end": f'{_HEADER}\nA,1,"x"\nB,2,"y"',
    "blank lines": f"\n\n{_HEADER}\n\nA,1,x\n  \n,,\nB,2,y\n , ,\t\n\n",
    "other cells": f"{_HEADER}\nA,1\nB,2,y,,\nC,3,z,4\nD\nE,5,w\n",
    "semicolons": "Loan_ID;ApplicantIncome;Note\nA;1;x,y\nB;2;z\n",
    "a stated separator": "sep=|\nLoan_ID|ApplicantIncome|Note\nA|1|x\nB|2|y\n",
    "accents": f"{_HEADER}\nÄ,1,x\nÖ,2,ÿ\nC,3,z\n",
}
_ENCODINGS: Final = ("utf-8", "utf-8-sig", "utf-16", "cp1252")


def _rows_of(location: FileLocation) -> list[tuple[int, object]]:
    source = open_source(location)
    found: list[tuple[int, object]] = []
    for chunk in source.chunks():
        for rows in chunk.rows():
            cells = zip(*(column.to_pylist() for column in rows.table.columns), strict=True)
            found += [*zip(rows.lines, map(tuple, cells), strict=True), *rows.faults.items()]
    return sorted(found)


@pytest.mark.parametrize("encoding", _ENCODINGS)
@pytest.mark.parametrize("name", _FILES)
def test_chunks_of_any_size_have_the_rows_of_the_file(
    name: str, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cell, each line number and each row with other cells than the header."""
    content = _FILES[name].encode(encoding)
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    (_, header), *lines = read_table(content, column_names()).lines
    expected = [
        (line, width_fault(cells, len(header)) or tuple(cells[: len(header)]))
        for line, cells in lines
    ]
    for size in (48, 100, 2**20):
        monkeypatch.setattr(sources, "_BLOCK_BYTES", size * (2 if encoding == "utf-16" else 1))
        assert _rows_of(FileLocation.of(str(path))) == expected, size


def test_syntax_that_is_no_csv_is_named_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the chunks end."""
    path = tmp_path / "file.csv"
    path.write_text(f'{_HEADER}\nA,1,x\nB,2,"y"z\nC,3,z\n')
    for size in (64, 2**20):
        monkeypatch.setattr(sources, "_BLOCK_BYTES", size)
        with pytest.raises(FileError, match=r"not a CSV file.*line 3"):
            _rows_of(FileLocation.of(str(path)))


def test_quote_that_never_ends_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It might be the whole rest of the file."""
    path = tmp_path / "file.csv"
    path.write_text(f'{_HEADER}\nA,1,"' + "x\n" * 1000)
    monkeypatch.setattr(sources, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(sources, "_MAX_LINE_BYTES", 256)
    with pytest.raises(FileError, match="line 2 does not end"):
        _rows_of(FileLocation.of(str(path)))


def test_row_groups_are_put_together_and_each_row_has_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few rows are no chunk of their own, and a large group is read piece by piece."""
    path = tmp_path / "file.parquet"
    table = pa.table({"ApplicantIncome": range(1, 101)})
    with parquet.ParquetWriter(path, table.schema) as writer:
        for start, size in ((0, 3), (3, 4), (7, 50), (57, 1), (58, 42)):
            writer.write_table(table.slice(start, size))
    monkeypatch.setattr(sources, "_CHUNK_ROWS", 5)
    monkeypatch.setattr(sources, "BATCH_ROWS", 20)
    location = FileLocation.of(str(path))
    assert [chunk.size for chunk in open_source(location).chunks()] == [7, 50, 43]
    assert _rows_of(location) == [(number, (number,)) for number in range(1, 101)]

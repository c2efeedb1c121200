"""Outcomes out of a file: CSV, or Excel and Parquet where the extra ``files`` is installed."""

from collections.abc import Iterator
from typing import Final

from shared.contract.spreadsheet import original
from shared.files.tables import FileError, folded, read_table

OUTCOME_COLUMNS: Final = (
    *("prediction_id", "loan_id", "which", "outcome", "observed_at", "matures_at", "source"),
)
_REQUIRED: Final = ("outcome", "observed_at")
_MIDNIGHT: Final = " 00:00:00"
"""What a cell of Excel that holds a day has after it."""


def read_outcome_rows(content: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row's line and its cells by their columns; empty cells and other columns are left out.

    Columns are found by their names, whatever their case, spaces, ``_`` and ``-``. Raises
    ``FileError``, while the rows are taken, too.
    """
    names = {folded(name): name for name in OUTCOME_COLUMNS}
    lines = iter(read_table(content, names).lines)
    header = [names.get(folded(title)) for title in next(lines, (0, ()))[1]]
    lacking = [name for name in _REQUIRED if name not in header]
    if lacking or not {"prediction_id", "loan_id"}.intersection(filter(None, header)):
        raise FileError(
            "The first line has to name the columns outcome, observed_at, and prediction_id or"
            " loan_id with which."
        )
    for name in OUTCOME_COLUMNS:
        if header.count(name) > 1:
            raise FileError(f"Two columns are both {name}.")
    for line, cells in lines:
        values = {
            name: original(cell.strip()).removesuffix(_MIDNIGHT)
            for name, cell in zip(header, cells, strict=False)
            if name is not None
        }
        yield line, {name: value for name, value in values.items() if value}

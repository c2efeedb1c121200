"""A CSV of applications, read and written; nothing here waits for anything."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from loan_predictor_client.models import Application, Decision
from shared.contract.spreadsheet import neutralised

MAX_BYTES: Final = 5 * 1024 * 1024
MAX_ROWS: Final = 10_000
COLUMNS: Final = tuple(Application.model_fields)
"""Those of the public data set, in any order; only the first required one has to be there."""
REQUIRED: Final = "ApplicantIncome"
IGNORED: Final = "Loan_Status"
"""What happened to the applications of the training set; nothing that a model may see."""

_DECISION_COLUMNS: Final = (
    *("line", "Loan_ID", "prediction", "confidence", "probability_approved"),
    *("probability_rejected", "model", "bundle", "prediction_id", "imputed", "warnings", "fault"),
)


class SheetError(Exception):
    """The file as a whole cannot be used; the message is the sentence to show."""


@dataclass(frozen=True)
class Row:
    """One row: where it stands in the file, and its application or why it has none."""

    line: int
    application: dict[str, object]
    fault: str | None = None


def read(content: bytes) -> list[Row]:
    """The rows of a CSV with a header; an empty cell is missing.

    Raises ``SheetError``; a row that has other cells than the header becomes a faulty row.
    """
    if len(content) > MAX_BYTES:
        raise SheetError(f"The file has more than {MAX_BYTES // 1024 // 1024} MB.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SheetError(f"The file is not UTF-8 text (line {line}).") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header)
        rows = list(_rows(reader, header))
    except csv.Error as error:
        raise SheetError(f"The file is no CSV: {error} (line {reader.line_num}).") from None
    if not rows:
        raise SheetError("The file has a header and no rows.")
    return rows


def _check_header(header: Sequence[str]) -> None:
    unknown = [name for name in header if name not in (*COLUMNS, IGNORED)]
    if unknown:
        nearest = get_close_matches(unknown[0], COLUMNS, n=1, cutoff=0.0)[0]
        raise SheetError(f"There is no column {unknown[0]!r}; the nearest one is {nearest}.")
    if len(set(header)) < len(header):
        raise SheetError("A column is there twice.")
    if REQUIRED not in header:
        raise SheetError(f"The first line must name the columns; {REQUIRED} is not among them.")


def _rows(reader: "Iterator[list[str]]", header: Sequence[str]) -> Iterator[Row]:
    before = 1
    number = 0
    for cells in reader:
        # A quoted cell may hold line breaks; the row is named by the line it begins on.
        line, before = before + 1, reader.line_num  # type: ignore[attr-defined]  # a csv.reader
        if not any(cell.strip() for cell in cells):
            continue
        number += 1
        if number > MAX_ROWS:
            raise SheetError(f"The file has more than {MAX_ROWS:,} rows.")
        if len(cells) != len(header):
            yield Row(line, {}, f"has {len(cells)} cells, the header has {len(header)}")
            continue
        yield Row(
            line,
            {
                name: cell.strip() or None
                for name, cell in zip(header, cells, strict=True)
                if name != IGNORED
            },
        )


def write(results: Iterable[tuple[Row, Decision | None, str | None]]) -> bytes:
    """The decisions as CSV, a line for each row: what was decided, or why nothing was."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_DECISION_COLUMNS)
    for row, decision, fault in results:
        cells: list[object] = [row.line, row.application.get("Loan_ID") or ""]
        if decision is None:
            cells += [*[""] * 9, fault or "not decided"]
        else:
            cells += [
                decision.prediction,
                decision.confidence,
                decision.probability.approved,
                decision.probability.rejected,
                decision.model_info.name,
                decision.model_info.version,
                decision.prediction_id,
                "; ".join(decision.imputed),
                "; ".join(decision.warnings),
                "",
            ]
        writer.writerow(map(neutralised, cells))
    return text.getvalue().encode()

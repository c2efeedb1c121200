"""All records that pass a filter, as a stream of CSV or NDJSON in constant memory."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.database import connection
from services.history.queries import read_outcomes, read_page
from services.history.reasons import codes
from services.history.records import record_of
from services.history.schemas import Filters
from services.history.tables import AnyRow, predictions
from shared.contract.spreadsheet import neutralised

Format = Literal["csv", "ndjson"]
MEDIA_TYPES: Final[dict[Format, str]] = {
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
}
_ROWS_AT_ONCE: Final = 1000
_COLUMNS: Final = [
    column.name for column in predictions.columns if column.name not in ("derived_id", "erased_at")
]
_OUTCOME_COLUMNS: Final = {
    "outcome": "outcome",
    "outcome_observed_at": "observed_at",
    "outcome_matures_at": "matures_at",
    "outcome_source": "source",
}
"""The columns of the current outcome, and what they hold of it."""

_Outcomes = Mapping[UUID, Sequence[AnyRow]]


async def export(
    engine: AsyncEngine, filters: Filters, format_: Format, *, since: datetime | None
) -> AsyncIterator[bytes]:
    """The records, the newest first, a page at a time; at least one piece, if only the header.

    Those decided before ``since`` are left out, and so are those erased meanwhile.

    Read page by page through the key rather than through one cursor: however slowly the client
    takes them, no connection and no open transaction waits for it. Raises ``StoreUnavailable``.
    """
    header = _csv([[*_COLUMNS, *_OUTCOME_COLUMNS]]) if format_ == "csv" else b""
    last: UUID | None = None
    while True:
        async with connection(engine) as opened:
            rows = await read_page(opened, filters, since=since, before=last, limit=_ROWS_AT_ONCE)
            outcomes = await read_outcomes(opened, [row.id for row in rows])
        if format_ == "csv":
            yield header + _csv(_cells(row, outcomes) for row in rows)
        else:
            yield _ndjson(rows, outcomes)
        if len(rows) < _ROWS_AT_ONCE:
            return
        header, last = b"", rows[-1].id


def _ndjson(rows: Sequence[AnyRow], outcomes: _Outcomes) -> bytes:
    records = (record_of(row, outcomes.get(row.id, ())) for row in rows)
    return "".join(f"{record.model_dump_json()}\n" for record in records).encode()


def _csv(lines: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()


def _cells(row: AnyRow, outcomes: _Outcomes) -> list[object]:
    cells = row._asdict() | {"id": row.derived_id or row.id, "reasons": codes(row.reasons or "")}
    current = outcomes.get(row.id, (None,))[0]
    return [
        *(_cell(cells[name]) for name in _COLUMNS),
        *(_cell(getattr(current, name, None)) for name in _OUTCOME_COLUMNS.values()),
    ]


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        value = "; ".join(value)
    return neutralised(value)

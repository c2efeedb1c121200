"""Store decisions exactly once: the one way in, for the stream and for the HTTP fallback."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Any, Final, TypeAlias

import asyncpg
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.records import EVENT, row_of
from services.history.rollups import add_up
from services.history.tables import predictions

DecodedRow: TypeAlias = tuple[Any, ...]
"""One decision as ``records.row_of`` makes it."""


class Undecodable(ValueError):
    """The bytes are no event of a version that is understood here; the message says why."""


def decode(payload: bytes) -> DecodedRow:
    """The row that the JSON of one ``PredictionRecorded`` event makes; raises ``Undecodable``."""
    try:
        return row_of(EVENT.validate_json(payload))
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, fault['loc'])) or 'event'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise Undecodable("; ".join(faults)) from None


async def store(engine: AsyncEngine, rows: Sequence[DecodedRow]) -> int:
    """Commit the rows and their share of the roll-ups, all or nothing; how many were new.

    A row whose id is stored already changes nothing, so storing again is always safe. Raises
    what the database raises (``database.DATABASE_ERRORS``); nothing is stored then.
    """
    # In one order everywhere: transactions that meet on a row wait for each other, not in a ring.
    by_id = {row[0].int: row for row in rows}
    new = [by_id[number] for number in sorted(by_id)]
    async with _driver(engine) as connection:
        while new:
            try:
                await _insert(connection, new)
            except asyncpg.UniqueViolationError:
                # Only an event that was handed over twice leads here. By the time of the refusal
                # whoever stored it has committed, so it is found now and left out.
                stored = await _stored(connection, new)
                new = [row for row in new if row[0] not in stored]
            else:
                break
    return len(new)


# The database fills in when the row was recorded.
_GIVEN: Final = [
    (index, column.name)
    for index, column in enumerate(predictions.columns)
    if column.name != "recorded_at"
]
_NAMES: Final = [name for _, name in _GIVEN]
_given: Final = itemgetter(*(index for index, _ in _GIVEN))

_FIND: Final = "SELECT id FROM predictions WHERE id = ANY($1)"
_ADD_BY_MODEL: Final = """
INSERT INTO prediction_rollup AS total
SELECT * FROM unnest(CAST($1 AS prediction_rollup[]))
ON CONFLICT (period, starts_at, model, bundle_version, prediction) DO UPDATE SET
    predictions = total.predictions + excluded.predictions,
    with_warnings = total.with_warnings + excluded.with_warnings,
    confidence_sum = total.confidence_sum + excluded.confidence_sum,
    confidence_histogram = ARRAY(
        SELECT old + new
        FROM unnest(total.confidence_histogram, excluded.confidence_histogram)
            WITH ORDINALITY AS pair (old, new, bucket)
        ORDER BY bucket
    )
"""
_ADD_BY_APPLICANT: Final = """
INSERT INTO applicant_rollup AS total
SELECT * FROM unnest(CAST($1 AS applicant_rollup[]))
ON CONFLICT (property_area, credit_history, prediction) DO UPDATE SET
    predictions = total.predictions + excluded.predictions,
    confidence_sum = total.confidence_sum + excluded.confidence_sum
"""


async def _insert(connection: asyncpg.Connection, rows: Sequence[DecodedRow]) -> None:
    """One transaction; raises ``UniqueViolationError``, with nothing stored, if a row exists.

    COPY, the cheapest way in for both sides, cannot skip a row that is there. That is the rare
    case, so it is tried first.
    """
    by_model, by_applicant = add_up(rows)
    async with connection.transaction():
        await connection.copy_records_to_table(
            predictions.name, records=map(_given, rows), columns=_NAMES
        )
        # The counts come last: the rows that every writer updates are locked the shortest.
        await connection.execute(_ADD_BY_MODEL, by_model)
        await connection.execute(_ADD_BY_APPLICANT, by_applicant)


async def _stored(connection: asyncpg.Connection, rows: Sequence[DecodedRow]) -> set[Any]:
    return {found["id"] for found in await connection.fetch(_FIND, [row[0] for row in rows])}


# The second is what COMMIT meets with when the server has just ended the session.
_DRIVER_ERRORS: Final = (asyncpg.InterfaceError, asyncpg.InternalClientError)


@asynccontextmanager
async def _driver(engine: AsyncEngine) -> AsyncIterator[asyncpg.Connection]:
    """The driver's own connection, for COPY is not known to SQLAlchemy; raises its errors."""
    async with engine.connect() as connection:
        opened: Any = (await connection.get_raw_connection()).driver_connection
        try:
            yield opened
        except BaseException as error:
            refused = isinstance(error, asyncpg.PostgresError)
            if opened.is_closed() or not refused:
                # What a cut off transaction left behind must not be the next one's beginning.
                await connection.invalidate()
            if refused or isinstance(error, _DRIVER_ERRORS):
                raise DBAPIError(None, None, error) from error
            raise

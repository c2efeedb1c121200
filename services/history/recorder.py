"""Store decisions exactly once: the one way in, for the stream and for the HTTP fallback."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import asyncpg
from pydantic import ValidationError
from pydantic_core import CoreConfig, SchemaValidator
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.copying import EncodedRow, copy_data, encode
from services.history.database import is_data_error
from services.history.records import COLUMNS, EVENT, row_of
from services.history.rollups import add_up
from services.history.tables import predictions
from shared.observability.logs import get_logger

_log = get_logger(__name__)

DecodedRow: TypeAlias = tuple[Any, ...]
"""One decision as ``records.row_of`` makes it."""


# The adapter's own method costs more than what it adds, and so does looking up each text among the
# last ones: what is no literal seldom comes twice.
_read_event: Final = SchemaValidator(
    EVENT.core_schema, CoreConfig(cache_strings="none")
).validate_json


class Undecodable(ValueError):
    """The bytes are no event of a version that is understood here; the message says why."""


def decode(payload: bytes) -> DecodedRow:
    """The row that the JSON of one ``PredictionRecorded`` event makes; raises ``Undecodable``."""
    try:
        return row_of(_read_event(payload))
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, fault['loc'])) or 'event'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise Undecodable("; ".join(faults)) from None


def read_row(payload: bytes) -> EncodedRow:
    """What ``store`` takes, of one event as ``decode`` reads it; raises ``Undecodable``."""
    return encode(decode(payload))


async def store(engine: AsyncEngine, rows: Sequence[EncodedRow]) -> int:
    """Commit the rows and their share of the roll-ups, all or nothing; how many were new.

    A row whose decision is stored already changes nothing, so storing again is always safe; of
    several rows of one decision the first is stored. Raises what the database raises
    (``database.DATABASE_ERRORS``); nothing is stored then.
    """
    # In one order everywhere: transactions that meet on a row wait for each other, not in a ring.
    # They meet on the decision's own id: one that is derived may come with two times, so two keys.
    by_id = {(row.derived_id or row.id).int: row for row in reversed(rows)}
    new = [by_id[number] for number in sorted(by_id)]
    async with _driver(engine) as connection:
        while new:
            try:
                await _insert(connection, new)
            except asyncpg.UniqueViolationError:
                # Only an event that was handed over twice leads here. By the time of the refusal
                # whoever stored it has committed, so it is found now and left out.
                stored = await _stored(connection, new)
                if not stored:
                    raise  # the rows refuse each other; only a forged id can lead here
                new = [row for row in new if not stored.intersection((row.id, row.derived_id))]
            else:
                break
    # By the ids of their requests, each of these decisions is found in this process's log too.
    _log.info("stored", rows=len(new), request_ids=[row.request_id for row in rows])
    return len(new)


_FIND: Final = """
SELECT id, derived_id FROM predictions WHERE id = ANY($1) OR derived_id = ANY($2)
"""
# One statement for both: every round trip here is one that other writers wait for.
_ADD_UP: Final = """
WITH by_applicant AS (
    INSERT INTO applicant_rollup AS total
    SELECT * FROM unnest(CAST($2 AS applicant_rollup[]))
    ON CONFLICT (property_area, credit_history, prediction) DO UPDATE SET
        predictions = total.predictions + excluded.predictions,
        confidence_sum = total.confidence_sum + excluded.confidence_sum
)
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


async def _insert(connection: asyncpg.Connection, rows: Sequence[EncodedRow]) -> None:
    """One transaction; raises ``UniqueViolationError``, with nothing stored, if a row exists.

    COPY, the cheapest way in for both sides, cannot skip a row that is there. That is the rare
    case, so it is tried first.
    """
    by_model, by_applicant = add_up(rows)
    source: Any = copy_data(rows)  # of its types the driver's stubs leave this one out
    async with connection.transaction():
        await connection.copy_to_table(
            predictions.name, source=source, columns=COLUMNS, format="binary"
        )
        # The counts come last: the rows that every writer updates are locked the shortest.
        await connection.execute(_ADD_UP, by_model, by_applicant)


# The last is what COMMIT meets with when the server has just ended the session.
_DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


async def _stored(connection: asyncpg.Connection, rows: Sequence[EncodedRow]) -> set[Any]:
    """The keys, and the derived ids, by which any of the rows is stored already."""
    ids = [row.id for row in rows]
    derived_ids = [row.derived_id for row in rows if row.derived_id is not None]
    found = await connection.fetch(_FIND, ids, derived_ids)
    return {identifier for row in found for identifier in row if identifier is not None}


@asynccontextmanager
async def _driver(engine: AsyncEngine) -> AsyncIterator[asyncpg.Connection]:
    """The driver's own connection, for COPY is not known to SQLAlchemy; raises its errors."""
    async with engine.connect() as connection:
        opened: Any = (await connection.get_raw_connection()).driver_connection
        try:
            yield opened
        except BaseException as error:
            failed = DBAPIError(None, None, error) if isinstance(error, _DRIVER_ERRORS) else None
            if failed is None or not is_data_error(failed):
                # Nobody knows what the connection is in the middle of.
                await connection.invalidate()
            if failed is None:
                raise
            raise failed from error

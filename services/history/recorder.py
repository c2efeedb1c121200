"""Where events are stored in PostgreSQL, each decision once: by the consumer and by HTTP."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from pydantic import ValidationError
from pydantic_core import CoreConfig, SchemaValidator
from sqlalchemy import BigInteger, Date, Double
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.binning import Bins, known_bins
from services.history.database import Unstorable, is_data_error
from services.history.records import COLUMNS, EVENT, Row, row_of
from services.history.rollups import add_up
from services.history.shadowing import shadowing
from services.history.tables import daily_rollup, predictions, shadow_queue
from shared.observability.logs import get_logger

_log = get_logger(__name__)

_ID: Final = COLUMNS.index("id")
_DERIVED_ID: Final = COLUMNS.index("derived_id")
_REQUEST_ID: Final = COLUMNS.index("request_id")
_BUNDLE: Final = COLUMNS.index("bundle_version")

# The adapter's own method costs more than it adds, and a cache of values that do not repeat, too.
_read_event: Final = SchemaValidator(
    EVENT.core_schema, CoreConfig(cache_strings="keys")
).validate_json


class Undecodable(ValueError):
    """The bytes are not an event of a known version; the message says why."""


def decode(payload: bytes) -> Row:
    """The row of one ``PredictionRecorded`` event, given as JSON; raises ``Undecodable``."""
    try:
        return row_of(_read_event(payload))
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, fault['loc'])) or 'event'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise Undecodable("; ".join(faults)) from None
    except Exception as error:
        raise Undecodable(f"{type(error).__name__}: {error}") from error


async def store(engine: AsyncEngine, rows: Sequence[Row]) -> int:
    """Commit the rows and their share of the roll-ups, all or nothing; return how many were new.

    A row whose decision is stored already changes nothing, so storing again is always safe. Of
    several rows of one decision the first is stored. Raises ``Unstorable`` if some row cannot be
    stored, and ``database.DATABASE_ERRORS``; then nothing is stored.
    """
    # All writers insert in the order of the decisions' own ids, so they cannot deadlock. The key
    # will not do: a derived id may be repeated with another time, and so with another key.
    by_id = {(row[_DERIVED_ID] or row[_ID]).int: row for row in reversed(rows)}
    new = [by_id[number] for number in sorted(by_id)]
    async with _driver(engine) as connection:
        bins = await known_bins(engine).find(connection, {row[_BUNDLE] for row in new})
        epoch = await shadowing(engine).find(connection)
        while new:
            try:
                await _insert(connection, new, bins, shadowed_in=epoch)
            except asyncpg.UniqueViolationError:
                # Some event was delivered before. The transaction that stored it has committed by
                # now, so its row is found and left out.
                stored = await _stored(connection, new)
                if not stored:
                    raise  # two of the rows conflict, which takes a forged id
                new = [row for row in new if not stored.intersection((row[_ID], row[_DERIVED_ID]))]
            else:
                break
    # The request ids lead from a request to its commit in this process's log.
    _log.info("stored", rows=len(new), request_ids=[row[_REQUEST_ID] for row in rows])
    return len(new)


_FIND: Final = """
SELECT id, derived_id FROM predictions WHERE id = ANY($1) OR derived_id = ANY($2)
"""
_TYPES: Final = {Date: "date", BigInteger: "bigint", Double: "double precision"}
_MERGE: Final = """predictions = total.predictions + excluded.predictions,
        with_warnings = total.with_warnings + excluded.with_warnings,
        confidence_sum = total.confidence_sum + excluded.confidence_sum,
        {histogram} = ARRAY(
            SELECT old + new
            FROM unnest(total.{histogram}, excluded.{histogram})
                WITH ORDINALITY AS pair (old, new, bin)
            ORDER BY bin
        )"""
# As columns, and with the histograms as texts: each costs half of what arrays in rows cost here.
_DAY: Final = ", ".join(daily_rollup.columns.keys())
_DAYS: Final = ", ".join(
    f"CAST(${place} AS {_TYPES.get(type(column.type), 'text')}[])"
    for place, column in enumerate(daily_rollup.columns, start=3)
)
# One statement for all tables: other writers wait during every round trip.
_ADD_UP: Final = f"""
WITH by_applicant AS (
    INSERT INTO applicant_rollup AS total
    SELECT * FROM unnest(CAST($2 AS applicant_rollup[]))
    ON CONFLICT (property_area, credit_history, prediction) DO UPDATE SET
        predictions = total.predictions + excluded.predictions,
        confidence_sum = total.confidence_sum + excluded.confidence_sum
), by_day AS (
    INSERT INTO daily_rollup AS total
    SELECT {_DAY.replace("counts", "CAST(counts AS bigint[])")}
    FROM unnest({_DAYS}) AS given ({_DAY})
    ON CONFLICT ON CONSTRAINT daily_rollup_pkey DO UPDATE SET
        {_MERGE.format(histogram="counts")}
)
INSERT INTO prediction_rollup AS total
SELECT * FROM unnest(CAST($1 AS prediction_rollup[]))
ON CONFLICT ON CONSTRAINT prediction_rollup_pkey DO UPDATE SET
        {_MERGE.format(histogram="confidence_histogram")}
"""  # noqa: S608 - the names and types of columns


async def _insert(
    connection: asyncpg.Connection,
    rows: Sequence[Row],
    bins: Mapping[str, Bins],
    *,
    shadowed_in: int | None,
) -> None:
    """Insert in one transaction; raises ``UniqueViolationError`` if a row exists already.

    The rows are queued for the shadows of the roll-out ``shadowed_in``.

    COPY is the cheapest for both sides but cannot skip existing rows; they are rare, so it is
    tried first.
    """
    by_model, by_applicant, by_day = add_up(rows, bins)
    *days, counts = zip(*by_day, strict=True)
    texts = [f"{{{str(each)[1:-1]}}}" for each in counts]
    async with connection.transaction():
        await connection.copy_records_to_table(predictions.name, records=rows, columns=COLUMNS)
        if shadowed_in is not None:
            await connection.copy_records_to_table(
                shadow_queue.name,
                records=[(row[_ID], shadowed_in) for row in rows],
                columns=("decision", "epoch"),
            )
        # Last, so that the rows that every writer updates are locked as briefly as possible.
        await connection.execute(_ADD_UP, by_model, by_applicant, *days, texts)


# COMMIT raises the last one if the server has just ended the session.
_DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


async def _stored(connection: asyncpg.Connection, rows: Sequence[Row]) -> set[Any]:
    """The keys and the derived ids of those rows that are stored already."""
    ids = [row[_ID] for row in rows]
    derived_ids = [row[_DERIVED_ID] for row in rows if row[_DERIVED_ID] is not None]
    found = await connection.fetch(_FIND, ids, derived_ids)
    return {identifier for row in found for identifier in row if identifier is not None}


@asynccontextmanager
async def _driver(engine: AsyncEngine) -> AsyncIterator[asyncpg.Connection]:
    """The driver's own connection, since SQLAlchemy has no COPY.

    Raises SQLAlchemy's errors for the driver's, and ``Unstorable`` where the values are at fault.
    """
    async with engine.connect() as connection:
        opened: Any = (await connection.get_raw_connection()).driver_connection
        try:
            yield opened
        except BaseException as error:
            if is_data_error(error):
                raise Unstorable(str(error)) from error
            # The connection may be in the middle of anything.
            await connection.invalidate()
            if isinstance(error, _DRIVER_ERRORS):
                raise DBAPIError(None, None, error) from error
            if isinstance(error, Exception) and not isinstance(error, OSError):
                # Neither the server nor the connection failed: some value cannot be encoded.
                raise Unstorable(f"{type(error).__name__}: {error}") from error
            raise

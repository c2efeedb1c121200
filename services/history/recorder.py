"""Store decisions exactly once: the one way in, for the stream and for the HTTP fallback."""

from collections.abc import Sequence
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.records import row_of
from services.history.tables import HISTOGRAM_BUCKETS, MISSING, predictions
from shared.events import PredictionRecorded

DecodedRow = tuple[Any, ...]
"""One decision as ``records.row_of`` makes it."""

_EVENT: Final = TypeAdapter(PredictionRecorded)


class Undecodable(ValueError):
    """The bytes are no event of a version that is understood here; the message says why."""


def decode(payload: bytes) -> DecodedRow:
    """The row that the JSON of one ``PredictionRecorded`` event makes; raises ``Undecodable``."""
    try:
        return row_of(_EVENT.validate_json(payload))
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
    parameters = {"rows": sorted(rows, key=lambda row: row[0].int)}
    async with engine.connect() as connection:
        stored: int = (await connection.execute(_STORE, parameters)).scalar_one()
    return stored


_NAMES = ", ".join(column.name for column in predictions.columns if column.name != "recorded_at")
_HISTOGRAM = ", ".join(
    f"count(*) FILTER (WHERE bucket = {bucket})" for bucket in range(1, HISTOGRAM_BUCKETS + 1)
)

# The batch goes as one array of rows of the table's own type: it takes the driver half the time
# that an array per column takes, and needs no list of types beside the table's.
# One statement, hence one transaction and one round trip. The roll-ups are made from what was
# really inserted, and their rows are taken in key order by every writer.
_STORE: Final = text(
    f"""
WITH stored AS (
    INSERT INTO predictions ({_NAMES})
    SELECT {_NAMES} FROM unnest(CAST(:rows AS predictions[]))
    ON CONFLICT (id) DO NOTHING
    RETURNING decided_at, model, bundle_version, prediction, confidence, warnings,
        coalesce(property_area, '{MISSING}') AS property_area,
        coalesce(CAST(credit_history AS TEXT), '{MISSING}') AS credit_history,
        least(width_bucket(confidence, 0, 1, {HISTOGRAM_BUCKETS}), {HISTOGRAM_BUCKETS}) AS bucket
), by_model AS (
    INSERT INTO prediction_rollup AS total
    SELECT period, starts_at, model, bundle_version, prediction,
        count(*), count(*) FILTER (WHERE cardinality(warnings) > 0), sum(confidence),
        ARRAY[{_HISTOGRAM}]
    FROM stored CROSS JOIN LATERAL (
        VALUES ('hour', date_trunc('hour', decided_at, 'UTC')),
            ('day', date_trunc('day', decided_at, 'UTC')),
            ('all', CAST('epoch' AS TIMESTAMPTZ))
    ) AS span (period, starts_at)
    GROUP BY period, starts_at, model, bundle_version, prediction
    ORDER BY period, starts_at, model, bundle_version, prediction
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
), by_applicant AS (
    INSERT INTO applicant_rollup AS total
    SELECT property_area, credit_history, prediction, count(*), sum(confidence)
    FROM stored
    GROUP BY property_area, credit_history, prediction
    ORDER BY property_area, credit_history, prediction
    ON CONFLICT (property_area, credit_history, prediction) DO UPDATE SET
        predictions = total.predictions + excluded.predictions,
        confidence_sum = total.confidence_sum + excluded.confidence_sum
)
SELECT count(*) FROM stored
"""  # noqa: S608 - put together from this package's own column names alone
)

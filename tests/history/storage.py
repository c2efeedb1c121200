"""Looks into the database and the stream, to compare with what was sent."""

from collections.abc import Awaitable, Callable, Iterable
from operator import add
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import migrations
from services.history.binning import histograms
from services.history.recorder import store
from services.history.tables import HISTOGRAM_BUCKETS, AnyRow
from shared.contract.events import CONSUMER_GROUP, EVENT_FIELD, STREAM, PredictionRecorded
from tests.history.events import body_of, row_of
from tests.history.recount import NUMBERS, recount_by_day

_MIGRATIONS = Path(migrations.__file__).parent / "versions"
NEWEST_REVISION = max(path.name for path in _MIGRATIONS.glob("[0-9]*.py"))[:4]

Totals = dict[tuple[Any, ...], list[Any]]
"""The totals of a roll-up's row, by its key."""

_RECOUNT_BY_MODEL = f"""
SELECT period, starts_at, model, bundle_version, prediction, count(*) AS predictions,
    count(*) FILTER (WHERE warnings <> '{{}}') AS with_warnings,
    sum(confidence) AS confidence_sum,
    ARRAY(
        SELECT count(*) FILTER (WHERE bucket = least(floor(c * {HISTOGRAM_BUCKETS}), 19))
        FROM generate_series(0, {HISTOGRAM_BUCKETS - 1}) AS bucket,
            unnest(array_agg(confidence)) AS c
        GROUP BY bucket ORDER BY bucket
    ) AS confidence_histogram
FROM predictions CROSS JOIN LATERAL (
    VALUES ('hour', date_trunc('hour', decided_at, 'UTC')), ('all', timestamptz 'epoch')
) AS span (period, starts_at)
GROUP BY period, starts_at, model, bundle_version, prediction
"""  # noqa: S608 - a number of the product's own
_RECOUNT_BY_APPLICANT = """
SELECT coalesce(property_area, 'missing') AS property_area,
    coalesce(credit_history::text, 'missing') AS credit_history,
    prediction, count(*) AS predictions, sum(confidence) AS confidence_sum
FROM predictions GROUP BY 1, 2, 3
"""


async def publish(redis: Redis, events: Iterable[PredictionRecorded], *, group: int = 1) -> None:
    """Add the events to the stream, as the inference service does, so many in each entry."""
    bodies = [body_of(event) for event in events]
    async with redis.pipeline(transaction=False) as pipeline:
        for first in range(0, len(bodies), group):
            pipeline.xadd(STREAM, {EVENT_FIELD: b"\n".join(bodies[first : first + group])})
        await pipeline.execute()


async def store_all(engine: AsyncEngine, events: list[PredictionRecorded]) -> int:
    """Store the events as the consumer does; how many were new."""
    return await store(engine, [row_of(event) for event in events])


def ids_of(events: Iterable[PredictionRecorded]) -> list[UUID]:
    """The ids of the decisions, in order."""
    return sorted(event.decision.prediction_id for event in events)


async def stored_ids(engine: AsyncEngine) -> list[UUID]:
    """The ids of all rows, in order."""
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT id FROM predictions ORDER BY id"))
        return list(found.scalars())


async def rows_of(engine: AsyncEngine, table: str) -> list[dict[str, Any]]:
    """The rows of a table, in the order of their keys."""
    async with engine.connect() as connection:
        found = await connection.execute(text(f"SELECT * FROM {table} ORDER BY 1"))  # noqa: S608 - a table's name
        return [dict(row) for row in found.mappings()]


def stored(engine: AsyncEngine, count: int) -> Callable[[], Awaitable[bool]]:
    """A check that holds once ``count`` decisions are stored."""

    async def check() -> bool:
        async with engine.connect() as connection:
            found = await connection.execute(text("SELECT count(*) FROM predictions"))
            return int(found.scalar_one()) >= count

    return check


async def assert_rollups_equal_a_recount(engine: AsyncEngine) -> None:
    """Every roll-up row says what counting the rows again says, and there is no other."""
    for table, (kept, counted) in (await rollups_and_recounts(engine)).items():
        assert kept == counted, table


async def assert_rollup_by_model_equals_a_recount(engine: AsyncEngine) -> None:
    """What can be counted again also when applicants' values were erased: all but inputs."""
    found = await rollups_and_recounts(engine)
    kept, counted = found["prediction_rollup"]
    assert kept == counted
    without_inputs = slice(3 + HISTOGRAM_BUCKETS)
    kept, counted = (
        {key: totals[without_inputs] for key, totals in each.items()}
        for each in found["daily_rollup"]
    )
    assert kept == counted


async def rollups_and_recounts(engine: AsyncEngine) -> dict[str, tuple[Totals, Totals]]:
    """Of each roll-up table what it holds, and what counting the rows again gives.

    The histograms of numbers are left out: rows stored before their bundle was registered have
    none.
    """
    found = {}
    async with engine.connect() as connection:
        for table, recount in (
            ("prediction_rollup", _RECOUNT_BY_MODEL),
            ("applicant_rollup", _RECOUNT_BY_APPLICANT),
        ):
            kept = await connection.execute(text(f"SELECT * FROM {table}"))  # noqa: S608 - as above
            counted = await connection.execute(text(recount))
            found[table] = (_by_key(kept.mappings()), _by_key(counted.mappings()))
        kept = await connection.execute(text("SELECT * FROM daily_rollup"))
        counted = await connection.execute(text(recount_by_day({})))
        found["daily_rollup"] = (_by_day(kept.all()), _by_day(counted.all()))
    return found


def _by_day(rows: Iterable[AnyRow]) -> Totals:
    found: Totals = {}
    for row in rows:
        key = (row.day, row.model, row.bundle_version, row.arm, row.client, row.prediction)
        counts = [
            count
            for name, histogram in histograms(row.layout, row.counts).items()
            if name not in NUMBERS
            for count in histogram
        ]
        totals = [row.predictions, row.with_warnings, row.confidence_sum, *counts]
        before = found.get(key, [0] * len(totals))
        found[key] = list(map(add, before, totals))
    return {
        key: [*totals[:2], pytest.approx(totals[2]), *totals[3:]] for key, totals in found.items()
    }


def _by_key(rows: Iterable[Any]) -> Totals:
    values = ("predictions", "with_warnings", "confidence_sum", "confidence_histogram")
    return {
        tuple(value for name, value in row.items() if name not in values): [
            pytest.approx(row[name]) if name == "confidence_sum" else row[name]
            for name in values
            if name in row
        ]
        for row in map(dict, rows)
    }


async def assert_stream_is_finished(redis: Redis) -> None:
    """Nothing waits on the stream, and nothing is in any consumer's hands."""
    assert await redis.xlen(STREAM) == 0
    assert (await redis.xpending(STREAM, CONSUMER_GROUP))["pending"] == 0

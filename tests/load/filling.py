"""A history of any length, made inside the database from real decisions."""

from collections.abc import Sequence
from typing import Final

import asyncpg
from tqdm import tqdm

from services.history.binning import edges_of
from services.history.recorder import decode
from services.history.records import COLUMNS
from services.history.tables import HISTOGRAM_BUCKETS, MISSING, WARNINGS, predictions
from services.scoring.manifest import (
    BUNDLE_ROOT,
    MANIFEST_FILE,
    bundle_folder,
    read_current_version,
)
from tests.history.recount import recount_by_day
from tests.load.consumer_benchmarks import real_events

_SAMPLE: Final = 2_000
_PER_STATEMENT: Final = 100_000
_DAYS: Final = 60

# Each row copies a decision under its own time and loan number. Rows are spread evenly over the
# last days and arrive in order of time, as decisions do; loan numbers arrive in no order (factor
# and modulus are coprime, so none repeats).
_TIME: Final = f"now() - interval '{_DAYS} days' * (1 - n::float8 / $3)"
_CHANGED: Final = {
    "id": f"uuidv7({_TIME} - clock_timestamp())",
    "decided_at": _TIME,
    "recorded_at": _TIME,
    "loan_id": "CASE WHEN loan_id IS NULL THEN NULL"
    " ELSE 'LP' || lpad((n * 2654435761 % 1000000000)::text, 9, '0') END",
}
_FILL: Final = f"""
INSERT INTO predictions ({", ".join(column.name for column in predictions.columns)})
SELECT {", ".join(_CHANGED.get(column.name, column.name) for column in predictions.columns)}
FROM generate_series($1::bigint, $2::bigint) AS n JOIN sample ON number = n % {_SAMPLE}
ORDER BY n
"""  # noqa: S608 - made of the product's own column names and numbers

_HISTOGRAM: Final = ", ".join(
    f"count(*) FILTER (WHERE bucket = {bucket})" for bucket in range(1, HISTOGRAM_BUCKETS + 1)
)
_COUNT_BY_MODEL: Final = f"""
INSERT INTO prediction_rollup
SELECT CASE WHEN grouping(hour) = 0 THEN 'hour' ELSE 'all' END,
    coalesce(hour, 'epoch'), model, bundle_version, prediction,
    count(*), count(*) FILTER (WHERE {WARNINGS} > 0), sum(confidence),
    ARRAY[{_HISTOGRAM}]
FROM (
    SELECT *, date_trunc('hour', decided_at, 'UTC') AS hour,
        least(width_bucket(confidence, 0, 1, {HISTOGRAM_BUCKETS}), {HISTOGRAM_BUCKETS}) AS bucket
    FROM predictions
) AS prediction
GROUP BY model, bundle_version, prediction, GROUPING SETS ((hour), ())
"""  # noqa: S608 - as above
_COUNT_BY_APPLICANT: Final = f"""
INSERT INTO applicant_rollup
SELECT coalesce(property_area, '{MISSING}'), coalesce(credit_history::text, '{MISSING}'),
    prediction, count(*), sum(confidence)
FROM predictions GROUP BY 1, 2, 3
"""  # noqa: S608 - as above
_REGISTER: Final = "INSERT INTO bundles (version, manifest) VALUES ($1, $2) ON CONFLICT DO NOTHING"


async def fill(url: str, *, rows: int) -> None:
    """Fill an empty, migrated database with ``rows`` decisions and their roll-ups."""
    connection = await asyncpg.connect(url)
    try:
        await _stage(connection, real_events(min(rows, _SAMPLE)))
        with tqdm(total=rows, desc="  filling", unit="row", unit_scale=True, leave=False) as bar:
            for first in range(0, rows, _PER_STATEMENT):
                last = min(first + _PER_STATEMENT, rows) - 1
                await connection.execute(_FILL, first, last, rows, timeout=None)
                bar.update(last - first + 1)
        manifest = (bundle_folder(BUNDLE_ROOT, None) / MANIFEST_FILE).read_text(encoding="utf-8")
        count_by_day = f"INSERT INTO daily_rollup {recount_by_day(edges_of(manifest))}"
        for statement in (_COUNT_BY_MODEL, _COUNT_BY_APPLICANT, count_by_day):
            await connection.execute(statement)
        bundle = read_current_version(BUNDLE_ROOT)
        await connection.execute(_REGISTER, bundle, manifest)
        await connection.execute("DROP TABLE sample")
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def _stage(connection: asyncpg.Connection, events: Sequence[bytes]) -> None:
    rows = [decode(event) for event in events]
    await connection.execute("CREATE TABLE sample (LIKE predictions INCLUDING DEFAULTS)")
    await connection.copy_records_to_table("sample", records=rows, columns=COLUMNS)
    await connection.execute("ALTER TABLE sample ADD COLUMN number bigserial")
    await connection.execute("UPDATE sample SET number = number - 1")

"""Counting the decisions again, in SQL, as ``daily_rollup`` must have counted them."""

from typing import Final

from services.history.binning import BINNED, Edges
from services.history.tables import HISTOGRAM_BUCKETS
from shared.contract.application import Field

NUMBERS: Final = {field.column for field in BINNED if not field.allowed}


def recount_by_day(edges: Edges) -> str:
    """The query that gives the rows of ``daily_rollup`` while no decision is erased.

    ``edges`` are those of the bundle that decided; without any, numbers are not counted.
    """
    counted = [field for field in BINNED if field.allowed or field.name in edges]
    bins = {"score": _score()} | {field.column: _bins(field, edges) for field in counted}
    layout = " ".join(f"{name}:{len(conditions)}" for name, conditions in bins.items())
    counts = ", ".join(
        f"count(*) FILTER (WHERE {condition})"
        for conditions in bins.values()
        for condition in conditions
    )
    return f"""
SELECT CAST(decided_at AT TIME ZONE 'UTC' AS date) AS day, model, bundle_version,
    coalesce(arm, '') AS arm, client, prediction, CAST('{layout}' AS text) AS layout,
    count(*) AS predictions, count(*) FILTER (WHERE warnings <> '{{}}') AS with_warnings,
    sum(confidence) AS confidence_sum, ARRAY[{counts}] AS counts
FROM predictions GROUP BY 1, 2, 3, 4, 5, 6
"""  # noqa: S608 - names and numbers of the product's own


def _score() -> list[str]:
    last = HISTOGRAM_BUCKETS - 1
    return [
        f"least(floor(confidence * {HISTOGRAM_BUCKETS}), {last})"
        f" = CASE prediction WHEN 'Approved' THEN {number} ELSE {last - number} END"
        for number in range(HISTOGRAM_BUCKETS)
    ]


def _bins(field: Field, edges: Edges) -> list[str]:
    name = field.column
    if field.allowed:
        allowed = [f"'{value}'" for value in field.allowed]
        known = [f"{name}::text = {value}" for value in allowed]
        return [*known, f"{name}::text NOT IN ({', '.join(allowed)})", f"{name} IS NULL"]
    first, *inner, last = edges[field.name]
    lows, highs = [first, *inner], [*inner, last]
    bins = [f"{name} >= {low} AND {name} < {high}" for low, high in zip(lows, highs, strict=True)]
    bins[-1] = f"{name} BETWEEN {lows[-1]} AND {last}"
    return [f"{name} < {first}", *bins, f"{name} > {last}", f"{name} IS NULL"]

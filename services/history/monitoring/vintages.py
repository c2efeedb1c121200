"""How many approved loans turned out badly by their age, and whether newer ones turn out worse."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.daily import Selection
from services.history.estimates import Count, difference, proportion
from services.history.monitoring.cohorts import (
    APPROVED,
    outcomes_of,
    read_decisions,
    whole_sum,
)
from services.history.monitoring.conclusions import of_trend
from services.history.monitoring.schemas import (
    LEAST_OF_EACH,
    LEAST_OUTCOMES,
    Compared,
    Vintage,
    VintagePoint,
    Vintages,
    VintageTrend,
    estimated,
)
from services.history.outcomes.rollups import months_between
from services.history.tables import AnyRow, outcome_vintages
from shared.contract.outcomes import BAD

COMPARED_AT: Final = (3, 6, 12)
"""Months on book at which vintages are compared: an early sign, and what comes of it."""
RECENT: Final = 3
"""How many of the newest vintages that are old enough are compared with those before."""


async def read_vintages(connection: AsyncConnection, selection: Selection) -> Vintages:
    """The vintages of the months in which anything was approved, the newest first."""
    table = outcome_vintages.c
    outcomes = whole_sum(table.outcomes).label("n")
    statement = (
        select(table.month, table.months_on_book, table.outcome, outcomes)
        .where(table.prediction == APPROVED, *outcomes_of(outcome_vintages, selection))
        .group_by(table.month, table.months_on_book, table.outcome)
    )
    by_month: defaultdict[date, list[AnyRow]] = defaultdict(list)
    for row in await connection.execute(statement):
        by_month[row.month].append(row)
    approved: defaultdict[date, int] = defaultdict(int)
    for row in await read_decisions(connection, selection, monthly=True):
        if row.prediction == APPROVED:
            approved[row.month] += row.predictions
    vintages = [
        _vintage(month, approved[month], by_month[month])
        for month in sorted(approved, reverse=True)
    ]
    return Vintages(vintages=vintages, trends=[trend(vintages, at) for at in COMPARED_AT])


def trend(vintages: Sequence[Vintage], months_on_book: int) -> VintageTrend:
    """Whether the newest vintages turned out worse by that age; ``vintages`` has the newest first.

    Only vintages count whose month of that age is over.
    """
    old_enough = [each for each in vintages if len(each.curve) > months_on_book + 1]
    recent, earlier = (
        Compared(
            months=[each.month for each in side],
            approved=sum(each.approved for each in side),
            outcomes=sum(each.outcomes for each in side),
            bad=sum(each.curve[months_on_book].bad for each in side),
        )
        for side in (old_enough[:RECENT], old_enough[RECENT:])
    )
    found = None
    if all(
        side.approved >= LEAST_OUTCOMES and side.outcomes >= LEAST_OF_EACH
        for side in (recent, earlier)
    ):
        found = difference(Count(recent.bad, recent.approved), Count(earlier.bad, earlier.approved))
    return VintageTrend(
        months_on_book=months_on_book,
        recent=recent,
        earlier=earlier,
        difference=estimated(found) if found else None,
        worse=found.value > 0 if found and not found.low <= 0 <= found.high else None,
        conclusion=of_trend(months_on_book, recent, earlier, found),
    )


def _vintage(month: date, approved: int, rows: Iterable[AnyRow]) -> Vintage:
    bad: defaultdict[int, int] = defaultdict(int)
    outcomes = 0
    for row in rows:
        outcomes += row.n
        if row.outcome in BAD:
            bad[row.months_on_book] += row.n
    age = months_between(datetime(month.year, month.month, 1, tzinfo=UTC), datetime.now(UTC))
    curve, so_far = [], 0
    for months in range(age + 1):
        so_far += bad[months]
        share = estimated(proportion(so_far, approved))
        curve.append(VintagePoint(months_on_book=months, bad=so_far, share=share))
    return Vintage(
        month=f"{month:%Y-%m}",
        approved=approved,
        outcomes=outcomes,
        on_whom=f"Outcomes exist for {outcomes:,} of {approved:,} approved decisions; the others"
        " count as not bad yet.",
        curve=curve,
    )

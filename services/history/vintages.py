"""How many approved loans turned out badly, by month of the decision and months on book."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.cohorts import (
    APPROVED,
    outcomes_of,
    read_decisions,
    whole_sum,
)
from services.history.daily import Decided
from services.history.estimates import proportion
from services.history.monitoring_schemas import (
    Vintage,
    VintagePoint,
    Vintages,
    estimated,
)
from services.history.outcome_rollups import months_between
from services.history.tables import AnyRow, outcome_vintages
from shared.contract.outcomes import BAD


async def read_vintages(connection: AsyncConnection, decided: Decided) -> Vintages:
    """The vintages of the months in which anything was approved, the newest first."""
    table = outcome_vintages.c
    outcomes = whole_sum(table.outcomes).label("n")
    statement = (
        select(table.month, table.months_on_book, table.outcome, outcomes)
        .where(table.prediction == APPROVED, *outcomes_of(outcome_vintages, decided))
        .group_by(table.month, table.months_on_book, table.outcome)
    )
    by_month: defaultdict[date, list[AnyRow]] = defaultdict(list)
    for row in await connection.execute(statement):
        by_month[row.month].append(row)
    approved: defaultdict[date, int] = defaultdict(int)
    for row in await read_decisions(connection, decided, monthly=True):
        if row.prediction == APPROVED:
            approved[row.month] += row.predictions
    return Vintages(
        vintages=[
            _vintage(month, approved[month], by_month[month])
            for month in sorted(approved, reverse=True)
        ]
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

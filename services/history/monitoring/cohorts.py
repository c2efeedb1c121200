"""Decisions of one model of one bundle, of one month or all, and what became of them."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Table, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.daily import By, Selection, read_totals
from services.history.monitoring.schemas import (
    MOST_MONTHS,
    CohortQuery,
    PerformanceQuery,
    first_day,
)
from services.history.outcomes.rollups import month_of
from services.history.tables import AnyRow

APPROVED: Final = "Approved"

BY_COHORT: Final[Sequence[By]] = ("model", "bundle_version")


class Cohort(NamedTuple):
    """Decisions of one model of one bundle in one month, or in all."""

    month: date | None
    model: str
    bundle: str

    @property
    def month_text(self) -> str | None:
        """The month as it is reported."""
        return f"{self.month:%Y-%m}" if self.month else None


def cohort_of(row: AnyRow) -> Cohort:
    """The cohort that a row is of."""
    return Cohort(getattr(row, "month", None), row.model, row.bundle_version)


def in_order(cohorts: Iterable[Cohort]) -> list[Cohort]:
    """By month, bundle and model."""
    return sorted(cohorts, key=lambda each: (each.month or date.min, each.bundle, each.model))


def selection_of(query: CohortQuery) -> Selection:
    """The decisions that ``query`` is about; by month, those of the last ``MOST_MONTHS``."""
    since = query.since
    if isinstance(query, PerformanceQuery) and query.by == "month":
        first = _months_before(query.until, MOST_MONTHS)
        since = max(first, since or first)
    return Selection(
        since=first_day(since) if since else None,
        until=first_day(query.until) if query.until else None,
        model=query.model,
        bundle=query.bundle,
    )


async def read_decisions(
    connection: AsyncConnection, selection: Selection, *, monthly: bool
) -> Sequence[AnyRow]:
    """How many decisions there are by month if ``monthly``, model, bundle and decision."""
    keys: list[By] = [*BY_COHORT, "prediction"]
    return await read_totals(connection, selection, ["month", *keys] if monthly else keys)


async def read_outcomes(
    connection: AsyncConnection,
    table: Table,
    selection: Selection,
    *details: ColumnElement[Any],
    monthly: bool,
    where: ColumnElement[bool] | None = None,
) -> Sequence[AnyRow]:
    """Counts by month if ``monthly``, model, bundle, decision, outcome and ``details``."""
    columns = table.c
    keys = [columns.model, columns.bundle_version, columns.prediction, columns.outcome, *details]
    sums = [column for column in columns if column.name.endswith(("outcomes", "_sum"))]
    months = [columns.month] if monthly else []
    conditions = [columns.outcomes > 0, *outcomes_of(table, selection)]
    statement = (
        select(*months, *keys, *(whole_sum(each).label(each.name) for each in sums))
        .where(*conditions, *([] if where is None else [where]))
        .group_by(*months, *keys)
    )
    return (await connection.execute(statement)).all()


def outcomes_of(table: Table, selection: Selection) -> list[ColumnElement[bool]]:
    """The conditions for rows of a roll-up of outcomes; its months are whole."""
    conditions: list[ColumnElement[bool]] = []
    if selection.since is not None:
        conditions.append(table.c.month >= selection.since)
    if selection.until is not None:
        conditions.append(table.c.month < selection.until)
    if selection.model is not None:
        conditions.append(table.c.model == selection.model)
    if selection.bundle is not None:
        conditions.append(table.c.bundle_version == selection.bundle)
    return conditions


def whole_sum(column: ColumnElement[int]) -> ColumnElement[int]:
    """The sum of whole numbers as one."""
    # It is a decimal otherwise, which takes longer to add up here.
    return cast(func.sum(column), BigInteger)


def _months_before(end: str | None, months: int) -> str:
    """The month that many before ``end``, or before the one after this."""
    last = first_day(end) if end else month_of(datetime.now(UTC))
    count = last.year * 12 + last.month - 1 - months + (end is None)
    return f"{count // 12:04}-{count % 12 + 1:02}"

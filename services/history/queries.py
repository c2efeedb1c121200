"""The SQL of every reading route; none of it scans the predictions."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, and_, cast, exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.daily import Selection
from services.history.schemas import Filters
from services.history.tables import (
    CONFIDENCE_PER_MILLE,
    WARNINGS,
    AnyRow,
    applicant_rollup,
    current_outcomes,
    outcome_bins,
    outcomes,
    prediction_rollup,
    predictions,
)
from shared.contract.ids import first_uuid7_at, is_uuid7


async def read_page(
    connection: AsyncConnection,
    filters: Filters,
    *,
    since: datetime | None,
    before: UUID | None,
    limit: int,
) -> Sequence[AnyRow]:
    """Up to ``limit`` rows of ``predictions`` that match the filters, the newest first.

    Erased rows are left out, and so are decisions made before ``since``: retention has erased them
    or soon will, and a search need not walk past them. The page begins after the row ``before``,
    found through the primary key, so the ten thousandth page costs what the first does.
    """
    statement = select(predictions).where(predictions.c.erased_at.is_(None), *_conditions(filters))
    if since is not None:
        statement = statement.where(predictions.c.id >= first_uuid7_at(since))
    if before is not None:
        statement = statement.where(predictions.c.id < before)
    statement = statement.order_by(predictions.c.id.desc()).limit(limit)
    return (await connection.execute(statement)).all()


async def read_one(connection: AsyncConnection, prediction_id: UUID) -> AnyRow | None:
    """The row of one decision, erased or not."""
    statement = select(predictions).where(is_decision(prediction_id))
    return (await connection.execute(statement)).one_or_none()


async def read_outcomes(
    connection: AsyncConnection, keys: Collection[UUID]
) -> Mapping[UUID, Sequence[AnyRow]]:
    """The outcomes of the rows of ``predictions`` with these keys, the current one first.

    The current one was observed last; of several observed at once it was recorded last.
    """
    found: dict[UUID, list[AnyRow]] = {}
    if keys:
        table = outcomes.c
        statement = (
            select(outcomes)
            .where(table.decision.in_(keys))
            .order_by(table.observed_at.desc(), table.id.desc())
        )
        for row in await connection.execute(statement):
            found.setdefault(row.decision, []).append(row)
    return found


def is_decision(prediction_id: UUID) -> ColumnElement[bool]:
    """The condition for the row of the decision ``prediction_id``.

    A key made from a derived id is not the id of a decision.
    """
    table = predictions.c
    if is_uuid7(prediction_id):
        return and_(table.id == prediction_id, table.derived_id.is_(None))
    return table.derived_id == prediction_id


async def read_totals(connection: AsyncConnection) -> Sequence[AnyRow]:
    """All-time counts per model and outcome, with the histogram of confidence."""
    statement = select(prediction_rollup).where(prediction_rollup.c.period == "all")
    return (await connection.execute(statement)).all()


async def read_last_hours(connection: AsyncConnection, hours: int) -> Sequence[AnyRow]:
    """Counts per outcome of the present hour and the ``hours`` before it."""
    rollup = prediction_rollup.c
    starts = func.date_trunc("hour", func.now() - timedelta(hours=hours), "UTC")
    statement = (
        select(
            rollup.prediction,
            func.sum(rollup.predictions).label("predictions"),
            func.sum(rollup.confidence_sum).label("confidence_sum"),
        )
        .where(rollup.period == "hour", rollup.starts_at >= starts)
        .group_by(rollup.prediction)
    )
    return (await connection.execute(statement)).all()


async def read_outcome_totals(
    connection: AsyncConnection, selection: Selection
) -> Sequence[AnyRow]:
    """Counts per outcome and decision of the months in which ``selection`` begins and ends."""
    table = outcome_bins.c
    equal = {table.model: selection.model, table.bundle_version: selection.bundle}
    conditions = [column == value for column, value in equal.items() if value is not None]
    if selection.since is not None:
        conditions.append(table.month >= selection.since)
    if selection.until is not None:
        conditions.append(table.month < selection.until)
    statement = (
        select(
            table.outcome,
            table.prediction,
            cast(func.sum(table.outcomes), BigInteger).label("outcomes"),
            cast(func.sum(table.probability_sum), BigInteger).label("probability_sum"),
        )
        .where(*conditions)
        .group_by(table.outcome, table.prediction)
        .having(func.sum(table.outcomes) > 0)
    )
    return (await connection.execute(statement)).all()


async def read_applicants(connection: AsyncConnection) -> Sequence[AnyRow]:
    """All-time counts per property area, credit history and outcome."""
    return (await connection.execute(select(applicant_rollup))).all()


def _conditions(filters: Filters) -> list[ColumnElement[bool]]:
    table = predictions.c
    conditions: list[ColumnElement[bool]] = []
    if filters.prediction is not None:
        conditions.append(table.prediction == filters.prediction)
    if filters.model is not None:
        conditions.append(table.model == filters.model)
    # The id begins with the decision's milliseconds, so its index finds a range of time. One more
    # at either end leaves the exact comparison to ``decided_at``.
    if filters.since is not None:
        first = first_uuid7_at(filters.since, later_ms=-1)
        conditions += [table.id >= first, table.decided_at >= filters.since]
    if filters.until is not None:
        end = first_uuid7_at(filters.until, later_ms=1)
        conditions += [table.id < end, table.decided_at < filters.until]
    # The condition on thousandths is implied; it lets their index find rare values.
    if filters.min_confidence is not None:
        lowest = int(filters.min_confidence * 1000)
        conditions += [table.confidence >= filters.min_confidence, lowest <= CONFIDENCE_PER_MILLE]
    if filters.max_confidence is not None:
        highest = int(filters.max_confidence * 1000)
        conditions += [table.confidence <= filters.max_confidence, highest >= CONFIDENCE_PER_MILLE]
    if filters.had_warnings is not None:
        conditions.append(WARNINGS > 0 if filters.had_warnings else WARNINGS == 0)
    if filters.loan_id is not None:
        conditions.append(table.loan_id == filters.loan_id)
    return conditions + _by_outcome(filters)


def _by_outcome(filters: Filters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    table, current = predictions.c, current_outcomes.c
    if filters.outcome is not None:
        of_kind = select(current.decision).where(current.outcome == filters.outcome)
        conditions.append(table.id.in_(of_kind))
    if filters.has_outcome is not None:
        # A join with none would be planned as if decisions without an outcome were spread evenly;
        # they are the newest ones, so looking each up, from the newest on, finds a page at once.
        found = select(current.outcome).where(current.decision == table.id).scalar_subquery()
        has_one = exists().where(current.decision == table.id)
        conditions.append(has_one if filters.has_outcome else found.is_(None))
    return conditions

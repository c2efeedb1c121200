"""Decisions by day, in ``daily_rollup``: how many, how they came out, and what was asked for.

Every answer costs what its days and callers cost, however many decisions there are.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from operator import add
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Date,
    DateTime,
    cast,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.binning import BINNED, SCORE, histograms, layout_of
from services.history.tables import HISTOGRAM_BUCKETS, AnyRow, daily_rollup

By: TypeAlias = Literal[
    "day", "week", "month", "model", "bundle_version", "arm", "client", "prediction"
]
"""What decisions can be grouped by. Weeks begin on Monday; a week and a month are its first day."""

LEAST_COUNTED: Final = 10
"""A row that counts fewer decisions keeps no inputs once one of them is erased: its histograms
could be taken for that person's."""

_SCORE_ALONE: Final = layout_of({SCORE: HISTOGRAM_BUCKETS})
_NOT_NUMERIC: Final = {SCORE, *(field.column for field in BINNED if field.allowed)}
_AFTER_VALUES: Final = 2
"""The bins of a category after those of its values: other and missing."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which decisions: of the UTC days from ``since`` to before ``until``, and by what."""

    since: date | None = None
    until: date | None = None
    model: str | None = None
    bundle: str | None = None
    client: str | None = None
    arm: str | None = None


class GroupCounts(NamedTuple):
    """The decisions of one group."""

    group: tuple[Any, ...]
    """The values that they are grouped by."""
    predictions: int
    with_warnings: int
    confidence_sum: float
    histograms: dict[str, list[int]]
    """By ``binning.SCORE`` and the columns of inputs. Those of an input may count fewer decisions:
    not those made while their bundle was not registered, nor some that were erased."""


async def read_totals(
    connection: AsyncConnection, selection: Selection, by: Sequence[By]
) -> Sequence[AnyRow]:
    """The ``predictions``, ``with_warnings`` and ``confidence_sum`` of each group, in order."""
    table = daily_rollup.c
    keys = [_key(each) for each in by]
    statement = (
        select(
            *keys,
            _whole(func.sum(table.predictions)).label("predictions"),
            _whole(func.sum(table.with_warnings)).label("with_warnings"),
            func.sum(table.confidence_sum).label("confidence_sum"),
        )
        .where(*_conditions(selection))
        .group_by(*keys)
        .order_by(*keys)
    )
    return (await connection.execute(statement)).all()


async def read_group_counts(
    connection: AsyncConnection, selection: Selection, by: Sequence[By]
) -> list[GroupCounts]:
    """The distribution of the score and of each input in each group, in order.

    The bins of a numeric input are its bundle's: it has a histogram only if ``by`` has the
    bundle, or ``selection`` names one.
    """
    table = daily_rollup.c
    conditions = _conditions(selection)
    longest = select(func.max(func.cardinality(table.counts))).where(*conditions)
    bins: int = (await connection.execute(longest)).scalar_one() or 0
    keys = [_key(each) for each in by]
    # One sum per bin takes a tenth of the time of taking the arrays apart.
    sums = ", ".join(f"CAST(sum(counts[{place}]) AS bigint)" for place in range(1, bins + 1))
    statement = (
        select(
            *keys,
            table.layout,
            _whole(func.sum(table.predictions)).label("predictions"),
            _whole(func.sum(table.with_warnings)).label("with_warnings"),
            func.sum(table.confidence_sum).label("confidence_sum"),
            literal_column(f"ARRAY[{sums}]::bigint[]", ARRAY(BigInteger)).label("counts"),
        )
        .where(*conditions)
        .group_by(*keys, table.layout)
        .order_by(*keys, table.layout)
    )
    one_bundle = "bundle_version" in by or selection.bundle is not None
    groups: defaultdict[tuple[Any, ...], list[AnyRow]] = defaultdict(list)
    for row in await connection.execute(statement):
        groups[tuple(row[: len(by)])].append(row)
    return [_distribution(group, rows, one_bundle) for group, rows in groups.items()]


async def forget_inputs(connection: AsyncConnection, erased: Iterable[AnyRow]) -> None:
    """Take the histograms of inputs from the rows that count an erased decision and few others.

    ``erased`` are rows of ``predictions``; in the transaction of ``connection``.
    """
    table = daily_rollup.c
    names = ("day", "model", "bundle_version", "arm", "client", "prediction")
    groups = {(row.decided_at.date(), *_after_day(row)) for row in erased}
    # The rows without inputs are those that these become part of.
    few = tuple_(*(table[name] for name in names)).in_(groups) & or_(
        table.predictions < LEAST_COUNTED, table.layout == _SCORE_ALONE
    )
    # Locked in the order in which all writers lock rows.
    locked = select(daily_rollup).where(few).order_by(*daily_rollup.primary_key).with_for_update()
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in await connection.execute(locked):
        scores = list(histograms(row.layout, row.counts)[SCORE])
        now = {**row._asdict(), "layout": _SCORE_ALONE, "counts": scores}
        before = merged.get(tuple(now[name] for name in names))
        if before:
            now["counts"] = list(map(add, before["counts"], scores))
            for name in ("predictions", "with_warnings", "confidence_sum"):
                now[name] += before[name]
        merged[tuple(now[name] for name in names)] = now
    if merged:
        await connection.execute(delete(daily_rollup).where(few))
        await connection.execute(insert(daily_rollup), list(merged.values()))


def _after_day(row: AnyRow) -> tuple[str, ...]:
    return (row.model, row.bundle_version, row.arm or "", row.client, row.prediction)


def _key(by: By) -> ColumnElement[Any]:
    if by in ("week", "month"):
        day = cast(daily_rollup.c.day, DateTime)
        return cast(func.date_trunc(by, day), Date).label(by)
    return daily_rollup.c[by]


def _whole(total: ColumnElement[Any]) -> ColumnElement[int]:
    # A sum of whole numbers is a decimal otherwise.
    return cast(total, BigInteger)


def _conditions(selection: Selection) -> list[ColumnElement[bool]]:
    table = daily_rollup.c
    equal = {
        table.model: selection.model,
        table.bundle_version: selection.bundle,
        table.client: selection.client,
        table.arm: selection.arm,
    }
    conditions = [column == value for column, value in equal.items() if value is not None]
    if selection.since is not None:
        conditions.append(table.day >= selection.since)
    if selection.until is not None:
        conditions.append(table.day < selection.until)
    return conditions


def _distribution(
    group: tuple[Any, ...], rows: Collection[AnyRow], one_bundle: bool
) -> GroupCounts:
    merged: dict[str, list[int]] = {}
    for row in rows:
        for name, counts in histograms(row.layout, row.counts).items():
            if one_bundle or name in _NOT_NUMERIC:
                merged[name] = _merged(merged[name], counts) if name in merged else list(counts)
    return GroupCounts(
        group,
        sum(row.predictions for row in rows),
        sum(row.with_warnings for row in rows),
        sum(row.confidence_sum for row in rows),
        merged,
    )


def _merged(ours: Sequence[int], theirs: Sequence[int]) -> list[int]:
    """Both together; a category has got values at its end if one of them is longer."""
    shorter, longer = sorted((ours, theirs), key=len)
    values = len(shorter) - _AFTER_VALUES
    grown = [*shorter[:values], *[0] * (len(longer) - len(shorter)), *shorter[values:]]
    return list(map(add, grown, longer))

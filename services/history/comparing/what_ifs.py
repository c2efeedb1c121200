"""What-ifs: asked here, worked off by the batch worker, read here."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.bundles import read_models, unknown_model
from services.history.comparing.schemas import (
    WhatIfPage,
    WhatIfProgress,
    WhatIfQuery,
    WhatIfStatus,
)
from services.history.comparing.swaps import cost_of, swaps_of
from services.history.daily import Selection, read_totals
from services.history.schemas import encode_cursor
from services.history.tables import AnyRow, what_ifs
from shared.contract.errors import InvalidInput, NotFound
from shared.contract.ids import first_uuid7_at, uuid7
from shared.contract.swaps import WhatIf, read_tally, tally_json

_METHOD: Final = (
    "Every decision of the period that is not erased is decided again by the other rule, on the"
    " inputs on record. Shares have Wilson's 95 % interval, differences of the two shares on the"
    " same decisions Newcombe's for paired data (method 10), mean costs the normal one."
)


async def ask(connection: AsyncConnection, order: WhatIf, *, actor: str) -> WhatIfStatus:
    """Keep the order; a worker finds it.

    Raises ``InvalidInput`` naming each bundle or model that is neither registered nor, where it is
    to have decided, on record.
    """
    await _check_models(connection, order)
    now = datetime.now(UTC)
    # Of all models, as the worker reads them.
    period = Selection(since=order.since, until=order.until)
    totals = await read_totals(connection, period, ["prediction"])
    end = first_uuid7_at(now, later_ms=1)
    if order.until is not None:
        end = min(end, first_uuid7_at(_midnight(order.until)))
    added = insert(what_ifs).values(
        id=UUID(uuid7(int(now.timestamp() * 1000))),
        created_at=now,
        created_by=actor,
        content=order.model_dump_json(),
        expected_rows=sum(row.predictions for row in totals),
        state="queued",
        read_to=UUID(int=0) if order.since is None else first_uuid7_at(_midnight(order.since)),
        read_until=end,
        rows_read=0,
        tally=tally_json(read_tally("[]")),
        fence=0,
        attempts=0,
    )
    return _status((await connection.execute(added.returning(what_ifs))).one())


async def _check_models(connection: AsyncConnection, order: WhatIf) -> None:
    named = {
        name: arm
        for name, arm in (("arm", order.arm), ("decided_by", order.decided_by))
        if arm is not None
    }
    models = await read_models(connection, {arm.bundle for arm in named.values()})
    faults = []
    for name, arm in named.items():
        if name == "decided_by":
            on_record = await read_totals(connection, Selection(bundle=arm.bundle), ["model"])
            if on_record:
                models.setdefault(arm.bundle, set()).update(row.model for row in on_record)
        if unknown := unknown_model(name, arm, models):
            faults.append(unknown)
    if faults:
        raise InvalidInput(faults)


async def read(connection: AsyncConnection, identifier: UUID) -> WhatIfStatus:
    """How far the what-if is, and what it found; raises ``NotFound``."""
    found = await connection.execute(select(what_ifs).where(what_ifs.c.id == identifier))
    row = found.one_or_none()
    if row is None:
        raise NotFound(f"There is no what-if {identifier}.")
    return _status(row)


async def read_page(connection: AsyncConnection, query: WhatIfQuery) -> WhatIfPage:
    """Everybody's what-ifs, the newest first."""
    statement = select(what_ifs).order_by(what_ifs.c.id.desc()).limit(query.limit + 1)
    if query.cursor is not None:
        statement = statement.where(what_ifs.c.id < query.cursor)
    found = (await connection.execute(statement)).all()
    shown = found[: query.limit]
    return WhatIfPage(
        items=[_status(row) for row in shown],
        next_cursor=encode_cursor(shown[-1].id) if len(found) > len(shown) else None,
    )


async def cancel(connection: AsyncConnection, identifier: UUID) -> WhatIfStatus:
    """End the what-if, unless it has ended; raises ``NotFound``.

    What its worker writes from now on names a fence that is over.
    """
    table = what_ifs.c
    await connection.execute(
        update(what_ifs)
        .where(table.id == identifier, table.state.in_(("queued", "running")))
        .values(state="cancelled", finished_at=func.now(), fence=table.fence + 1, leased_until=None)
    )
    return await read(connection, identifier)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def _status(row: AnyRow) -> WhatIfStatus:
    order = WhatIf.model_validate_json(row.content)
    done = row.state == "done"
    tally = read_tally(row.tally)
    return WhatIfStatus(
        id=row.id,
        state=row.state,
        created_at=row.created_at,
        created_by=row.created_by,
        finished_at=row.finished_at,
        order=order,
        progress=_progress(row),
        problem=row.problem,
        swaps=swaps_of(tally) if done else None,
        cost=cost_of(tally, order.costs) if done and order.costs else None,
        method=_METHOD,
    )


def _progress(row: AnyRow) -> WhatIfProgress:
    rate, left = None, None
    if row.started_at is not None:
        took = (row.finished_at or datetime.now(UTC)) - row.started_at
        rate = row.rows_read / max(took.total_seconds(), 0.001)
    if row.state == "running" and rate:
        left = timedelta(seconds=max(0, row.expected_rows - row.rows_read) / rate)
    return WhatIfProgress(
        read=row.rows_read,
        expected=row.expected_rows,
        rate=rate and round(rate, 1),
        estimated_end=None if left is None else datetime.now(UTC) + left,
    )

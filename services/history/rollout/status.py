"""Which models decide, what waits to change that, and who follows."""

from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.rollout.board import read_board, read_entries
from services.history.rollout.replicas import is_alive
from services.history.rollout.schemas import Replica, RolloutEntry, RolloutStatus, State
from services.history.tables import replicas

_RECENT: Final = 20
_SHOWN_S: Final = 60.0


async def read_status(connection: AsyncConnection, *, approvals: int) -> RolloutStatus:
    """The roll-out as it stands."""
    board = await read_board(connection)
    active = [] if board.active is None else [board.active.epoch]
    recent = await read_entries(connection, limit=_RECENT)
    return RolloutStatus(
        epoch=board.newest,
        approvals=approvals,
        active=next(iter(await read_entries(connection, limit=1, epochs=active)), None),
        pending=_newest(recent, "pending"),
        proposed=_newest(recent, "proposed"),
        replicas=await _read_replicas(connection),
        recent=recent,
    )


def _newest(entries: list[RolloutEntry], state: State) -> RolloutEntry | None:
    return next((entry for entry in entries if entry.state == state), None)


async def _read_replicas(connection: AsyncConnection) -> list[Replica]:
    age = func.extract("epoch", func.clock_timestamp() - replicas.c.seen_at)
    alive = is_alive().label("alive")
    statement = (
        select(replicas, age.label("seen_s_ago"), alive)
        .where(age < _SHOWN_S)
        .order_by(alive.desc(), replicas.c.replica)
    )
    return [
        Replica(
            replica=row.replica,
            kind=row.kind,
            epoch=row.epoch,
            bundle=row.bundle,
            ready=row.ready,
            failed=row.failed,
            failure=row.failure,
            seen_s_ago=round(row.seen_s_ago, 2),
            seen_at=row.seen_at,
            alive=row.alive,
        )
        for row in await connection.execute(statement)
    ]

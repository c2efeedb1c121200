"""The replicas: what they report, and the moment at which all of them are ready.

A pending roll-out comes into force once every living replica has it loaded. If one cannot load it,
or is late, it fails and the former one stays. PostgreSQL decides; Redis has a copy for replicas
that start while this service is away.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from redis.asyncio import Redis
from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.history import audit
from services.history.database import connection, transaction
from services.history.rollout.board import Board, add_state, read_board
from services.history.rollout.schemas import State
from services.history.tables import AnyRow, replicas
from shared.contract.rollout import ROLLOUT_KEY, ReplicaReport, Rollout, RolloutState
from shared.observability.logs import get_logger
from shared.redis import REDIS_ERRORS

ALIVE_S: Final = 3.0
"""A replica that has not reported for so long has ended, or will be late for every roll-out."""
PATIENCE_S: Final = 60.0
"""How long the replicas may take to load a roll-out before it fails."""
_ACTOR: Final = "replicas"
_log = get_logger(__name__)


async def take_report(engine: AsyncEngine, redis: Redis, report: ReplicaReport) -> RolloutState:
    """Keep how a replica stands, bring a roll-out into force if it was the last one, and answer."""
    values = {
        "kind": report.kind,
        "epoch": report.epoch,
        "bundle": report.bundle,
        "ready": report.ready,
        "failed": report.failed.epoch if report.failed else None,
        # On one line, and without what no text of PostgreSQL can hold.
        "failure": report.failed and " ".join(report.failed.reason.replace("\0", " ").split()),
        "seen_at": func.clock_timestamp(),
    }
    keep = insert(replicas).values(replica=report.replica, **values)
    keep = keep.on_conflict_do_update(index_elements=[replicas.c.replica], set_=values)
    async with connection(engine) as opened:
        await opened.execute(keep)
        board = await read_board(opened)
        pending = board.pending
        settles = pending is not None and _outcome(pending, await read_living(opened)) is not None
    if settles:
        board = await _settle(engine, redis)
    return RolloutState(active=board.active, pending=board.pending)


def is_alive() -> ColumnElement[bool]:
    """Whether a replica has reported within ``ALIVE_S``."""
    return replicas.c.seen_at > func.clock_timestamp() - timedelta(seconds=ALIVE_S)


async def read_living(connection: AsyncConnection) -> Sequence[AnyRow]:
    """The rows of the replicas that are alive."""
    statement = select(replicas).where(is_alive()).order_by(replicas.c.replica)
    return (await connection.execute(statement)).all()


def _outcome(pending: Rollout, living: Sequence[AnyRow]) -> tuple[State, str | None] | None:
    """The state that a pending roll-out reaches now, and why it fails; None if it still waits."""
    for replica in living:
        if replica.failed == pending.epoch:
            return "failed", f"{replica.replica} ({replica.kind}): {replica.failure}"
    if living and all(pending.epoch in (row.ready, row.epoch) for row in living):
        return "active", None
    return None


async def _settle(engine: AsyncEngine, redis: Redis) -> Board:
    """Bring the pending roll-out into force or have it fail, unless somebody else just did."""
    async with transaction(engine) as opened:
        turn = await audit.take_turn(opened)
        board = await read_board(opened)
        pending, waiting = board.pending, board.waiting
        if pending is None or waiting is None:
            return board
        living = await read_living(opened)
        outcome = _outcome(pending, living)
        is_late = turn.occurred_at - waiting.since > timedelta(seconds=PATIENCE_S)
        if outcome is None and living and is_late:
            late = [row.replica for row in living if row.ready != pending.epoch]
            outcome = "failed", f"not ready after {PATIENCE_S:g} s: {', '.join(late)}"
        if outcome is None:
            return board
        state, why = outcome
        await add_state(opened, turn.occurred_at, pending.epoch, state, _ACTOR, why)
        await audit.append(
            opened,
            turn,
            actor=_ACTOR,
            action="activate roll-out" if state == "active" else "fail roll-out",
            subject=f"roll-out {pending.epoch}",
            details={"replicas": [row.replica for row in living]} | ({"why": why} if why else {}),
        )
        board = await read_board(opened)
    _log.info("roll-out settled", epoch=pending.epoch, state=state, why=why)
    if state == "active":
        await keep_copy(redis, pending)
    return board


async def keep_copy(redis: Redis, active: Rollout) -> None:
    """Have Redis hold the roll-out in force; without Redis replicas still get it from here."""
    try:
        await redis.set(ROLLOUT_KEY, active.model_dump_json())
    except REDIS_ERRORS as error:
        _log.warning("no copy of the roll-out in Redis", error=repr(error))


async def settle_late(engine: AsyncEngine, redis: Redis) -> Rollout | None:
    """Have a roll-out fail that waits for too long, forget ended replicas, renew the copy.

    Returns the roll-out in force.
    """
    async with connection(engine) as opened:
        board = await read_board(opened)
        ended = replicas.c.seen_at < func.clock_timestamp() - timedelta(days=1)
        await opened.execute(delete(replicas).where(ended))
    if board.pending is not None:
        board = await _settle(engine, redis)
    if board.active is not None:
        await keep_copy(redis, board.active)
    return board.active

"""The roll-outs as they stand in the database: rows that are only ever added."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history import audit
from services.history.rollout.schemas import Change, RolloutEntry, State
from services.history.tables import AnyRow, rollout_states, rollouts
from shared.contract.rollout import Rollout

_STATES: Final[tuple[State, ...]] = ("superseded", "failed", "active", "pending", "proposed")
"""The first of these that a roll-out has reached is the state it is in."""
_OPEN: Final = frozenset({"proposed", "pending"})


@dataclass(frozen=True)
class Board:
    """The active roll-out, if there is one, and all newer ones, in order."""

    rows: Sequence[AnyRow]

    @property
    def newest(self) -> int:
        """The newest epoch; 0 if nothing was ever rolled out."""
        return self.rows[-1].epoch if self.rows else 0

    @property
    def active(self) -> Rollout | None:
        """The roll-out in force."""
        return _content(self.rows[0]) if self.rows and "active" in self.rows[0].states else None

    @property
    def waiting(self) -> AnyRow | None:
        """The newest roll-out if it is proposed or pending: no other one can be."""
        return self.rows[-1] if self.rows and state_of(self.rows[-1]) in _OPEN else None

    @property
    def in_use(self) -> Sequence[Rollout]:
        """The roll-out in force and the one that waits."""
        waiting = self.waiting
        active = self.active
        used = [] if active is None else [active]
        return used if waiting is None else [*used, _content(waiting)]

    @property
    def pending(self) -> Rollout | None:
        """The roll-out that the replicas prepare."""
        waiting = self.waiting
        return _content(waiting) if waiting is not None and "pending" in waiting.states else None


def state_of(row: AnyRow) -> State:
    """The state that a roll-out is in, whether or not a later one has replaced it."""
    return next(state for state in _STATES if state in row.states)


def _content(row: AnyRow) -> Rollout:
    return Rollout.model_validate_json(row.content)


async def read_board(connection: AsyncConnection) -> Board:
    """What a change is based on, and what replicas are answered with."""
    active = select(func.max(rollout_states.c.epoch)).where(rollout_states.c.state == "active")
    statement = (
        select(
            rollouts.c.epoch,
            rollouts.c.content,
            rollouts.c.proposed_by,
            func.array_agg(rollout_states.c.state).label("states"),
            func.max(rollout_states.c.reached_at).label("since"),
        )
        .join(rollout_states, rollout_states.c.epoch == rollouts.c.epoch)
        .where(rollouts.c.epoch >= func.coalesce(active.scalar_subquery(), 0))
        .group_by(rollouts.c.epoch)
        .order_by(rollouts.c.epoch)
    )
    return Board((await connection.execute(statement)).all())


async def read_entries(
    connection: AsyncConnection, *, limit: int, epochs: Sequence[int] | None = None
) -> list[RolloutEntry]:
    """The newest roll-outs with their states, or those of ``epochs``; the newest first."""
    chosen = select(rollouts).order_by(rollouts.c.epoch.desc()).limit(limit)
    if epochs is not None:
        chosen = chosen.where(rollouts.c.epoch.in_(epochs))
    rows = (await connection.execute(chosen)).all()
    states: dict[int, dict[str, AnyRow]] = {row.epoch: {} for row in rows}
    reached = select(rollout_states).where(rollout_states.c.epoch.in_(states))
    for state in await connection.execute(reached):
        states[state.epoch][state.state] = state
    newest_active = select(func.max(rollout_states.c.epoch)).where(
        rollout_states.c.state == "active"
    )
    active = (await connection.execute(newest_active)).scalar_one()
    return [_entry(row, states[row.epoch], active) for row in rows]


def _entry(row: AnyRow, states: Mapping[str, AnyRow], active: int | None) -> RolloutEntry:
    state = next(state for state in _STATES if state in states)
    reached = states[state]
    # Only a roll-out that another one approved has an actor of its own there.
    approver = states["pending"].actor if {"proposed", "pending"} <= states.keys() else None
    return RolloutEntry(
        epoch=row.epoch,
        state="replaced" if state == "active" and row.epoch != active else state,
        since=reached.reached_at,
        why=reached.why,
        change=row.change,
        reason=row.reason,
        proposed_by=row.proposed_by,
        proposed_at=row.proposed_at,
        approved_by=approver,
        rollout=_content(row),
    )


@dataclass(frozen=True)
class Author:
    """Who changes what decides, and why."""

    actor: str
    change: Change
    reason: str


async def add_rollout(
    connection: AsyncConnection, turn: audit.Turn, rollout: Rollout, author: Author, state: State
) -> None:
    """Add a roll-out in its first state; the caller appends to the audit log."""
    await connection.execute(
        insert(rollouts).values(
            epoch=rollout.epoch,
            proposed_at=turn.occurred_at,
            proposed_by=author.actor,
            change=author.change,
            reason=author.reason,
            experiment=rollout.experiment,
            content=rollout.model_dump_json(),
        )
    )
    await add_state(connection, turn.occurred_at, rollout.epoch, state, author.actor)


async def add_state(
    connection: AsyncConnection,
    at: datetime,
    epoch: int,
    state: State,
    actor: str,
    why: str | None = None,
) -> None:
    """Have a roll-out reach a state."""
    await connection.execute(
        insert(rollout_states).values(epoch=epoch, state=state, reached_at=at, actor=actor, why=why)
    )

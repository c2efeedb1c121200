"""Changes of the roll-out: proposed, approved, promoted, rolled back.

Each takes its turn at the audit log, so that they come one after the other, and is an entry there.
"""

import json
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.history import audit
from services.history.bundles import unknown_model
from services.history.database import transaction
from services.history.rollout.board import (
    Author,
    Board,
    add_rollout,
    add_state,
    read_board,
    read_entries,
)
from services.history.rollout.errors import NotPossible, RolloutChanged, SecondPersonNeeded
from services.history.rollout.registry import check_intact, passed_gate
from services.history.rollout.schemas import Change, RolloutChange, RolloutEntry, State, Step
from services.history.tables import bundles, rollout_states, rollouts
from services.scoring.store import BundleStore
from shared.contract.errors import Fault, InvalidInput
from shared.contract.rollout import Arm, Candidate, Rollout

GUARD: Final = "guard"
"""Who rolls back when a limit is crossed."""
_NOTHING: Final = "Nothing is rolled out yet: each replica decides by its own default."


async def propose(
    engine: AsyncEngine, store: BundleStore, change: RolloutChange, *, actor: str, approvals: int
) -> RolloutEntry:
    """Add what shall be rolled out; with one approval the replicas prepare it at once.

    Raises ``RolloutChanged`` unless it is based on the newest epoch, ``InvalidInput`` naming each
    bundle or model that cannot decide, and ``UnusableBundle`` for one that is not intact.
    """
    arms = [change.default, *change.shadows]
    arms += [] if change.candidate is None else [change.candidate]
    await check_intact(engine, store, sorted({arm.bundle for arm in arms}))
    async with transaction(engine) as opened:
        turn = await audit.take_turn(opened)
        board = await _board(opened, change.epoch)
        wanted = _rollout(board, change.default, change.candidate, change.shadows)
        author = Author(actor, "set", change.reason)
        return await _add(opened, turn, board, wanted, author, is_approved=approvals == 1)


async def promote(engine: AsyncEngine, step: Step, *, actor: str, approvals: int) -> RolloutEntry:
    """Have the candidate decide all; raises ``NotPossible`` if there is none."""
    async with transaction(engine) as opened:
        turn = await audit.take_turn(opened)
        board = await _board(opened, step.epoch)
        active = board.active
        if active is None or active.candidate is None:
            raise NotPossible("There is no candidate to promote.")
        arm = _arm_of(active.candidate)
        shadows = [shadow for shadow in active.shadows if shadow != arm]
        wanted = _rollout(board, arm, None, shadows)
        author = Author(actor, "promote", step.reason)
        return await _add(opened, turn, board, wanted, author, is_approved=approvals == 1)


async def roll_back(engine: AsyncEngine, step: Step, *, actor: str) -> RolloutEntry:
    """Take the candidate's share away; without one, have the former default decide again.

    It never brings back what a roll-back took away, and passes over bundles that are retired. It
    needs no second person: waiting for one would cost more than going back does.
    Raises ``NotPossible`` if there is nothing to go back to.
    """
    async with transaction(engine) as opened:
        turn = await audit.take_turn(opened)
        board = await _board(opened, step.epoch)
        active = board.active
        if active is None:
            raise NotPossible(_NOTHING)
        default = active.default
        if active.candidate is None:
            default = await _former_default(opened)
        shadows = [shadow for shadow in active.shadows if shadow != default]
        wanted = _rollout(board, default, None, shadows)
        author = Author(actor, "roll back", step.reason)
        return await _add(opened, turn, board, wanted, author, is_approved=True)


async def take_share_away(engine: AsyncEngine, active: Rollout, reason: str) -> bool:
    """Roll the candidate of ``active`` back because a limit is crossed; false if it is gone."""
    async with transaction(engine) as opened:
        turn = await audit.take_turn(opened)
        board = await read_board(opened)
        waiting = board.pending
        takes_it_away = waiting is not None and waiting.candidate is None
        if board.active != active or active.candidate is None or takes_it_away:
            return False
        wanted = _rollout(board, active.default, None, active.shadows)
        author = Author(GUARD, "roll back", reason)
        await _add(opened, turn, board, wanted, author, is_approved=True)
        return True


async def approve(engine: AsyncEngine, epoch: int, *, actor: str) -> RolloutEntry:
    """Have the replicas prepare what another one proposed.

    Raises ``RolloutChanged`` if it is not the newest, ``NotPossible`` if it needs no approval, and
    ``SecondPersonNeeded``.
    """
    async with transaction(engine) as opened:
        turn = await audit.take_turn(opened)
        row = (await _board(opened, epoch)).waiting
        if row is None or "pending" in row.states:
            raise NotPossible(f"The roll-out {epoch} does not wait for an approval.")
        if row.proposed_by == actor:
            raise SecondPersonNeeded(actor)
        await add_state(opened, turn.occurred_at, epoch, "pending", actor)
        await audit.append(
            opened,
            turn,
            actor=actor,
            action="approve roll-out",
            subject=f"roll-out {epoch}",
            details={"proposed_by": row.proposed_by},
        )
        return await _entry(opened, epoch)


async def _board(connection: AsyncConnection, epoch: int) -> Board:
    board = await read_board(connection)
    if board.newest != epoch:
        raise RolloutChanged(board.newest)
    return board


async def _check_arms(connection: AsyncConnection, rollout: Rollout) -> None:
    """Raise ``InvalidInput`` unless all arms are different models of bundles that can decide."""
    arms: list[tuple[str, Arm]] = [("default", rollout.default)]
    if rollout.candidate is not None:
        arms.append(("candidate", rollout.candidate))
    arms += ((f"shadows.{place}", shadow) for place, shadow in enumerate(rollout.shadows))
    versions = {arm.bundle for _, arm in arms}
    statement = select(bundles).where(bundles.c.version.in_(versions))
    found = {row.version: row for row in await connection.execute(statement)}
    manifests = {version: json.loads(row.manifest) for version, row in found.items()}
    models = {version: manifest["models"] for version, manifest in manifests.items()}
    faults = []
    seen: dict[tuple[str, str], str] = {}
    for name, arm in arms:
        other = seen.setdefault((arm.bundle, arm.model), name)
        if unknown := unknown_model(name, arm, models):
            faults.append(unknown)
        elif found[arm.bundle].retired_at is not None:
            faults.append(Fault(field=f"{name}.bundle", message="is retired"))
        elif passed_gate(manifests[arm.bundle]) is False and name in ("default", "candidate"):
            message = "was refused by the gate of its training, so that it may only shadow"
            faults.append(Fault(field=f"{name}.bundle", message=message))
        elif other != name:
            faults.append(Fault(field=name, message=f"is the same model as {other}"))
    if faults:
        raise InvalidInput(faults)


def _rollout(
    board: Board, default: Arm, candidate: Candidate | None, shadows: Iterable[Arm]
) -> Rollout:
    """The next roll-out. A candidate that stays keeps its experiment, and those who meet it."""
    epoch, active = board.newest + 1, board.active
    continues = active is not None and default == active.default and _same(candidate, active)
    return Rollout(
        epoch=epoch,
        default=default,
        candidate=candidate,
        shadows=list(shadows),
        salt=active.salt if active is not None and continues else secrets.token_hex(8),
        experiment=(
            None
            if candidate is None
            else active.experiment
            if active is not None and continues
            else f"x{epoch}"
        ),
    )


def _same(candidate: Candidate | None, active: Rollout) -> bool:
    now = active.candidate
    return (
        candidate is not None
        and now is not None
        and (candidate.bundle, candidate.model) == (now.bundle, now.model)
    )


async def _former_default(connection: AsyncConnection) -> Arm:
    """The newest former default whose bundle is not retired; raises ``NotPossible``."""
    statement = (
        select(rollouts.c.change, rollouts.c.content)
        .join(rollout_states, rollout_states.c.epoch == rollouts.c.epoch)
        .where(rollout_states.c.state == "active")
        .order_by(rollouts.c.epoch)
    )
    in_force = (await connection.execute(statement)).all()
    former = _former_defaults(
        (row.change, Rollout.model_validate_json(row.content)) for row in in_force
    )
    versions = {arm.bundle for arm in former}
    is_retired = bundles.c.version.in_(versions) & bundles.c.retired_at.is_not(None)
    retired = set((await connection.execute(select(bundles.c.version).where(is_retired))).scalars())
    for arm in former:
        if arm.bundle not in retired:
            return arm
    if former:
        bundle = former[0].bundle
        raise NotPossible(f"{bundle} is retired, so there is nothing to roll back to: use set.")
    raise NotPossible("There is nothing earlier to go back to; use set.")


def _former_defaults(in_force: Iterable[tuple[Change, Rollout]]) -> Sequence[Arm]:
    """The defaults before that of the last roll-out, newest first.

    What a roll-back took away, as default or as candidate, is not among them unless it was set or
    promoted again: going back twice goes further back.
    """
    kept: list[Arm] = []
    before: Rollout | None = None
    for change, rollout in in_force:
        gone = [rollout.default]
        if before is not None and change == "roll back":
            gone.append(before.default)
            gone += [] if before.candidate is None else [_arm_of(before.candidate)]
        kept = [*(arm for arm in kept if arm not in gone), rollout.default]
        before = rollout
    return kept[-2::-1]


def _arm_of(candidate: Candidate) -> Arm:
    return Arm(bundle=candidate.bundle, model=candidate.model)


async def _add(
    connection: AsyncConnection,
    turn: audit.Turn,
    board: Board,
    rollout: Rollout,
    author: Author,
    *,
    is_approved: bool,
) -> RolloutEntry:
    """Add the roll-out in place of one that waits."""
    await _check_arms(connection, rollout)
    waiting = board.waiting
    if waiting is not None:
        why = f"The roll-out {rollout.epoch} was set before this one was in force."
        at = turn.occurred_at
        await add_state(connection, at, waiting.epoch, "superseded", author.actor, why)
    state: State = "pending" if is_approved else "proposed"
    await add_rollout(connection, turn, rollout, author, state)
    content = rollout.model_dump(mode="json", exclude={"salt"})
    details: dict[str, Any] = {"reason": author.reason, "state": state, "rollout": content}
    await audit.append(
        connection,
        turn,
        actor=author.actor,
        action=f"{author.change} roll-out",
        subject=f"roll-out {rollout.epoch}",
        details=details,
    )
    return await _entry(connection, rollout.epoch)


async def _entry(connection: AsyncConnection, epoch: int) -> RolloutEntry:
    [entry] = await read_entries(connection, limit=1, epochs=[epoch])
    return entry

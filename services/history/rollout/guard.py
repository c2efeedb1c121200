"""The guard: takes a candidate's share away when it decides too differently, or cannot."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.database import DATABASE_ERRORS, AdvisoryLock, connection, try_lock
from services.history.errors import StoreUnavailable
from services.history.rollout.changes import take_share_away
from services.history.rollout.replicas import read_living, settle_late
from services.history.rollout.report import crossed, read_experiment, read_total
from services.history.rollout.sequential import difference
from services.history.settings import HistorySettings
from shared.contract.rollout import Rollout
from shared.observability.logs import get_logger

Suspects = frozenset[tuple[str, str]]
"""Replicas that cannot serve a roll-out, each with a sentence on why."""

_log = get_logger(__name__)


@asynccontextmanager
async def guarded(
    engine: AsyncEngine, redis: Redis, settings: HistorySettings
) -> AsyncIterator[None]:
    """Watch the roll-out during the block, in one process at a time."""
    task = asyncio.create_task(_run(engine, redis, settings))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _run(engine: AsyncEngine, redis: Redis, settings: HistorySettings) -> None:
    suspects: Suspects = frozenset()
    while True:
        try:
            async with try_lock(engine, AdvisoryLock.ROLLOUT_GUARD) as locked:
                if locked:
                    active = await settle_late(engine, redis)
                    suspects = await watch(
                        engine, active, suspects, largest=settings.rollout_guard_difference
                    )
        except (*DATABASE_ERRORS, StoreUnavailable) as error:
            _log.warning("the roll-out is not guarded", error=repr(error))
        await asyncio.sleep(settings.rollout_guard_pause_s)


async def watch(
    engine: AsyncEngine, active: Rollout | None, suspects: Suspects, *, largest: float
) -> Suspects:
    """Take the share of the candidate of ``active`` away if it crosses a limit.

    The limits are an approval share that surely differs by more than ``largest``, and a replica
    that cannot serve the roll-out and is among ``suspects``, which could not at the former look.
    Returns the present ones.
    """
    if active is None or active.candidate is None:
        return frozenset()
    failing = await _failing(engine, active)
    lasting = failing & suspects
    reason = min(lasting)[1] if lasting else await _deviation(engine, active, largest)
    if reason is not None and await take_share_away(engine, active, reason):
        _log.error("the candidate's share is taken away", epoch=active.epoch, reason=reason)
    return failing


async def _failing(engine: AsyncEngine, active: Rollout) -> Suspects:
    async with connection(engine) as opened:
        living = await read_living(opened)
    return frozenset(
        (row.replica, f"{row.replica} cannot serve it: {row.failure}"[:500])
        for row in living
        if row.failed == active.epoch
    )


async def _deviation(engine: AsyncEngine, active: Rollout, largest: float) -> str | None:
    async with connection(engine) as opened:
        experiment = await read_experiment(opened, active.experiment)
        candidate = await read_total(opened, experiment, "candidate")
        default = await read_total(opened, experiment, "default")
    return crossed(difference(candidate.approvals, default.approvals), largest)

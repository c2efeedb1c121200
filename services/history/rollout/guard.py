"""The guard: takes a candidate's share away when it decides too differently, or cannot."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
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
from shared.observability.metrics import Sample
from shared.observability.metrics.names import ROLLOUT_GUARD_ACTIONS

Suspects = Mapping[str, str]
"""Replicas that cannot serve a roll-out or find its candidate unfit, each with a sentence on why.
"""

_log = get_logger(__name__)


class Guard:
    """Looks at the candidate again and again, and counts how often it took a share away."""

    def __init__(self) -> None:
        self.actions = 0
        self._suspects: Suspects = {}

    def samples(self) -> Iterable[Sample]:
        """That count."""
        yield Sample(ROLLOUT_GUARD_ACTIONS, self.actions)

    @asynccontextmanager
    async def watching(
        self, engine: AsyncEngine, redis: Redis, settings: HistorySettings
    ) -> AsyncIterator[None]:
        """Watch the roll-out during the block, in one process at a time."""
        task = asyncio.create_task(self._run(engine, redis, settings))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self, engine: AsyncEngine, redis: Redis, settings: HistorySettings) -> None:
        while True:
            try:
                async with try_lock(engine, AdvisoryLock.ROLLOUT_GUARD) as locked:
                    if locked:
                        active = await settle_late(engine, redis)
                        await self.look(engine, active, largest=settings.rollout_guard_difference)
            except (*DATABASE_ERRORS, StoreUnavailable) as error:
                _log.warning("the roll-out is not guarded", error=repr(error))
            await asyncio.sleep(settings.rollout_guard_pause_s)

    async def look(self, engine: AsyncEngine, active: Rollout | None, *, largest: float) -> None:
        """Take the share of the candidate of ``active`` away if it crosses a limit.

        The limits are an approval share that surely differs by more than ``largest``, and a
        replica that at the former look could not serve the roll-out, or found that the candidate
        fails or is slow, and still does.
        """
        suspects, self._suspects = self._suspects, {}
        if active is None or active.candidate is None:
            return
        self._suspects = await _failing(engine, active)
        lasting = sorted(self._suspects.keys() & suspects.keys())
        reason = (
            self._suspects[lasting[0]] if lasting else await _deviation(engine, active, largest)
        )
        if reason is not None and await take_share_away(engine, active, reason):
            self.actions += 1
            _log.error("the candidate's share is taken away", epoch=active.epoch, reason=reason)


async def _failing(engine: AsyncEngine, active: Rollout) -> Suspects:
    async with connection(engine) as opened:
        living = await read_living(opened)
    return {
        row.replica: f"{row.replica}: {row.failure}"[:500]
        for row in living
        if row.failed == active.epoch
    }


async def _deviation(engine: AsyncEngine, active: Rollout, largest: float) -> str | None:
    async with connection(engine) as opened:
        experiment = await read_experiment(opened, active.experiment)
        candidate = await read_total(opened, experiment, "candidate")
        default = await read_total(opened, experiment, "default")
    return crossed(difference(candidate.approvals, default.approvals), largest)

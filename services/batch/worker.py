"""The worker: ``python -m services.batch.worker`` works off batches until SIGTERM.

Any number of workers may run; each batch is worked on by one at a time.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final

import httpx
import uvloop

from services.batch import jobs, shadows, upkeep
from services.batch.database import DATABASE_ERRORS, is_outage, open_pool
from services.batch.jobs import Job, Lost
from services.batch.metrics import WorkerMetrics
from services.batch.settings import BatchSettings, webhook_faults
from services.batch.shadows import Shadows
from services.batch.what_if import WhatIfs
from services.batch.work import Tools, work_on
from services.scoring.decisions import Served
from services.scoring.follower import Follower
from services.scoring.manifest import BundleError
from services.scoring.metrics import DecisionMetrics
from services.scoring.publisher import Publisher, http_sink, redis_sink
from services.scoring.registry import Bundle, load_bundle
from services.scoring.replay import Bundles
from shared import keep_loaded
from shared.contract.errors import NotRecorded
from shared.contract.rollout import Rollout
from shared.observability.logs import configure_logging, get_logger, take_over_output
from shared.observability.metrics import Metrics, Sample, build_info
from shared.observability.metrics.server import metrics_server
from shared.redis import connect
from shared.settings import read_settings_or_exit, redis_faults

_NICE: Final = 10
"""Single decisions are answered at once, batches when there is time."""
_UPKEEP_S: Final = 1.0
_FAILURE_S: Final = 1.0
_RENEWALS: Final = 3
"""How often a lease is renewed within its time."""
_log = get_logger(__name__)


class Worker:
    """Works on some batches at a time, and lets others have their turns."""

    def __init__(self, tools: Tools, webhooks: httpx.AsyncClient) -> None:
        self._tools = tools
        self._webhooks = webhooks
        self._shadows = Shadows(tools.pool, tools.bundles)
        self._what_ifs = WhatIfs(
            pool=tools.pool,
            bundles=tools.bundles,
            lease_s=tools.settings.batch_lease_s,
            stopping=tools.stopping,
            count=tools.metrics.compared,
        )

    def samples(self) -> Iterable[Sample]:
        """The metrics of its work, its decisions and their publishing."""
        yield from self._tools.metrics.samples()
        yield from self._tools.decisions.samples()
        yield from self._tools.publisher.samples()
        yield from self._tools.follower.samples()

    def stop(self) -> None:
        """Have ``run`` return once the chunks in progress are done."""
        self._tools.stopping.set()

    async def run(self) -> None:
        """Work until ``stop``."""
        settings = self._tools.settings
        await asyncio.gather(
            *(
                self._repeat(self._turn, every_s=settings.batch_poll_s)
                for _ in range(settings.batch_concurrency)
            ),
            self._repeat(self._score_shadows, every_s=settings.batch_poll_s),
            self._repeat(self._what_if, every_s=settings.batch_poll_s),
            self._repeat(self._erase, every_s=_UPKEEP_S),
            self._repeat(self._delete_old, every_s=_UPKEEP_S),
            self._repeat(self._send_webhook, every_s=_UPKEEP_S),
        )

    async def _repeat(self, duty: Callable[[], Awaitable[bool]], *, every_s: float) -> None:
        """Do a duty until ``stop``, again and again as long as there is something to do."""
        while not self._tools.stopping.is_set():
            pause_s = every_s
            try:
                if await duty():
                    continue
            except (*DATABASE_ERRORS, BundleError, Lost, NotRecorded) as error:
                self._tools.metrics.failures += 1
                pause_s = _FAILURE_S
                reason = str(error) or type(error).__name__
                _log.warning("not done, tried again", duty=duty.__name__, reason=reason)
            except Exception:  # noqa: BLE001 - whatever one batch does, the worker goes on
                self._tools.metrics.failures += 1
                pause_s = _FAILURE_S
                _log.exception("unexpected error", duty=duty.__name__)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._tools.stopping.wait(), pause_s)

    async def _turn(self) -> bool:
        """Whether there was a batch to work on; raises whatever ended its turn."""
        settings, metrics, pool = self._tools.settings, self._tools.metrics, self._tools.pool
        metrics.seen()
        if self._tools.follower.is_behind:
            # Its batches would be decided by a roll-out that is in force no longer.
            return False
        job = await jobs.take(pool, lease_s=settings.batch_lease_s)
        if job is None:
            return False
        blameless = True
        metrics.active += 1
        try:
            async with self._held(job):
                await work_on(job, self._tools)
        except Lost:
            metrics.lost += 1
            _log.info("batch lost", batch=str(job.id), fence=job.fence)
        except Exception as error:
            blameless = isinstance(error, NotRecorded) or is_outage(error)
            raise
        finally:
            metrics.active -= 1
            with suppress(*DATABASE_ERRORS):
                # Otherwise its lease expires.
                await jobs.release(pool, job, blameless=blameless)
        return True

    @asynccontextmanager
    async def _held(self, job: Job) -> AsyncIterator[None]:
        """Renew the lease during the block; raises ``Lost`` in it when the batch is lost."""
        settings = self._tools.settings
        task = asyncio.current_task()
        lost = False

        async def renew() -> None:
            nonlocal lost
            while True:
                await asyncio.sleep(settings.batch_lease_s / _RENEWALS)
                try:
                    await jobs.renew(self._tools.pool, job, lease_s=settings.batch_lease_s)
                except DATABASE_ERRORS as error:
                    _log.warning("lease not renewed", batch=str(job.id), error=str(error))
                except Lost:
                    lost = True
                    if task is not None:
                        task.cancel()
                    return

        renewing = asyncio.create_task(renew())
        try:
            yield
        except asyncio.CancelledError:
            if not lost:
                raise
            if task is not None:
                task.uncancel()
            raise Lost from None
        finally:
            renewing.cancel()

    async def _score_shadows(self) -> bool:
        done = await self._shadows.score()
        self._tools.metrics.shadowed += done
        return done > 0

    async def _what_if(self) -> bool:
        try:
            return await self._what_ifs.work()
        except Lost:
            _log.info("what-if lost or cancelled")
            return True

    async def _erase(self) -> bool:
        done = await upkeep.erase_noted(self._tools.pool)
        if done:
            _log.info("erased from batches", erasures=done)
        return done > 0

    async def _delete_old(self) -> bool:
        days = self._tools.settings.batch_retention_days
        deleted = await upkeep.delete_old(self._tools.pool, retention_days=days)
        if deleted:
            _log.info("deleted old batches", batches=deleted)
        given_up = await shadows.give_up(self._tools.pool, days=days)
        if given_up:
            _log.warning("decisions left without their shadows", decisions=given_up)
        return False

    async def _send_webhook(self) -> bool:
        delivered = await upkeep.send_webhook(
            self._tools.pool, self._webhooks, self._tools.settings
        )
        if delivered is None:
            return False
        self._tools.metrics.webhooks["delivered" if delivered else "failed"] += 1
        return True


@asynccontextmanager
async def open_worker(settings: BatchSettings) -> AsyncIterator[Worker]:
    """A worker with its connections; raises ``BundleError``."""
    decisions = DecisionMetrics()
    served = Served(load_bundle(settings.bundle_root, settings.bundle_version), decisions)
    served.expect()
    secret = settings.internal_api_key
    key = secret.get_secret_value() if secret else None
    store = settings.open_store()

    def compose(bundle: Bundle, rollout: Rollout, candidate: Bundle | None) -> Served:
        return Served(bundle, decisions, rollout, candidate)

    follower = Follower(served, kind="batch-worker", store=store, compose=compose)
    async with (
        httpx.AsyncClient() as history,
        httpx.AsyncClient() as webhooks,
        connect(settings.redis_url) as redis,
        connect(settings.redis_url, command_timeout_s=settings.publish_redis_deadline_s) as stream,
        open_pool(settings, name="batch-worker", size=settings.batch_concurrency + 5) as pool,
        follower.following(history, redis, history_url=settings.history_url, api_key=key),
    ):
        publisher = Publisher(
            stream=redis_sink(stream, deadline_s=settings.publish_redis_deadline_s),
            fallback=http_sink(
                history,
                history_url=settings.history_url,
                api_key=key,
                deadline_s=settings.publish_http_deadline_s,
            ),
        )
        tools = Tools(
            settings=settings,
            pool=pool,
            redis=redis,
            publisher=publisher,
            bundles=Bundles(store, follower.loaded),
            follower=follower,
            decisions=decisions,
            metrics=WorkerMetrics(),
            stopping=asyncio.Event(),
        )
        yield Worker(tools, webhooks)
        await publisher.drain()


async def work(settings: BatchSettings) -> None:
    """Run one worker until SIGTERM or SIGINT; raises ``BundleError``."""
    async with open_worker(settings) as worker:
        metrics = Metrics()
        metrics.read_from(build_info("batch-worker"), worker.samples)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        with metrics_server(metrics, host=settings.metrics_host, port=settings.metrics_port):
            await worker.run()


def main() -> int:
    """Work until SIGTERM or SIGINT; then the exit code is 0, and 1 without a usable bundle."""
    take_over_output()
    settings = read_settings_or_exit(BatchSettings, redis_faults, webhook_faults)
    configure_logging(settings)
    os.nice(_NICE)
    # Rows are containers without cycles, but each answer that httpx receives is a cycle: two a
    # second, of 50 containers.
    keep_loaded(5_000)
    try:
        uvloop.run(work(settings))
    except BundleError as error:
        _log.critical("the bundle cannot be used", reason=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

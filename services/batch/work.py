"""One turn of a batch: its file is checked, then its rows are decided, a chunk at a time.

Whatever ends a turn, the next one goes on with the first chunk that is not done. A chunk's
decisions are kept before they are published, and each has an id that its line gives it: so a chunk
that is worked on again, by whomever, publishes the same bytes again, and each is stored once.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Final

from anyio.to_thread import run_sync
from redis.asyncio import Redis

from services.batch import jobs
from services.batch.checking import CheckedChunk, check, checked_rows, packed_rows
from services.batch.database import Pool
from services.batch.jobs import Chunk, Job, decision_ids
from services.batch.metrics import WorkerMetrics
from services.batch.results import Line, decisions_of, packed_decisions
from services.batch.settings import BatchSettings
from services.scoring.decisions import Served, Submission, decide_by_rollout, recorded_event
from services.scoring.engine import Decided
from services.scoring.follower import Follower
from services.scoring.manifest import BundleError
from services.scoring.metrics import DecisionMetrics
from services.scoring.publisher import Publisher
from services.scoring.registry import Bundle
from services.scoring.replay import Bundles
from shared.contract.events import STREAM
from shared.contract.rollout import Arm, Rollout
from shared.files.tables import FileError
from shared.observability.logs import get_logger
from shared.redis import REDIS_ERRORS

_BACK_PRESSURE_S: Final = 0.05
"""Pause before the length of the stream is looked at again."""
_log = get_logger(__name__)


@dataclass(frozen=True)
class Tools:
    """What a worker works with."""

    settings: BatchSettings
    pool: Pool
    redis: Redis
    publisher: Publisher
    bundles: Bundles
    follower: Follower[Served]
    decisions: DecisionMetrics
    metrics: WorkerMetrics
    stopping: asyncio.Event
    """Set when the worker ends: then a turn is over."""


async def work_on(job: Job, tools: Tools) -> None:
    """Work on the batch until it has ended or its turn has; raises ``Lost``.

    Also raises ``DATABASE_ERRORS`` and ``NotRecorded``: then it is to be tried again.
    """
    if job.attempts > jobs.MAX_ATTEMPTS:
        problem = f"It was given up after {jobs.MAX_ATTEMPTS} attempts without progress."
        await _end(job, tools, "failed", problem)
        return
    try:
        if job.state == "checking":
            rollout = tools.follower.served.rollout
            if job.by_rollout and job.rollout is None and rollout is not None:
                job = await jobs.fix_rollout(tools.pool, job, rollout)
            if not await _check(job, tools):
                return
        await _decide(job, tools)
    except FileError as error:
        await _end(job, tools, "failed", str(error))
    except BundleError as error:
        await _end(job, tools, "failed", f"Its bundle of models cannot be used. {error}")


async def _end(
    job: Job,
    tools: Tools,
    state: jobs.State,
    problem: str | None = None,
    *,
    remarks: Sequence[str] | None = None,
) -> None:
    await jobs.end(tools.pool, job, state, problem, remarks=remarks)
    tools.metrics.ended(state)
    _log.info("batch ended", batch=str(job.id), state=state)


async def _check(job: Job, tools: Tools) -> bool:
    """Whether all rows are checked and to be decided; raises ``FileError``.

    A check that is cut off begins anew.
    """
    await jobs.forget_check(tools.pool, job)
    content = await jobs.read_upload(tools.pool, job)
    file = await run_sync(
        lambda: check(
            content,
            job.kind,
            max_rows=tools.settings.batch_max_rows,
            spellings=job.spellings,
        )
    )

    def next_packed() -> tuple[CheckedChunk, bytes, bytes] | None:
        chunk = next(file.chunks, None)
        if chunk is None:
            return None
        return (chunk, packed_rows(chunk.checked), packed_rows(chunk.faulty))

    number = faulty = 0
    while taken := await run_sync(next_packed):
        if tools.stopping.is_set():
            return False
        chunk, checked, faults = taken
        await jobs.add_chunk(
            tools.pool,
            job,
            number,
            lines=chunk.lines,
            content=checked,
            faults=faults,
            rows=chunk.rows,
            faulty=len(chunk.faulty),
        )
        number += 1
        faulty += len(chunk.faulty)
        tools.metrics.faulty += len(chunk.faulty)
    if faulty and job.faulty_rows == "stop":
        rows = "1 row is" if faulty == 1 else f"{faulty:,} rows are"
        problem = f"{rows} faulty, so nothing was decided."
        await _end(job, tools, "failed", problem, remarks=file.remarks)
        return False
    await jobs.end_check(tools.pool, job, file.remarks)
    return True


async def _decide(job: Job, tools: Tools) -> None:
    """Decide chunks until the turn is over; raises ``BundleError``."""
    served = await _serving(job, tools)
    served.expect()
    ends_s = monotonic() + tools.settings.batch_turn_s
    chunk = await jobs.next_chunk(tools.pool, job)
    while chunk is not None and not tools.stopping.is_set():
        chunk = await _advance(job, chunk, served, tools)
        # Only now: a turn brings at least one chunk to its end, however short it is.
        if monotonic() >= ends_s:
            break
    if chunk is None:
        await _end(job, tools, "done")


async def _serving(job: Job, tools: Tools) -> Served:
    """What decides the batch; raises ``BundleError``.

    A batch that is put on record takes part in an experiment, a what-if does not.
    """

    async def bundle_of(arm: Arm) -> Bundle:
        bundle = await tools.bundles.find(arm.bundle)
        if arm.model not in bundle.models:
            raise BundleError(f"It holds no model {arm.model}.")
        return bundle.deciding_with(arm.model, "The batch names it.")

    default = await bundle_of(Arm(bundle=job.bundle_version, model=job.model))
    rollout = None if job.rollout is None else Rollout.model_validate_json(job.rollout)
    candidate = await bundle_of(job.candidate) if job.candidate else None
    return Served(default, tools.decisions, rollout, candidate)


async def _advance(job: Job, chunk: Chunk, served: Served, tools: Tools) -> Chunk | None:
    """Bring one chunk to its end, unless a row was erased from it meanwhile; the next one to do."""
    began_s = perf_counter()
    if chunk.state == "checked":
        lines, decided = _decided(job, chunk, served)
        kept = await jobs.keep_decisions(tools.pool, job, chunk, packed_decisions(lines))
        if not kept:
            return await jobs.next_chunk(tools.pool, job)
    else:
        lines = decisions_of(chunk.content)
        decided = [Decided.read(line.body) for line in lines]
    model_s = perf_counter() - began_s
    publish_s = 0.0
    if job.record:
        if not await _room(job, tools):
            return chunk
        publish_s = await _publish(job, lines, tools)
    following = await jobs.end_chunk(
        tools.pool,
        job,
        chunk,
        decided=len(decided),
        approved=sum(each.prediction == "Approved" for each in decided),
        with_warnings=sum(each.warnings > 0 for each in decided),
    )
    tools.metrics.decided += len(decided)
    if job.record:
        for each in decided:
            tools.decisions.count(
                each, validate_s=0.0, model_s=model_s / len(decided), publish_s=publish_s
            )
    return following


def _decided(job: Job, chunk: Chunk, served: Served) -> tuple[list[Line], list[Decided]]:
    rows = checked_rows(chunk.content)
    decided = decide_by_rollout(
        [row.application for row in rows],
        served,
        decision_ids(job.id, (row.line for row in rows)),
    )
    lines = [Line(row.line, each.body) for row, each in zip(rows, decided, strict=True)]
    return lines, decided


async def _publish(job: Job, lines: Sequence[Line], tools: Tools) -> float:
    """Publish the decisions, and return how long that took; raises ``NotRecorded``."""
    began_s = perf_counter()
    batch = f"batch/{job.id}"
    await tools.publisher.publish_many(
        [recorded_event(body, Submission(job.client, f"{batch}/{line}")) for line, body in lines]
    )
    return perf_counter() - began_s


async def _room(job: Job, tools: Tools) -> bool:
    """Wait until few enough entries of the stream are not stored yet; false if the worker ends.

    Raises ``Lost``.
    """
    began_s = monotonic()
    try:
        while await _waiting_entries(tools) > tools.settings.batch_stream_entries:
            if tools.stopping.is_set():
                return False
            await jobs.confirm(tools.pool, job)
            await asyncio.sleep(_BACK_PRESSURE_S)
    finally:
        tools.metrics.waited_s += monotonic() - began_s
    return True


async def _waiting_entries(tools: Tools) -> int:
    """The entries of the stream that are not stored yet.

    Without Redis there is none to fill: decisions go to the history service, which stores them
    before it answers.
    """
    try:
        entries: int = await tools.redis.xlen(STREAM)
    except REDIS_ERRORS:
        return 0
    return entries

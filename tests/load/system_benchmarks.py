"""Cost of a decision until it is stored, with everything running that ``make run`` starts."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final
from uuid import UUID

import asyncpg
import httpx
from pydantic_core import to_json
from redis import Redis

from services.local import servers
from shared.contract.events import STREAM
from tests.applications import random_application
from tests.load import processor, stack
from tests.load.decision_benchmarks import LOADED, applications_to
from tests.load.measurement import (
    Bound,
    Measurement,
    Unit,
    at_least,
    at_most,
    interleave,
    measured,
    ratio,
)
from tests.load.report import number
from tests.load.results import percentile
from tests.load.stack import Bench, WholeSystem
from tests.load.wrk import NotMeasured, Run, Target

_COSTS: Final[tuple[tuple[str, str, Unit], ...]] = (
    ("processor time", "us", "us"),
    ("bytes written to disk", "written", "bytes"),
)
_STORING: Final = ("consumer", "postgres", "redis")
_POLL_S: Final = 0.005
_IDLE_S: Final = 0.2
_GIVE_UP_S: Final = 60.0
_SAMPLES_PER_S: Final = 50
"""Decisions whose way to a visible row is timed, beside the load."""

_SHARE_OF_KNEE: Final = 0.6
_MINUTE_S: Final = 60.0
_LOOK_EVERY_S: Final = 5.0
_US_PER_S: Final = 1_000_000
_MS_PER_S: Final = 1000


@dataclass(frozen=True)
class Contender:
    """A route, the processes behind it by name, and whether all that it answered is stored."""

    target: Target
    pids: Mapping[str, int]
    is_settled: Callable[[], bool]


@dataclass(frozen=True)
class Loaded:
    """A run that ended when all was stored.

    ``us`` is the processor time of each process per decision, ``written`` its bytes on disk.
    """

    run: Run
    rate: float
    us: Mapping[str, float]
    written: Mapping[str, float]

    def us_of(self, *names: str) -> float:
        """The processor time of these processes per decision."""
        return sum(self.us[name] for name in names)


def whole_system(bench: Bench) -> list[Measurement]:
    """Compare the whole system with what decides, or stores, less."""
    if not processor.is_counted():
        bench.say("  not measured: this system has no /proc")
        return []
    with _contenders(bench) as (system, contenders):
        loaded, single = (
            interleave(
                bench,
                {
                    name: partial(load, bench, contender, connections=connections)
                    for name, contender in contenders.items()
                },
                show=lambda found: f"{found.rate:,.0f}/s {found.run.p50_s * _MS_PER_S:.2f} ms",
            )
            for connections in (LOADED, 1)
        )
        target = contenders["system"].target
        delays = [asyncio.run(visible_after_ms(bench, system, target)) for _ in range(bench.rounds)]
    return [
        *_reported(loaded["system"], single["system"], delays),
        *_rates(loaded),
        *_medians(single),
        *_processor_times(loaded),
    ]


def memory(bench: Bench) -> list[Measurement]:
    """Observe the memory of every process for some minutes at a part of the highest rate."""
    if not processor.is_counted() or not bench.minutes:
        bench.say("  not measured: this system has no /proc, or --minutes is 0")
        return []
    with (
        stack.whole_system(bench, database="memory") as system,
        ThreadPoolExecutor(1) as other,
    ):
        target = applications_to(bench, system.inference_url, "/predict")
        knee = target.run(connections=LOADED, seconds=bench.seconds).rate
        pause_ms = round(_MS_PER_S * LOADED / (knee * _SHARE_OF_KNEE))
        running = other.submit(
            target.run, connections=LOADED, seconds=bench.minutes * _MINUTE_S, pause_ms=pause_ms
        )
        began_s = time.monotonic()
        seen: list[tuple[float, dict[str, int]]] = []
        while not running.done():
            sizes = {name: processor.own_bytes(pid) for name, pid in system.pids.items()}
            seen.append((time.monotonic() - began_s, sizes))
            time.sleep(_LOOK_EVERY_S)
        rate = running.result().rate
    grown = growth(seen)
    by_process = ", ".join(f"{name} {percent:+.1f}" for name, percent in grown.items())
    return [
        measured(
            f"Memory of each process, {bench.minutes:g} minutes of load: growth after the first",
            [max(grown.values())],
            unit="%",
            bound=at_most(2),
            detail=f"{by_process}; at {rate:,.0f} decisions/s, of {knee:,.0f} at most",
        )
    ]


@contextmanager
def _contenders(bench: Bench) -> Iterator[tuple[WholeSystem, dict[str, Contender]]]:
    """Serve all of them; while one is loaded the others are idle."""
    servers.run_sql(bench.postgres.url, "CREATE DATABASE baselines")
    env = bench.environment(database="baselines")
    with (
        stack.whole_system(bench, database="whole") as system,
        # In a keyspace of its own, so that the consumer has nothing to store for it.
        stack.inference(bench, redis_number=1) as inference,
        stack.baseline("limit", bench.folder) as limit,
        stack.baseline("limit", bench.folder, plain=True) as plain_limit,
        stack.baseline("insert", bench.folder, plain=True, env=env) as insert,
        stack.baseline("background", bench.folder, plain=True, env=env) as background,
        Redis.from_url(bench.redis.url) as redis,
    ):
        served = {
            "inference": inference,
            "limit": limit,
            "plain limit": plain_limit,
            "insert": insert,
            "background": background,
        }
        yield (
            system,
            {
                "system": Contender(
                    applications_to(bench, system.inference_url, "/predict"),
                    system.pids,
                    lambda: redis.xlen(STREAM) == 0,
                ),
                **{
                    name: Contender(
                        applications_to(bench, serving.url, "/predict"),
                        {name: serving.pid},
                        partial(_is_idle, serving.pid) if name == "background" else _is_settled,
                    )
                    for name, serving in served.items()
                },
            },
        )


def load(bench: Bench, contender: Contender, *, connections: int) -> Loaded:
    """Load a route and wait until all that it answered is stored."""
    _settle(contender)
    before = _used(contender)
    run = contender.target.run(connections=connections, seconds=bench.seconds)
    ended_s = time.monotonic()
    _settle(contender)
    elapsed_s = run.duration_s + time.monotonic() - ended_s
    after = _used(contender)
    return Loaded(
        run,
        rate=run.requests / elapsed_s,
        us={
            name: (after[name][0] - used_s) / run.requests * _US_PER_S
            for name, (used_s, _) in before.items()
        },
        written={
            name: (after[name][1] - written) / run.requests for name, (_, written) in before.items()
        },
    )


def _used(contender: Contender) -> dict[str, tuple[float, int]]:
    return {
        name: (processor.used_s(pid), processor.written_bytes(pid))
        for name, pid in contender.pids.items()
    }


def _settle(contender: Contender) -> None:
    deadline_s = time.monotonic() + _GIVE_UP_S
    while not contender.is_settled():
        if time.monotonic() > deadline_s:
            raise NotMeasured(f"not everything was stored within {_GIVE_UP_S:.0f} s")
        time.sleep(_POLL_S)


def _is_settled() -> bool:
    return True


def _is_idle(pid: int) -> bool:
    """Whether it uses less than a tenth of a processor: a backlog of inserts takes more."""
    before_s = processor.used_s(pid)
    time.sleep(_IDLE_S)
    return processor.used_s(pid) - before_s < _IDLE_S / 10


async def visible_after_ms(bench: Bench, system: WholeSystem, target: Target) -> list[float]:
    """Time some decisions under load from their answer to their row, as another session sees it.

    Looking takes processor time itself, so it is done in a run of its own.
    """
    rng = random.Random(bench.seconds)  # noqa: S311 - test data, not a secret
    answered: dict[UUID, float] = {}
    found: list[float] = []
    running = asyncio.create_task(
        asyncio.to_thread(target.run, connections=LOADED, seconds=bench.seconds)
    )

    async def decide() -> None:
        async with httpx.AsyncClient(headers=bench.headers) as client:
            while not running.done():
                content = to_json(random_application(rng))
                answer = await client.post(target.url + target.path, content=content)
                answered[UUID(answer.json()["prediction_id"])] = time.monotonic()
                # At random moments: in step with the consumer, each would wait equally long.
                await asyncio.sleep(rng.uniform(0, 2 / _SAMPLES_PER_S))

    deciding = asyncio.create_task(decide())
    connection = await asyncpg.connect(system.database_url)
    while answered or not deciding.done():
        rows = await connection.fetch(
            "SELECT id FROM predictions WHERE id = ANY($1)", list(answered)
        )
        now_s = time.monotonic()
        found += [(now_s - answered.pop(row["id"])) * _MS_PER_S for row in rows]
        await asyncio.sleep(_POLL_S)
    await connection.close()
    await deciding
    await running
    return sorted(found)


def _reported(
    loaded: Sequence[Loaded], single: Sequence[Loaded], delays: Sequence[Sequence[float]]
) -> list[Measurement]:
    everything = "Whole system"
    return [
        measured(
            f"{everything}, 32 connections",
            [found.rate for found in loaded],
            unit="decisions/s",
            bound=None,
            detail=f"stored; p50 {_ms(loaded, 'p50_s')} ms, p99 {_ms(loaded, 'p99_s')} ms",
        ),
        measured(
            f"{everything}, one connection: p50",
            [found.run.p50_s * _MS_PER_S for found in single],
            unit="ms",
            bound=None,
            detail=f"p99 {_ms(single, 'p99_s')} ms,"
            f" {median(found.rate for found in single):,.0f} decisions/s",
        ),
        *(
            measured(
                f"{everything}, 32 connections: answer to visible row, p{rank}",
                [percentile(each, rank) for each in delays],
                unit="ms",
                bound=bound,
                detail=f"{sum(map(len, delays)):,} decisions, seen by another session",
            )
            for rank, bound in ((50, None), (99, at_most(250)))
        ),
        *(
            measured(
                f"{everything}, {connections}: {what} per stored decision",
                [sum(getattr(found, member).values()) for found in runs],
                unit=unit,
                bound=None,
                detail=_by_process([getattr(found, member) for found in runs]),
            )
            for connections, runs in (("32 connections", loaded), ("one connection", single))
            for what, member, unit in _COSTS
        ),
    ]


def _rates(loaded: Mapping[str, Sequence[Loaded]]) -> list[Measurement]:
    def compared(name: str, ours: str, theirs: str, bound: Bound | None) -> Measurement:
        mine, others = ([found.rate for found in loaded[each]] for each in (ours, theirs))
        return ratio(
            name,
            mine,
            others,
            bound=bound,
            detail=f"{median(mine):,.0f} against {median(others):,.0f} requests/s",
        )

    stored = "Stored decisions/s, 32 connections, against"
    return [
        compared(f"{stored} the limit route on uvicorn", "system", "plain limit", at_least(1)),
        compared(f"{stored} the limit route", "system", "limit", None),
        compared(f"{stored} inserting before answering", "system", "insert", at_least(3)),
        compared(
            f"{stored} inserting after answering, which is not durable",
            "system",
            "background",
            None,
        ),
        compared(
            "Inference alone, 32 connections: rate against the limit route",
            "inference",
            "limit",
            at_least(0.8),
        ),
    ]


def _medians(single: Mapping[str, Sequence[Loaded]]) -> list[Measurement]:
    def compared(name: str, ours: str, theirs: str, bound: Bound | None) -> Measurement:
        return ratio(
            name,
            [found.run.p50_s for found in single[ours]],
            [found.run.p50_s for found in single[theirs]],
            bound=bound,
            detail=f"{_ms(single[ours], 'p50_s')} ms against {_ms(single[theirs], 'p50_s')} ms",
        )

    p50 = "p50 of the whole system, one connection, against"
    return [
        compared(f"{p50} the limit route", "system", "limit", at_most(1.6)),
        compared(f"{p50} the limit route on uvicorn", "system", "plain limit", None),
        compared(f"{p50} inserting before answering", "system", "insert", at_most(0.75)),
        compared(
            "p50 of inference alone, one connection, against the limit route",
            "inference",
            "limit",
            at_most(2.5),
        ),
    ]


def _processor_times(loaded: Mapping[str, Sequence[Loaded]]) -> list[Measurement]:
    system = loaded["system"]
    everything = [sum(found.us.values()) for found in system]
    storing = [found.us_of(*_STORING) for found in system]
    deciding = [found.us_of("inference") for found in system]
    name = "Processor time of all processes per stored decision, against a request of the limit"
    return [
        *(
            ratio(
                f"{name} route{where}",
                everything,
                [found.us_of(contender) for found in loaded[contender]],
                bound=bound,
                detail=f"{median(everything):,.0f} us against"
                f" {median(found.us_of(contender) for found in loaded[contender]):,.0f} us",
            )
            for contender, where, bound in (
                ("limit", "", at_most(1.2)),
                ("plain limit", " on uvicorn", None),
            )
        ),
        ratio(
            "Processor time of consumer, PostgreSQL and Redis per decision, against inference's",
            storing,
            deciding,
            bound=at_most(0.2),
            detail=f"{median(storing):,.0f} us against {median(deciding):,.0f} us",
        ),
    ]


def growth(seen: Sequence[tuple[float, Mapping[str, int]]]) -> dict[str, float]:
    """Return each process's growth in percent, from the second minute to the last.

    A minute counts with its least: PostgreSQL's helpers come and go.
    """
    last_s = seen[-1][0]
    second = [sizes for at_s, sizes in seen if _MINUTE_S <= at_s < 2 * _MINUTE_S]
    last = [sizes for at_s, sizes in seen if at_s > last_s - _MINUTE_S]
    if not second:
        raise NotMeasured("memory is observed for at least two minutes")

    def least(minute: Sequence[Mapping[str, int]], name: str) -> int:
        return min(sizes[name] for sizes in minute)

    return {name: 100 * (least(last, name) / least(second, name) - 1) for name in seen[0][1]}


def _ms(found: Sequence[Loaded], percentile_name: str) -> str:
    return f"{median(getattr(each.run, percentile_name) for each in found) * _MS_PER_S:.3g}"


def _by_process(found: Sequence[Mapping[str, float]]) -> str:
    return ", ".join(f"{name} {number(median(each[name] for each in found))}" for name in found[0])

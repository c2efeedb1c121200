"""How fast the consumer turns the stream into committed rows and roll-ups."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Final
from uuid import uuid4

import asyncpg
from pydantic_core import to_json
from redis import Redis
from tqdm import tqdm

from services.scoring.decisions import Submission, recorded_event
from services.scoring.engine import decide
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.registry import load_bundle
from shared.contract.events import ANONYMOUS, CONSUMER_GROUP, EVENT_FIELD, STREAM
from shared.contract.parsing import parse_application
from tests.applications import random_application
from tests.load import stack
from tests.load.decision_benchmarks import decision_route, rate_of
from tests.load.measurement import Measurement, at_least, interleave, ratio
from tests.load.stack import Bench
from tests.load.wrk import NotMeasured

DRAINED: Final = "drained"
"""The database that the consumers fill."""

_STAGED: Final = "bench:staged"
_GROUP: Final = 16
"""Events per entry, as measured for one worker under 32 connections."""
_WARM_UP: Final = 64 * _GROUP
"""Events stored beforehand (at most half of all), so that every concurrent batch has its connection
open."""
_MOST_CONSUMERS: Final = 3
_POLL_S: Final = 0.005
_GIVE_UP_S: Final = 300.0


def drain(bench: Bench) -> list[Measurement]:
    """Compare draining a full stream with what is published, and several consumers with one."""
    events = real_events(bench.events)
    bench.create_database(DRAINED)
    with decision_route(bench) as route:
        results = interleave(
            bench,
            {
                "published": partial(rate_of, route, bench),
                **{
                    f"drained by {count}": partial(drain_rate, bench, events, consumers=count)
                    for count in range(1, _MOST_CONSUMERS + 1)
                },
            },
            show=lambda rate: f"{rate:,.0f}/s",
        )
    drained = results["drained by 1"]

    def compared(
        name: str, ours: list[float], theirs: list[float], least: float | None
    ) -> Measurement:
        return ratio(
            name,
            ours,
            theirs,
            bound=None if least is None else at_least(least),
            detail=f"{median(ours):,.0f} against {median(theirs):,.0f} a second,"
            f" {len(events):,} events",
        )

    return [
        compared(
            "Consumer, from stream to committed rows with roll-ups, against what one inference"
            " worker publishes",
            drained,
            results["published"],
            5,
        ),
        *(
            compared(
                f"{count} consumers against one", results[f"drained by {count}"], drained, None
            )
            for count in range(2, _MOST_CONSUMERS + 1)
        ),
    ]


def real_events(count: int) -> list[bytes]:
    """Make events as the inference service does, each about a different application."""
    bundle = load_bundle(BUNDLE_ROOT, None)
    rng = random.Random(count)  # noqa: S311 - test data, not a secret
    return [
        recorded_event(
            decide(
                parse_application(to_json(random_application(rng))),
                model=bundle.champion,
                bundle=bundle,
            ).body,
            Submission(ANONYMOUS, uuid4().hex),
        )
        for _ in tqdm(range(count), desc="  deciding", leave=False)
    ]


def drain_rate(
    bench: Bench, events: Sequence[bytes], *, consumers: int, database: str = DRAINED
) -> float:
    """Return the events per second from a full stream to an empty one, everything committed."""
    asyncio.run(empty_tables(bench, database))
    bench.clear_stream()
    with Redis.from_url(bench.redis.url) as redis:
        redis.xgroup_create(STREAM, CONSUMER_GROUP, id="0", mkstream=True)
        warm_up = min(_WARM_UP, len(events) // 2)
        _fill(redis, STREAM, events[:warm_up])
        measured = events[warm_up:]
        # Staged under another name, so that one command hands the full stream to the consumers.
        redis.xgroup_create(_STAGED, CONSUMER_GROUP, id="0", mkstream=True)
        _fill(redis, _STAGED, measured)
        with stack.consumers(bench, database=database, count=consumers):
            wait_until(lambda: len(redis.xinfo_consumers(STREAM, CONSUMER_GROUP)) == consumers)
            wait_until(lambda: redis.xlen(STREAM) == 0)
            # So large a write makes Redis rewrite its file. That is not the consumers' work: they
            # write a few bytes per event.
            wait_until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"])
            redis.rename(_STAGED, STREAM)
            began = time.monotonic()
            wait_until(lambda: redis.xlen(STREAM) == 0)
            elapsed_s = time.monotonic() - began
    stored = asyncio.run(count_rows(bench, database))
    if stored != len(events):
        raise NotMeasured(f"{len(events)} events were added and {stored} rows stored")
    return len(measured) / elapsed_s


def _fill(redis: "Redis", name: str, events: Sequence[bytes]) -> None:
    with redis.pipeline(transaction=False) as pipeline:
        for first in range(0, len(events), _GROUP):
            pipeline.xadd(name, {EVENT_FIELD: b"\n".join(events[first : first + _GROUP])})
        pipeline.execute()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _GIVE_UP_S
    while not condition():
        if time.monotonic() > deadline:
            raise NotMeasured(f"the consumers did not finish within {_GIVE_UP_S:.0f} s")
        time.sleep(_POLL_S)


async def empty_tables(bench: Bench, database: str) -> None:
    connection = await asyncpg.connect(bench.database_url(database))
    try:
        await connection.execute(
            "TRUNCATE predictions, prediction_rollup, applicant_rollup, daily_rollup"
        )
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def count_rows(bench: Bench, database: str) -> int:
    connection = await asyncpg.connect(bench.database_url(database))
    try:
        return int(await connection.fetchval("SELECT count(*) FROM predictions"))
    finally:
        await connection.close()

"""Cost of reading the history, with ten thousand rows and with a thousand times as many."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from http.client import HTTPConnection
from statistics import median
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from services.batch.database import open_pool
from services.batch.settings import BatchSettings
from services.batch.what_if import WhatIfs
from services.history.cache import Cache
from services.history.comparing import what_ifs
from services.history.database import open_engine, transaction
from services.history.schemas import encode_cursor
from services.history.settings import CACHE_PREFIX, HistorySettings
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.registry import load_bundle
from services.scoring.replay import Bundles
from services.scoring.store import BundleStore
from shared.contract.rollout import Arm
from shared.contract.swaps import WhatIf
from shared.redis import connect
from tests.load import stack, wrk
from tests.load.decision_benchmarks import LOADED
from tests.load.filling import fill
from tests.load.measurement import Measurement, at_least, at_most, interleave, measured, ratio
from tests.load.stack import Bench
from tests.load.wrk import NotMeasured

_FEW: Final = 10_000
_PAGE: Final = 20
_DEEP_PAGE: Final = 10_000
_REQUESTS: Final = 100
"""Per route, database and round."""

_IN_A_MINUTE: Final = 10**7
_WARM_UP_REQUESTS: Final = 30
_WARM_UP_S: Final = 1.0
_Reader = Callable[[], str]


@dataclass(frozen=True)
class Rows:
    """A filled database behind its own history service; ``paths`` gives each route's next path."""

    url: str
    redis_url: str
    headers: dict[str, str]
    paths: dict[str, _Reader]
    bytes_per_row: float

    async def forget(self) -> None:
        """Invalidate every cached answer."""
        cache = Cache(connect(self.redis_url), prefix=CACHE_PREFIX)
        await cache.invalidate()
        await cache.aclose()


def uncached_reads(bench: Bench) -> list[Measurement]:
    """Compare each uncached read with few rows and with many; measure the size of a row."""
    with (
        _filled(bench, rows=_FEW, redis_number=1) as few,
        _filled(bench, rows=bench.rows, redis_number=2) as many,
    ):
        measurements = [_growth(bench, route, few, many) for route in few.paths]
    size = measured(
        "Size of a recorded decision in PostgreSQL, indexes included",
        [many.bytes_per_row],
        unit="bytes",
        bound=at_most(450),
        detail=f"{bench.rows:,} rows",
    )
    return [*measurements, size]


def cached_statistics(bench: Bench) -> list[Measurement]:
    """Compare cached statistics with an empty route of the same framework."""
    with (
        _filled(bench, rows=_FEW, redis_number=1) as few,
        stack.baseline("empty", bench.folder) as empty,
    ):
        targets = {
            "/statistics": wrk.target(bench.folder, few.url, "/statistics", headers=few.headers),
            "empty": wrk.target(bench.folder, empty.url, "/", headers=few.headers),
        }
        for target in targets.values():
            target.run(connections=LOADED, seconds=_WARM_UP_S)
        results = interleave(
            bench,
            {
                name: partial(target.run, connections=LOADED, seconds=bench.seconds)
                for name, target in targets.items()
            },
            show=lambda result: f"{result.rate:,.0f}/s",
        )
    ours, theirs = ([run.rate for run in results[name]] for name in ("/statistics", "empty"))
    return [
        ratio(
            "Cached GET /statistics against an empty route",
            ours,
            theirs,
            bound=at_least(0.7),
            detail=f"{median(ours):,.0f} against {median(theirs):,.0f} requests/s",
        )
    ]


def what_if(bench: Bench) -> list[Measurement]:
    """Measure how fast a worker decides what is on record again, by the champion."""
    database = f"rows_{bench.rows}"
    asyncio.run(_ensure_filled(bench, database, rows=bench.rows))
    url = bench.database_url(database)
    results = interleave(
        bench,
        {"what-if": lambda: asyncio.run(decided_again(url, rows=bench.rows))},
        show=lambda rate: f"{rate:,.0f}/s",
    )
    return [
        measured(
            "What-if: recorded decisions scored again and compared by one worker",
            results["what-if"],
            unit="decisions/s",
            bound=at_least(_IN_A_MINUTE / 60),
            detail=f"{bench.rows:,} rows; {_IN_A_MINUTE:,} within a minute are required",
        )
    ]


async def decided_again(url: str, *, rows: int) -> float:
    """Decide all ``rows`` of a filled database again; return how many a second."""
    bundle = load_bundle(BUNDLE_ROOT, None)
    arm = Arm(bundle=bundle.manifest.version, model=bundle.champion.name)
    engine = open_engine(HistorySettings(database_url=url), name="bench", pool_size=1)
    async with open_pool(BatchSettings(database_url=url), name="bench", size=3) as pool:
        worker = WhatIfs(
            pool=pool,
            bundles=Bundles(BundleStore(None, shipped=BUNDLE_ROOT), lambda: [bundle]),
            lease_s=60,
            stopping=asyncio.Event(),
            count=lambda _: None,
        )
        async with transaction(engine) as opened:
            asked = await what_ifs.ask(opened, WhatIf(arm=arm), actor="bench")
        began_s = time.perf_counter()
        await worker.work()
        elapsed_s = time.perf_counter() - began_s
        async with transaction(engine) as opened:
            found = await what_ifs.read(opened, asked.id)
    await engine.dispose()
    if found.swaps is None or found.swaps.all.decisions != rows:
        raise NotMeasured(f"the what-if is {found.state} after {found.progress.read} decisions")
    return rows / elapsed_s


def _growth(bench: Bench, route: str, few: Rows, many: Rows) -> Measurement:
    """Measure how much longer the median read takes with many rows, alternating by request."""
    few_medians, many_medians = [], []
    with (
        closing(_open(few.url)) as small,
        closing(_open(many.url)) as large,
        asyncio.Runner() as runner,
    ):

        def alternate(requests: int) -> tuple[list[float], list[float]]:
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(requests):
                for connection, rows, found in zip((small, large), (few, many), times, strict=True):
                    runner.run(rows.forget())
                    found.append(_timed(connection, rows.paths[route](), rows.headers))
            return times

        alternate(_WARM_UP_REQUESTS)
        for _ in range(bench.rounds):
            small_times, large_times = alternate(_REQUESTS)
            few_medians.append(median(small_times))
            many_medians.append(median(large_times))
    compared = f"{median(many_medians) * 1000:.2f} ms against {median(few_medians) * 1000:.2f} ms"
    bench.say(f"  {route}: {compared}")
    return ratio(
        f"Uncached p50 of {route} at {bench.rows:,} rows against {_FEW:,}",
        many_medians,
        few_medians,
        bound=at_most(1.3),
        detail=compared,
    )


@contextmanager
def _filled(bench: Bench, *, rows: int, redis_number: int) -> Iterator[Rows]:
    database = f"rows_{rows}"
    asyncio.run(_ensure_filled(bench, database, rows=rows))
    cursor, ids, size = asyncio.run(_look(bench.database_url(database), rows=rows))
    with stack.history(bench, database=database, redis_number=redis_number) as serving:
        yield Rows(
            url=serving.url,
            redis_url=bench.environment(redis_number=redis_number)["REDIS_URL"],
            headers=bench.headers,
            paths={
                "/statistics": lambda: "/statistics",
                "/analytics": lambda: "/analytics",
                "/monitoring/drift": lambda: "/monitoring/drift",
                "/monitoring/fairness": lambda: "/monitoring/fairness",
                "/statistics of 30 days by week, beside the 30 before": lambda: (
                    f"/statistics?since={_days_ago(30)}&group_by=week&compare=previous"
                ),
                "/analytics of one caller": lambda: "/analytics?client=anonymous",
                "the first page of /history": lambda: f"/history?limit={_PAGE}",
                f"page {_DEEP_PAGE:,} of /history": lambda: (
                    f"/history?limit={_PAGE}&cursor={cursor}"
                ),
                "one record": _each_in_turn([f"/history/{id_}" for id_ in ids]),
            },
            bytes_per_row=size,
        )


async def _ensure_filled(bench: Bench, database: str, *, rows: int) -> None:
    connection = await asyncpg.connect(bench.postgres.url)
    try:
        known = await connection.fetchval(
            "SELECT true FROM pg_database WHERE datname = $1", database
        )
    finally:
        await connection.close()
    if not known:
        bench.say(f"  filling a database with {rows:,} rows")
        bench.create_database(database)
        await fill(bench.database_url(database), rows=rows)


async def _look(url: str, *, rows: int) -> tuple[str, Sequence[UUID], float]:
    """Return the deep page's cursor, ids of random rows, and the bytes per row.

    In a history too short for the deep page, the last full page takes its place.
    """
    wanted = _REQUESTS * 100
    before_page = min((_DEEP_PAGE - 1) * _PAGE, rows - _PAGE) - 1
    connection = await asyncpg.connect(url)
    try:
        last = await connection.fetchval(
            "SELECT id FROM predictions ORDER BY id DESC OFFSET $1 LIMIT 1", before_page
        )
        found = await connection.fetch(
            "SELECT id FROM predictions TABLESAMPLE BERNOULLI ($1)", min(100, 200 * wanted / rows)
        )
        size = await connection.fetchval("SELECT pg_total_relation_size('predictions')")
    finally:
        await connection.close()
    ids = [row["id"] for row in found]
    random.Random(rows).shuffle(ids)  # noqa: S311 - an order, not a secret
    return encode_cursor(last), ids[:wanted], size / rows


def _days_ago(days: int) -> date:
    return datetime.now(UTC).date() - timedelta(days=days)


def _each_in_turn(paths: Sequence[str]) -> _Reader:
    """Request each path once: a record stays cached whatever is recorded after it."""
    remaining = iter(paths)
    return lambda: next(remaining)


def _open(url: str) -> HTTPConnection:
    address = urlsplit(url)
    return HTTPConnection(str(address.hostname), address.port, timeout=60)


def _timed(connection: HTTPConnection, path: str, headers: dict[str, str]) -> float:
    """Return the seconds to read the whole answer; raises ``NotMeasured`` if it was cached."""
    began = time.perf_counter()
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    elapsed_s = time.perf_counter() - began
    if answer.status != 200 or answer.headers["X-Cache"] != "MISS":
        excerpt = body[:200].decode(errors="replace")
        raise NotMeasured(f"{path} answers {answer.status}, {answer.headers['X-Cache']}: {excerpt}")
    return elapsed_s

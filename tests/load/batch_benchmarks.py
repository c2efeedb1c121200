"""Batches as callers send them: what single decisions notice of one, and how fast it is stored."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import httpx
from redis import Redis

from shared.contract.events import STREAM
from tests.batch.files import CSV, applications, as_csv
from tests.load import stack
from tests.load.consumer_benchmarks import (
    count_rows,
    drain_rate,
    empty_tables,
    real_events,
    wait_until,
)
from tests.load.decision_benchmarks import decision_route
from tests.load.measurement import Measurement, at_least, at_most, interleave, measured, ratio
from tests.load.processor import is_counted, used_s
from tests.load.stack import Batches, Bench
from tests.load.wrk import NotMeasured, Target

STORED: Final = "batches_stored"
_BESIDE: Final = "batches_beside"
"""Databases."""
_MOST_ROWS_S: Final = 20_000
"""More than one worker decides in a second."""
_POLL_S: Final = 0.1
_WARM_UP_ROWS: Final = 1000
_US_PER_S: Final = 1e6


@dataclass(frozen=True)
class _Latency:
    """A caller's p99, and the rows a second that a batch decided meanwhile."""

    p99_s: float
    batch_rate: float = 0.0


@dataclass(frozen=True)
class Stored:
    """The rows a second of a batch; ``us`` is each process's processor time per row."""

    rate: float
    us: Mapping[str, float]


def beside_batch(bench: Bench) -> list[Measurement]:
    """Measure one caller's latency while a recorded batch is decided and stored, and alone."""
    bench.create_database(_BESIDE)
    content = as_csv(applications(int((bench.seconds + 1) * _MOST_ROWS_S)))
    with (
        decision_route(bench) as one,
        stack.batches(bench, database=_BESIDE) as batches,
    ):
        run_batch(bench, batches, as_csv(applications(_WARM_UP_ROWS)))
        results = interleave(
            bench,
            {
                "alone": lambda: _Latency(one.run(connections=1, seconds=bench.seconds).p99_s),
                "beside": lambda: _beside_batch(bench, one, batches, content),
            },
            show=lambda found: f"{found.p99_s * 1000:.3f} ms",
        )
    alone, beside = ([found.p99_s for found in results[name]] for name in ("alone", "beside"))
    rate = median(found.batch_rate for found in results["beside"])
    return [
        ratio(
            "p99 of POST /predict beside a running batch, against alone",
            beside,
            alone,
            bound=at_most(2),
            detail=f"{median(beside) * 1000:.3f} ms against {median(alone) * 1000:.3f} ms,"
            f" the batch at {rate:,.0f} rows/s",
        )
    ]


def _beside_batch(bench: Bench, one: Target, batches: Batches, content: bytes) -> _Latency:
    with _client(bench, batches) as client:
        path = _begin(client, content)
        wait_until(lambda: _batch(client, path)["decided"] > 0)
        began_s, before = time.monotonic(), _batch(client, path)["decided"]
        p99_s = one.run(connections=1, seconds=bench.seconds).p99_s
        found = _batch(client, path)
        elapsed_s = time.monotonic() - began_s
        if found["state"] != "running":
            raise NotMeasured(f"the batch was {found['state']} before the decisions beside it were")
        client.delete(path).raise_for_status()
    _wait_until_stored(bench)
    return _Latency(p99_s, (found["decided"] - before) / elapsed_s)


def recorded_batch(bench: Bench) -> list[Measurement]:
    """Compare a batch, from its upload to its last stored row, with what one consumer stores."""
    bench.create_database(STORED)
    events, content = real_events(bench.events), as_csv(applications(bench.events))
    batches: list[Stored] = []

    def recorded() -> float:
        batches.append(stored(bench, content, rows=bench.events))
        return batches[-1].rate

    results = interleave(
        bench,
        {
            "batch": recorded,
            "drained": lambda: drain_rate(bench, events, consumers=1, database=STORED),
        },
        show=lambda rate: f"{rate:,.0f}/s",
    )
    ours, alone = results["batch"], results["drained"]
    found = [
        ratio(
            "Recorded batch, from POST /batches to its last stored row, against what one consumer"
            " stores",
            ours,
            alone,
            bound=at_least(0.8),
            detail=f"{median(ours):,.0f} against {median(alone):,.0f} rows/s,"
            f" {bench.events:,} rows of CSV",
        )
    ]
    if is_counted():
        parts = {name: median(each.us[name] for each in batches) for name in batches[0].us}
        found.append(
            measured(
                "Recorded batch: processor time per stored row",
                [sum(each.us.values()) for each in batches],
                unit="us",
                bound=None,
                detail=", ".join(f"{name} {us:.3g}" for name, us in parts.items()),
            )
        )
    return found


def stored(bench: Bench, content: bytes, *, rows: int) -> Stored:
    """Send a file of ``rows`` good rows to services of its own, and wait until all are stored."""
    asyncio.run(empty_tables(bench, STORED))
    with stack.batches(bench, database=STORED) as batches:
        run_batch(bench, batches, as_csv(applications(_WARM_UP_ROWS)))
        before, began_s = _used_s(batches), time.monotonic()
        run_batch(bench, batches, content)
        elapsed_s = time.monotonic() - began_s
        used = {name: after - before[name] for name, after in _used_s(batches).items()}
    found = asyncio.run(count_rows(bench, STORED))
    if found != rows + _WARM_UP_ROWS:
        raise NotMeasured(f"{rows} rows were sent and {found - _WARM_UP_ROWS} stored")
    us = {name: _US_PER_S * seconds / rows for name, seconds in used.items()}
    return Stored(rows / elapsed_s, us)


def run_batch(bench: Bench, batches: Batches, content: bytes) -> None:
    """Return once the file is decided and stored."""
    with _client(bench, batches) as client:
        path = _begin(client, content)
        while _batch(client, path)["state"] != "done":
            # Asking often would be a part of what is measured.
            time.sleep(_POLL_S)
    _wait_until_stored(bench)


def _client(bench: Bench, batches: Batches) -> httpx.Client:
    return httpx.Client(base_url=batches.url, headers=bench.headers | {"Content-Type": CSV})


def _begin(client: httpx.Client, content: bytes) -> str:
    answer = client.post("/batches", content=content, timeout=60).raise_for_status()
    return str(answer.headers["location"])


def _batch(client: httpx.Client, path: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = client.get(path, timeout=60).raise_for_status().json()
    if found["state"] in ("failed", "cancelled"):
        raise NotMeasured(f"the batch was {found['state']}: {found['problem']}")
    return found


def _wait_until_stored(bench: Bench) -> None:
    with Redis.from_url(bench.redis.url) as redis:
        wait_until(lambda: redis.xlen(STREAM) == 0)


def _used_s(batches: Batches) -> dict[str, float]:
    return {name: used_s(pid) if is_counted() else 0.0 for name, pid in batches.pids.items()}

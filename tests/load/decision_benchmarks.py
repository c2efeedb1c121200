"""Cost of a decision, compared with the same framework doing less and with a tutorial's service."""

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from pydantic_core import to_json

from services.inference.many import MAX_APPLICATIONS
from tests.applications import random_application
from tests.harness import HOST, free_port
from tests.load import stack, wrk
from tests.load.measurement import Measurement, at_least, at_most, interleave, measured, ratio
from tests.load.processor import is_counted, used_s
from tests.load.stack import Bench, Serving
from tests.load.wrk import Run, Target

LOADED: Final = 32
"""Connections that load a service."""

_APPLICATIONS: Final = 2000
_WARM_UP_S: Final = 1.0
_TUTORIAL_S: Final = 5.0
"""The tutorial answers about a hundred requests a second, so it needs longer to count enough."""

_STARTS: Final = 5
_BYTES_PER_MIB: Final = 2**20
_SEED: Final = 20240607


def against_tutorial(bench: Bench) -> list[Measurement]:
    """Compare the durable decision under load with pandas and scikit-learn on every request."""
    with (
        decision_route(bench) as ours,
        stack.baseline("tutorial", bench.folder) as serving,
    ):
        tutorial = applications_to(bench, serving.url, "/predict")
        results = interleave(
            bench,
            {
                "/predict": _loaded(ours, bench),
                "tutorial": partial(
                    tutorial.run, connections=LOADED, seconds=max(bench.seconds, _TUTORIAL_S)
                ),
            },
            show=_rate,
        )
    ours_rates, tutorials = _rates(results["/predict"]), _rates(results["tutorial"])
    return [
        ratio(
            "Inference alone, 32 connections: rate against FastAPI with pandas and scikit-learn",
            ours_rates,
            tutorials,
            bound=at_least(60),
            detail=_compare(ours_rates, tutorials),
        )
    ]


def benchmark_route(bench: Bench) -> list[Measurement]:
    """Compare all four models on one application with the champion's durable decision."""
    with stack.inference(bench) as serving:
        four = applications_to(bench, serving.url, "/models/benchmark")
        one = applications_to(bench, serving.url, "/predict")
        results = interleave(
            bench,
            {"/models/benchmark": _loaded(four, bench), "/predict": _loaded(one, bench)},
            show=_rate,
        )
    fours, ones = _rates(results["/models/benchmark"]), _rates(results["/predict"])
    return [
        ratio(
            "POST /models/benchmark (four models) against POST /predict",
            fours,
            ones,
            bound=at_least(0.6),
            detail=_compare(fours, ones),
        )
    ]


def many_at_once(bench: Bench) -> list[Measurement]:
    """Compare 1,000 applications in one request with as many requests, by processor time."""
    rng = random.Random(_SEED)  # noqa: S311 - test data, not a secret
    body = to_json([random_application(rng) for _ in range(MAX_APPLICATIONS)]).decode()
    with stack.inference(bench) as serving:
        one = applications_to(bench, serving.url, "/predict")
        headers = bench.headers
        many = wrk.target(
            bench.folder, serving.url, "/predict/many", headers=headers, bodies=[body]
        )
        many.run(connections=1, seconds=_WARM_UP_S)
        results = interleave(
            bench,
            {
                "/predict/many": lambda: (
                    MAX_APPLICATIONS * rate_by_processor(bench, serving, many, connections=4)
                ),
                "/predict": lambda: rate_by_processor(bench, serving, one),
            },
            show=lambda rate: f"{rate:,.0f}/s",
        )
    manies, ones = results["/predict/many"], results["/predict"]
    return [
        ratio(
            "POST /predict/many with 1,000 applications against POST /predict, by processor time",
            manies,
            ones,
            bound=at_least(3),
            detail=f"{median(manies):,.0f} against {median(ones):,.0f} decisions in a second of a"
            " busy worker",
        )
    ]


def rate_by_processor(
    bench: Bench, serving: Serving, target: Target, *, connections: int = LOADED
) -> float:
    """Return the requests that a service answers per second of its processor time.

    Where the system does not report that, as much time as has passed.
    """
    before_s = used_s(serving.pid) if is_counted() else 0.0
    measured = target.run(connections=connections, seconds=bench.seconds)
    if not is_counted():
        return measured.rate
    return measured.requests / (used_s(serving.pid) - before_s)


def start_and_memory(bench: Bench) -> list[Measurement]:
    """Measure the time from the command to ready, and the memory of a worker after load."""
    starts, sizes = [], []
    for number in range(1, _STARTS + 1):
        port = free_port()
        process = stack.inference_process(bench, port=port)
        began = time.monotonic()
        process.start()
        starts.append(time.monotonic() - began)
        try:
            route = applications_to(bench, f"http://{HOST}:{port}", "/predict")
            route.run(connections=LOADED, seconds=_WARM_UP_S)
            sizes.append(resident_bytes(process.pid) / _BYTES_PER_MIB)
        finally:
            process.stop()
        bench.say(f"  start {number} of {_STARTS}: {starts[-1]:.2f} s, {sizes[-1]:.0f} MiB")
    bench.clear_stream()
    return [
        measured(
            "Cold start of inference to ready",
            starts,
            unit="s",
            bound=at_most(1.5),
            detail=f"{_STARTS} starts, every checksum verified and every model warmed",
        ),
        measured(
            "Memory of an inference worker, resident, after load",
            sizes,
            unit="MiB",
            bound=at_most(130),
            detail=f"{_STARTS} workers, each after {_WARM_UP_S:g} s of 32 connections",
        ),
    ]


@contextmanager
def decision_route(bench: Bench) -> Iterator[Target]:
    """Serve the product's ``POST /predict``, warm."""
    with stack.inference(bench) as serving:
        yield applications_to(bench, serving.url, "/predict")


def rate_of(target: Target, bench: Bench) -> float:
    """Return the requests per second that a loaded route answers."""
    return target.run(connections=LOADED, seconds=bench.seconds).rate


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024
    listed = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)],  # noqa: S607 - its path differs between systems
        capture_output=True,
        text=True,
        check=True,
    )
    return int(listed.stdout) * 1024


def applications_to(bench: Bench, url: str, path: str) -> Target:
    """Return a warm route that takes distinct applications, the same ones for every contender."""
    rng = random.Random(_SEED)  # noqa: S311 - test data, not a secret
    bodies = [to_json(random_application(rng)).decode() for _ in range(_APPLICATIONS)]
    target = wrk.target(bench.folder, url, path, headers=bench.headers, bodies=bodies)
    target.run(connections=LOADED, seconds=_WARM_UP_S)
    return target


def _loaded(target: Target, bench: Bench) -> partial[Run]:
    return partial(target.run, connections=LOADED, seconds=bench.seconds)


def _rates(results: list[Run]) -> list[float]:
    return [result.rate for result in results]


def _rate(result: Run) -> str:
    return f"{result.rate:,.0f}/s"


def _compare(ours: list[float], theirs: list[float]) -> str:
    return f"{median(ours):,.0f} against {median(theirs):,.0f} requests/s"

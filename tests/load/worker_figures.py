"""What a second worker brings on this machine, and why it brings no more."""

import os
import resource
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import NamedTuple

from tests.load import stack
from tests.load.decision_figures import LOADED, applications_to
from tests.load.figure import Bound, Figure, at_least, interleave, ratio
from tests.load.processor import is_counted, session_s
from tests.load.stack import Bench, Serving
from tests.load.wrk import Target


class _Run(NamedTuple):
    """A rate, and the processor time of one request: in the service, in Redis, in the generator."""

    rate: float
    service_s: float
    redis_s: float
    generator_s: float

    @property
    def total_s(self) -> float:
        return self.service_s + self.redis_s + self.generator_s


def two_workers(bench: Bench) -> list[Figure]:
    """Two workers against one, as a multiple of how the limit route scales beside them."""
    with ExitStack() as opened:
        servings = {
            "one": opened.enter_context(stack.inference(bench)),
            "two": opened.enter_context(stack.inference(bench, workers=2)),
            "limit, one": opened.enter_context(stack.baseline("limit", bench.folder)),
            "limit, two": opened.enter_context(stack.baseline("limit", bench.folder, workers=2)),
        }
        targets = {
            name: applications_to(bench, serving.url, "/predict")
            for name, serving in servings.items()
        }

        def contender(name: str, connections: int) -> Callable[[], _Run]:
            return partial(_run, bench, servings[name], targets[name], connections=connections)

        results = interleave(
            bench,
            {
                **{name: contender(name, LOADED) for name in servings},
                # As many for each as the one has: the groups that are handed over are as large.
                **{f"{name}, twice": contender(name, 2 * LOADED) for name in ("two", "limit, two")},
            },
            show=lambda run: f"{run.rate:,.0f}/s",
        )

    def compared(name: str, more: str, bound: Bound | None) -> Figure:
        ours = _gains(results["one"], results[f"two{more}"])
        limits = _gains(results["limit, one"], results[f"limit, two{more}"])
        return ratio(
            name,
            ours,
            limits,
            bound=bound,
            detail=f"{median(ours):.2f} times the rate against {median(limits):.2f} times",
        )

    found = [
        compared(
            "Two workers against one on this machine, as a multiple of how the limit route scales",
            "",
            at_least(1.0),
        ),
        compared("The same with 32 connections for each worker", ", twice", None),
    ]
    if is_counted():
        found.append(_ceiling(results))
    return found


def _ceiling(results: Mapping[str, Sequence[_Run]]) -> Figure:
    """What the scaling can be at most, by what a request costs whom with one worker and two."""
    gains = [
        [
            _most_gain(one, two)
            for one, two in zip(results[f"{route}one"], results[f"{route}two"], strict=True)
        ]
        for route in ("", "limit, ")
    ]
    return ratio(
        "The most that the first can be, by processor time",
        *gains,
        bound=None,
        detail="a request takes "
        + "; ".join(f"{_costs(results[name])} ({name})" for name in ("one", "two"))
        + "; on the limit route "
        + "; ".join(f"{_costs(results[f'limit, {name}'])} ({name})" for name in ("one", "two")),
    )


def _most_gain(one: _Run, two: _Run) -> float:
    """The rate of two workers with no processor idle, against that of one that never waits.

    The two share the processors with Redis and the generator; a single one has its own.
    """
    cores = os.cpu_count() or 1
    alone = min(1 / one.service_s, cores / one.total_s)
    together = min(2 / two.service_s, cores / two.total_s)
    return together / alone


def _costs(runs: Sequence[_Run]) -> str:
    service, redis, generator = (
        median(seconds) * 1e6
        for seconds in zip(
            *((run.service_s, run.redis_s, run.generator_s) for run in runs), strict=True
        )
    )
    return f"{service:.0f} us + {redis:.0f} us in Redis + {generator:.0f} us in the generator"


def _gains(one: Sequence[_Run], two: Sequence[_Run]) -> list[float]:
    return [more.rate / less.rate for less, more in zip(one, two, strict=True)]


def _run(bench: Bench, serving: Serving, target: Target, *, connections: int) -> _Run:
    if not is_counted():
        return _Run(target.run(connections=connections, seconds=bench.seconds).rate, 0, 0, 0)
    service_s, redis_s = session_s(serving.session), session_s(bench.redis.process.pid)
    generator_s = _children_s()
    measured = target.run(connections=connections, seconds=bench.seconds)
    return _Run(
        measured.rate,
        (session_s(serving.session) - service_s) / measured.requests,
        (session_s(bench.redis.process.pid) - redis_s) / measured.requests,
        (_children_s() - generator_s) / measured.requests,
    )


def _children_s() -> float:
    """Seconds that this process's finished children have used: each run of the generator is one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

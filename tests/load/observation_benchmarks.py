"""Cost of logging and counting a decision, and of its reasons."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, Final
from unittest.mock import patch

from fastapi import FastAPI

from services.inference import main
from services.scoring import engine
from services.scoring.metrics import DecisionMetrics
from shared.observability.logs import LogAccess, configure_logging, silent
from shared.observability.metrics import Metrics
from tests.load import stack
from tests.load.decision_benchmarks import applications_to, rate_by_processor
from tests.load.measurement import Measurement, at_least, ratio
from tests.load.stack import Bench

_PAIRS: Final = 4
"""Pairs of services per round: two processes of the very same service differ for their whole life
(memory layout, hash seed) by as much as is to be measured."""


def observation(bench: Bench) -> list[Measurement]:
    """Compare the shipped service with itself: without access log and metrics, without reasons.

    Counts requests per second of processor time where the system reports it, with both loaded at
    once: what disturbs one disturbs the other, so a difference of one percent shows.
    """
    return [
        _against(
            bench,
            create_unobserved_app,
            "POST /predict with its access log and metrics, against the same without either",
        ),
        _against(
            bench,
            create_app_without_reasons,
            "POST /predict with reasons of refusals, against the same without",
        ),
    ]


def _against(bench: Bench, create_app: Callable[[], FastAPI], title: str) -> Measurement:
    pairs = bench.rounds * _PAIRS
    ours, theirs = [], []
    for number in range(1, pairs + 1):
        shipped, other = _rates_of_pair(bench, create_app)
        ours.append(shipped)
        theirs.append(other)
        bench.say(
            f"  pair {number} of {pairs}: shipped {shipped:,.0f}/s,"
            f" {create_app.__name__} {other:,.0f}/s"
        )
    return ratio(
        title,
        ours,
        theirs,
        bound=at_least(0.95),
        detail=f"{median(ours):,.0f} against {median(theirs):,.0f} requests in a second of a"
        " busy worker",
    )


def _rates_of_pair(bench: Bench, create_app: Callable[[], FastAPI]) -> tuple[float, float]:
    """Start the shipped service and the other one; return the rates of both."""
    with (
        stack.inference(bench) as shipped,
        stack.inference(bench, app=f"{__name__}:{create_app.__name__}") as other,
        ThreadPoolExecutor() as pool,
    ):
        contenders = [
            (serving, applications_to(bench, serving.url, "/predict"))
            for serving in (shipped, other)
        ]
        runs = [pool.submit(rate_by_processor, bench, *contender) for contender in contenders]
        return runs[0].result(), runs[1].result()


def create_unobserved_app() -> FastAPI:
    """Create the inference service with neither access log nor metrics.

    It still reads the clock, which takes 0.3 us of a decision.
    """
    with patch.multiple(
        main,
        configure_logging=_without_access_log,
        Metrics=_UncountedRequests,
        DecisionMetrics=_UncountedDecisions,
    ):
        return main.create_app()


def create_app_without_reasons() -> FastAPI:
    """Create the inference service whose refusals carry no reasons."""
    # For the life of the process: decisions are made after this returns.
    patch.object(engine, "refusal_reasons", new=lambda *_: None).start()
    return main.create_app()


def _without_access_log(*arguments: Any, **named: Any) -> LogAccess:
    configure_logging(*arguments, **named)
    return silent


class _UncountedRequests(Metrics):
    def observe_request(self, *_: Any) -> None:
        pass


class _UncountedDecisions(DecisionMetrics):
    def count(self, *_: Any, **__: Any) -> None:
        pass

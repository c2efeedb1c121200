"""What it costs a decision that it is logged and counted."""

from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, Final
from unittest.mock import patch

from fastapi import FastAPI

from services.inference import main
from services.scoring.metrics import DecisionMetrics
from shared.observability.logs import LogAccess, configure_logging, silent
from shared.observability.metrics import Metrics
from tests.load import stack
from tests.load.decision_figures import LOADED, applications_to
from tests.load.figure import Figure, at_least, ratio
from tests.load.processor import is_counted, session_s
from tests.load.stack import Bench, Serving
from tests.load.wrk import Target

_PAIRS: Final = 4
"""Pairs of services in a round: the difference is small, and two processes of the very same service
differ by as much, each as long as it lives (by its memory's layout, by its seed for hashes)."""


def observation(bench: Bench) -> list[Figure]:
    """The shipped service against itself without a line or a figure of its requests.

    A worker that is always busy answers as many as its processor time is enough for. That is
    counted, where it is, with both loaded at once: what disturbs one disturbs the other, and a
    difference of a hundredth shows.
    """
    pairs = bench.rounds * _PAIRS
    ours, theirs = [], []
    for number in range(1, pairs + 1):
        shipped, unobserved = _rates_of_pair(bench)
        ours.append(shipped)
        theirs.append(unobserved)
        bench.say(
            f"  pair {number} of {pairs}: shipped {shipped:,.0f}/s, unobserved {unobserved:,.0f}/s"
        )
    return [
        ratio(
            "POST /predict with its access log and metrics, against the same without either",
            ours,
            theirs,
            bound=at_least(0.95),
            detail=f"{median(ours):,.0f} against {median(theirs):,.0f} requests in a second of a"
            " busy worker",
        )
    ]


def _rates_of_pair(bench: Bench) -> tuple[float, float]:
    """The shipped service and the unobserved one, both started anew."""
    with (
        stack.inference(bench) as shipped,
        stack.inference(bench, app=f"{__name__}:create_unobserved_app") as unobserved,
        ThreadPoolExecutor() as pool,
    ):
        contenders = [
            (serving, applications_to(bench, serving.url, "/predict"))
            for serving in (shipped, unobserved)
        ]
        runs = [pool.submit(_rate, bench, *contender) for contender in contenders]
        return runs[0].result(), runs[1].result()


def _rate(bench: Bench, serving: Serving, target: Target) -> float:
    """Requests that the service answers in a second of its processor time."""
    used_s = session_s(serving.session) if is_counted() else 0.0
    measured = target.run(connections=LOADED, seconds=bench.seconds)
    if not is_counted():
        return measured.rate
    return measured.requests / (session_s(serving.session) - used_s)


def create_unobserved_app() -> FastAPI:
    """The shipped inference service, whose requests are neither logged nor counted.

    The clock is still read, which is 0.3 us of a decision.
    """
    with patch.multiple(
        main,
        configure_logging=_without_access_log,
        Metrics=_UncountedRequests,
        DecisionMetrics=_UncountedDecisions,
    ):
        return main.create_app()


def _without_access_log(*arguments: Any, **named: Any) -> LogAccess:
    configure_logging(*arguments, **named)
    return silent


class _UncountedRequests(Metrics):
    def observe_request(self, *_: Any) -> None:
        pass


class _UncountedDecisions(DecisionMetrics):
    def count(self, *_: Any) -> None:
        pass

"""What it costs a decision that it is logged and counted."""

from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, Final
from unittest.mock import patch

from fastapi import FastAPI

from services.inference import main
from services.inference.figures import DecisionFigures
from shared.metrics import Metrics
from shared.telemetry import LogAccess, configure_logging, silent
from tests.load import stack
from tests.load.decision_figures import LOADED, applications_to
from tests.load.figure import Figure, at_least, ratio
from tests.load.processor import is_counted, session_s
from tests.load.stack import Bench, Serving
from tests.load.wrk import Target

_RUNS: Final = 4
"""Runs in a round: the difference is small, and a single run tells it to three hundredths."""


def observation(bench: Bench) -> list[Figure]:
    """The shipped service against itself without a line or a figure of its requests.

    A worker that is always busy answers as many as its processor time is enough for. That is
    counted, where it is, with both loaded at once: what disturbs one run disturbs the other, and a
    difference of a hundredth shows.
    """
    with (
        stack.inference(bench) as shipped,
        stack.inference(bench, app=f"{__name__}:create_unobserved_app") as unobserved,
        ThreadPoolExecutor() as pool,
    ):
        contenders = [
            (serving, applications_to(bench, serving.url, "/predict"))
            for serving in (shipped, unobserved)
        ]
        ours, theirs = [], []
        for number in range(1, bench.rounds * _RUNS + 1):
            runs = [pool.submit(_rate, bench, *contender) for contender in contenders]
            mine, other = (run.result() for run in runs)
            ours.append(mine)
            theirs.append(other)
            bench.say(
                f"  run {number} of {bench.rounds * _RUNS}:"
                f" shipped {mine:,.0f}/s, unobserved {other:,.0f}/s"
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
        DecisionFigures=_UncountedDecisions,
    ):
        return main.create_app()


def _without_access_log(*arguments: Any, **named: Any) -> LogAccess:
    configure_logging(*arguments, **named)
    return silent


class _UncountedRequests(Metrics):
    def observe_request(self, *_: Any) -> None:
        pass


class _UncountedDecisions(DecisionFigures):
    def count(self, *_: Any) -> None:
        pass

"""A candidate that fails or is slow is found out where it decides."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from services.scoring import arm_health
from services.scoring.arm_health import LEAST_TIMED, MOST_FAILURES, ArmHealth
from services.scoring.decisions import Served, decide_by_rollout
from services.scoring.metrics import DecisionMetrics
from services.scoring.registry import Bundle
from shared.contract.parsing import read_application
from shared.contract.rollout import arm_of
from tests.rollouts import OWN, rollout

_HALF = rollout(2, OWN, "regression", share=5000)
_DEFAULT, _CANDIDATE = "x2:default", "x2:candidate"


def _fail() -> None:
    raise ArithmeticError


def _count(health: ArmHealth, arm: str, *, decided: int, failed: int = 0) -> None:
    for _ in range(decided):
        health.count(arm, lambda: None)
    for _ in range(failed):
        with pytest.raises(ArithmeticError):
            health.count(arm, _fail)


def test_a_candidate_that_fails_more_often_than_the_default_is_unfit() -> None:
    health = ArmHealth()
    _count(health, _DEFAULT, decided=100)
    _count(health, _CANDIDATE, decided=40, failed=MOST_FAILURES - 1)
    assert health.unfit(_HALF) is None
    _count(health, _CANDIDATE, decided=0, failed=1)
    assert health.unfit(_HALF) == "5 of 45 decisions of the candidate failed"


def test_what_fails_in_both_arms_speaks_not_against_the_candidate() -> None:
    health = ArmHealth()
    for arm in (_DEFAULT, _CANDIDATE):
        _count(health, arm, decided=40, failed=10)
    assert health.unfit(_HALF) is None


@pytest.mark.parametrize(
    ("times_s", "unfit"), [((0.001, 0.02), True), ((0.001, 0.009), False), ((0.01, 0.02), False)]
)
def test_a_candidate_is_unfit_if_it_is_slow_and_slower_than_the_default(
    monkeypatch: pytest.MonkeyPatch, times_s: Sequence[float], unfit: bool
) -> None:
    now_s = 0.0
    monkeypatch.setattr(arm_health, "perf_counter", lambda: now_s)
    health = ArmHealth()

    def pass_time(took_s: float) -> None:
        nonlocal now_s
        now_s += took_s

    for arm, took_s in zip((_DEFAULT, _CANDIDATE), times_s, strict=True):
        for _ in range(LEAST_TIMED):
            assert health.unfit(_HALF) is None
            health.count(arm, partial(pass_time, took_s))
    assert (health.unfit(_HALF) is not None) is unfit


def test_a_served_candidate_that_raises_is_counted_and_the_default_is_not_blamed(
    bundle: Bundle, loan_applications: list[dict[str, Any]]
) -> None:
    """Whether it decides on many applications at once or on one."""

    def broken(_: object) -> tuple[float, ...]:
        raise ZeroDivisionError

    served = Served(bundle, DecisionMetrics(), _HALF, replace(bundle, row_of=broken))
    parsed = map(read_application, loan_applications)
    met = [each for each in parsed if arm_of(_HALF, each) == "candidate"]
    for application in met[:MOST_FAILURES]:
        with pytest.raises(ZeroDivisionError):
            decide_by_rollout([application], served)
    assert "decisions of the candidate failed" in (served.health.unfit(_HALF) or "")

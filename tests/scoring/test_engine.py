"""What a decision shows agrees with what it decides."""

from math import nextafter
from types import SimpleNamespace
from typing import cast

import pytest

from services.scoring.engine import outcome_of
from services.scoring.registry import ServedModel


@pytest.mark.parametrize("threshold", [0.5, 0.3, 1 / 3, 0.4999996, 0.07])
@pytest.mark.parametrize("distance", [0.0, 1e-9, 4e-7, 6e-7, 1e-5])
def test_shown_probability_is_on_the_side_of_the_verdict(threshold: float, distance: float) -> None:
    """However near it is to the threshold; it is off by less than a millionth."""
    for approved in (threshold + distance, nextafter(threshold - distance, 0)):
        model = SimpleNamespace(threshold=threshold, approval_probability=lambda _, p=approved: p)
        outcome = outcome_of((), cast("ServedModel", model))
        shown = outcome["probability"]["approved"]
        assert outcome["prediction"] == ("Approved" if approved >= threshold else "Rejected")
        assert (shown >= threshold) == (approved >= threshold)
        assert shown == pytest.approx(approved, abs=1.1e-6)
        assert shown + outcome["probability"]["rejected"] == pytest.approx(1)
        assert outcome["confidence"] == max(outcome["probability"].values()) or threshold != 0.5


@pytest.mark.parametrize("approved", [0.0, 1e-9, 0.25, 0.7500004, 1 - 1e-9, 1.0])
def test_shown_probability_is_rounded_to_a_millionth(approved: float) -> None:
    model = SimpleNamespace(threshold=0.5, approval_probability=lambda _: approved)
    shown = outcome_of((), cast("ServedModel", model))["probability"]
    assert shown == {"approved": round(approved, 6), "rejected": round(1 - approved, 6)}

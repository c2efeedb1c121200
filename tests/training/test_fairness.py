"""Comparison of groups that the models never see."""

from collections.abc import Sequence

import numpy as np

from services.scoring.manifest import Fairness
from services.training.fairness import fairness


def by_gender(genders: Sequence[str | None], approvals: list[list[float]]) -> Fairness:
    """Return fairness by Gender of applications of which all but the last were approved."""
    applications = [{"Gender": gender, "Married": None} for gender in genders]
    approved = np.array([1] * (len(genders) - 1) + [0])
    return fairness(applications, approved, np.array(approvals))["Gender"]


def test_rates_are_means_over_rows_and_repeats() -> None:
    """By hand over two repeats: women 3 of 4, men 2 of 4; a row without a group is left out."""
    found = by_gender(
        ["Female", "Female", None, "Male", "Male"],
        [[0.9, 0.9, 0.9, 0.9, 0.1], [0.9, 0.4, 0.9, 0.5, 0.1]],
    )
    assert found == Fairness(
        groups={"Female": 2, "Male": 2},
        selection_rates={"Female": 0.75, "Male": 0.5},
        selection_rate_ratio=0.666667,
        true_positive_rates={"Female": 0.75, "Male": 1.0},
        true_positive_rate_gap=0.25,
    )


def test_one_group_alone_is_compared_with_nothing() -> None:
    """Without a second group there is no ratio and no gap, not a perfect one."""
    found = by_gender(["Male", "Male", None], [[0.9, 0.9, 0.9]])
    assert found.groups == {"Male": 2}
    assert found.selection_rate_ratio is None
    assert found.true_positive_rate_gap is None


def test_nobody_approved_has_no_ratio() -> None:
    """Where everyone is rejected no group is favoured, and nothing is divided by zero."""
    found = by_gender(["Male", "Female", "Female"], [[0.1, 0.1, 0.1]])
    assert found.selection_rates == {"Female": 0, "Male": 0}
    assert found.selection_rate_ratio is None


def test_attribute_that_nobody_names_has_no_groups() -> None:
    """Data without the monitored attribute can be trained on; nothing is claimed about it."""
    found = by_gender([None, None], [[0.9, 0.1]])
    assert found.groups == {}
    assert found.selection_rate_ratio is None
    assert found.true_positive_rate_gap is None

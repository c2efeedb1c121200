"""Whose drift it is, what a missing value counts as, and what cannot be compared."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from services.history.monitoring.cohorts import Cohort
from services.history.monitoring.drift import drift_of
from services.history.monitoring.drift_schemas import ModelDrift
from services.history.monitoring.fairness import LEAST_DECISIONS, Outcomes, fairness_of
from services.history.monitoring.fairness_schemas import AttributeFairness
from services.history.monitoring.references import parse_reference
from services.history.monitoring.slices import Counts, Slice
from tests.history.monitoring.simulated_year import (
    MODEL,
    REFERENCE_ROWS,
    draw,
    edges_of,
    manifest_of,
    reference_of,
    slices_of,
)

COHORT = Cohort(None, MODEL, "b-1")


def drift_named(found: ModelDrift, name: str) -> Any:
    """The drift of one input."""
    [drift] = [each for each in found.inputs if each.name == name]
    return drift


def test_drift_names_the_caller_that_it_comes_from() -> None:
    """Only where others with enough decisions are as they were."""
    rng = np.random.default_rng(1)
    reference = reference_of(draw(rng, REFERENCE_ROWS))
    edges = edges_of(reference)
    same = slices_of(draw(rng, 350), edges, client="north")
    few = slices_of(draw(rng, 40), edges, client="tiny")
    drifted = slices_of(draw(rng, 1, 700, changed=np.array([True])).where(0), edges)
    income = drift_named(
        found := drift_of(COHORT, same | drifted | few, reference), "ApplicantIncome"
    )
    assert [(each.client, each.alarm) for each in income.callers] == [
        ("acme", True),
        ("north", False),
    ]
    assert income.decisions == 1090
    assert f"ApplicantIncome (PSI {income.psi:.2f}, from acme)" in found.conclusion
    alone = drift_of(COHORT, drifted, reference).conclusion
    assert "from acme" not in alone
    assert (
        "10 points; 5 points need"
        in drift_of(COHORT, few | slices_of(draw(rng, 300), edges), reference).conclusion
    )


def test_missing_values_are_a_bin_except_where_their_absence_is_a_statement() -> None:
    """No co-applicant's income is one of 0; of other inputs a rise of missing values is drift."""
    numeric = {
        "kind": "numeric",
        "bin_edges": [0.0, 1000.0, 3000.0, 9000.0],
        "counts": [300, 150, 150],
        "missing": 0,
    }
    content = {"models": {}, "inputs": {"CoapplicantIncome": numeric, "LoanAmount": numeric}}
    reference = parse_reference(json.dumps(content))
    counts = [0, 30, 150, 150, 0, 270]
    columns: dict[str, Sequence[int]] = {"coapplicant_income": counts, "loan_amount": counts}
    found = drift_of(COHORT, {Slice("acme", True): Counts(600, columns)}, reference)
    income, amount = (drift_named(found, name) for name in ("CoapplicantIncome", "LoanAmount"))
    assert income.psi == 0
    assert [bin_.share for bin_ in income.bins] == [0.5, 0.25, 0.25]
    assert amount.alarm
    for drift in (income, amount):
        assert (drift.missing.share.value, drift.missing.reference) == (0.45, 0)
    assert amount.bins[-1].value == "missing"


@pytest.mark.parametrize(
    "changes",
    [
        {
            "inputs": {
                "LoanAmount": {"kind": "numeric", "bin_edges": [0, 1], "counts": [], "missing": 0}
            }
        },
        {"inputs": {"Gender": {"kind": "categorical", "counts": {}, "missing": 0}}},
        {"inputs": {"Else": {"kind": "categorical", "counts": {"a": 3}, "missing": 0}}},
        {"inputs": {}, "scores": {MODEL: [1, 2, 3]}},
        {"inputs": {}, "scores": None},
    ],
)
def test_references_that_no_count_can_be_compared_with_are_left_out(
    changes: dict[str, Any],
) -> None:
    """As if they were not in the manifest."""
    reference = parse_reference(json.dumps({"models": {}} | changes))
    assert reference is not None
    assert (reference.inputs, reference.scores) == ({}, {})
    found = drift_of(
        COHORT, slices_of(draw(np.random.default_rng(2), 400), np.array([0.0, 1e9])), reference
    )
    assert (found.inputs, found.score) == ([], None)
    assert found.conclusion == found.not_compared


def test_approval_share_of_the_reference_needs_a_threshold_between_bins() -> None:
    manifest = manifest_of(draw(np.random.default_rng(3), REFERENCE_ROWS))
    for threshold, known in ((0.5, True), (0.7, True), (0.55, False)):
        reference = parse_reference(json.dumps(manifest | {"threshold": threshold}))
        assert reference is not None
        assert (reference.approved(MODEL) is not None) == known
    assert parse_reference('{"models": 1}') is None


def gender(
    male: tuple[int, int], female: tuple[int, int], unknown: tuple[int, int]
) -> AttributeFairness:
    """Of so many approved and refused of each group."""
    slices = {
        Slice("acme", of == 0): Counts(0, {"gender": [male[of], female[of], 0, unknown[of]]})
        for of in (0, 1)
    }
    outcomes = {
        ("gender", "Male"): Outcomes(90, 5, 10, 20),
        ("gender", "Female"): Outcomes(60, 1, 3, 2),
    }
    return fairness_of(COHORT, slices, outcomes, None, screen=0.8).attributes[0]


@pytest.mark.parametrize(
    ("female", "screen"),
    [
        ((690, 310), "inside"),
        ((400, 600), "outside"),
        ((25, 20), "undecided"),
        ((0, 60), "outside"),
        ((990, 10), "outside"),
    ],
)
def test_screen_has_three_answers_by_the_whole_interval(
    female: tuple[int, int], screen: str
) -> None:
    """A rate that is too high is outside as well as one that is too low."""
    found = gender((1400, 600), female, (10, 5))
    assert found.largest == "Male"
    assert found.suppressed == ["not known"]
    [against] = [group.against_largest for group in found.groups if group.against_largest]
    assert against.screen == screen
    assert ("too few decisions" in found.conclusion) == (screen == "undecided")


def test_rates_need_enough_of_a_group() -> None:
    """A true positive rate needs good outcomes and refused decisions whose outcome is known."""
    found = gender((70, 30), (LEAST_DECISIONS, 10), (LEAST_DECISIONS, 0))
    male, female, unknown = found.groups
    assert male.true_positive_rate is not None
    assert male.true_positive_rate.value == 0.9
    assert (female.true_positive_rate, unknown.true_positive_rate) == (None, None)
    assert female.against_largest is not None
    assert female.against_largest.true_positive_gap is None
    nobody = gender((0, 100), (20, 20), (0, 0))
    [against] = [group.against_largest for group in nobody.groups if group.against_largest]
    assert (against.ratio, against.screen) == (None, None)
    assert nobody.conclusion == "Gender: nobody of the largest group, Male, is approved."
    alone = gender((70, 30), (3, 4), (1, 1))
    assert alone.conclusion == "Gender: no two groups of 30 decisions or more to compare."

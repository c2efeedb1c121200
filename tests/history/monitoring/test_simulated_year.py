"""A year with known truth is recognised over 200 seeds, at the stated rates."""

from typing import Final

import numpy as np
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    selection_rate,
    true_positive_rate,
)

from services.history.monitoring.cohorts import Cohort
from services.history.monitoring.drift import drift_of
from services.history.monitoring.drift_schemas import ModelDrift
from services.history.monitoring.expected import Decisions, calibration_test, expected_of
from services.history.monitoring.fairness import NOT_KNOWN, fairness_of
from services.history.monitoring.fairness_schemas import AgainstGroup, GroupFairness
from tests.history.monitoring.simulated_year import (
    CHANGES_IN,
    MODEL,
    MONTHS,
    REFERENCE_ROWS,
    Applications,
    draw,
    draw_years,
    edges_of,
    foretold,
    outcomes_of,
    reference_of,
    slices_of,
)

SEEDS: Final = 200
DECISIONS: Final = 600
COHORT: Final = Cohort(None, MODEL, "b-1")
COVERS: Final = (0.9, 0.99)
"""At the nominal rate of 0.95 the share of 200 intervals that cover has a deviation of 0.015."""


@pytest.fixture(scope="module")
def years() -> Applications:
    """The years of all seeds."""
    return draw_years(np.random.default_rng(18), SEEDS, DECISIONS)


def alarms(found: ModelDrift) -> set[str]:
    """The inputs that raise an alarm, and the score if it does."""
    return {each.name for each in (*found.inputs, found.score) if each and each.alarm}


@pytest.mark.no_cover
def test_drift_raises_its_alarm_in_its_month_and_not_before(years: Applications) -> None:
    """In incomes in each seed; no month before has any, and nothing else that stays as it was."""
    rng = np.random.default_rng(19)
    found = np.empty((SEEDS, MONTHS), object)
    for seed in range(SEEDS):
        reference = reference_of(draw(rng, REFERENCE_ROWS))
        edges = edges_of(reference)
        for month in range(MONTHS):
            slices = slices_of(years.where((seed, month)), edges)
            found[seed, month] = alarms(drift_of(COHORT, slices, reference))
    assert np.mean(["ApplicantIncome" in of for of in found[:, CHANGES_IN:].flat]) > 0.995
    assert np.mean([bool(of) for of in found[:, :CHANGES_IN].flat]) < 0.002
    assert np.mean([bool(of & {"Credit_History", "Gender"}) for of in found.flat]) < 0.002


def test_deterioration_is_found_from_the_first_outcomes_on_and_not_before(
    years: Applications,
) -> None:
    """Of the decisions of each month, by what is known at the end of the year."""
    holds = np.array(
        [
            [
                calibration.holds
                for month in range(CHANGES_IN + 3)
                if (
                    calibration := calibration_test(
                        foretold(years.where((seed, month)).known_after(MONTHS - month))
                    )
                )
            ]
            for seed in range(SEEDS)
        ]
    )
    before, after = holds[:, :CHANGES_IN], holds[:, CHANGES_IN:]
    assert before.mean() == pytest.approx(0.95, abs=0.02)
    assert after.mean() < 0.01


def test_expected_accuracy_covers_the_actual_one_until_good_loans_turn_bad(
    years: Applications,
) -> None:
    """It is blind to that: it stays where it was, and the actual accuracy falls out of it."""
    approved = years.approved
    actual = (approved == years.good).mean(axis=-1)
    confidence = np.maximum(years.probability, 1 - years.probability)
    covered = np.zeros((SEEDS, MONTHS), bool)
    values = np.zeros((SEEDS, MONTHS))
    for seed, month in np.ndindex(SEEDS, MONTHS):
        yes, no = (
            Decisions(int(of.sum()), float(confidence[seed, month][of].sum()))
            for of in (approved[seed, month], ~approved[seed, month])
        )
        expected = expected_of(yes, no, foretold=[])
        assert expected is not None
        assert expected.calibration is None
        found = expected.accuracy
        covered[seed, month] = found.low <= actual[seed, month] <= found.high
        values[seed, month] = found.value
    assert covered[:, :CHANGES_IN].mean() > 0.935
    assert covered[:, CHANGES_IN:].mean() < 0.2
    assert (values - actual)[:, :CHANGES_IN].mean() == pytest.approx(0, abs=0.005)
    assert (values - actual)[:, CHANGES_IN:].mean() > 0.06


def groups(rows: Applications) -> dict[str, GroupFairness]:
    """What is reported of ``rows`` by gender, all of whose outcomes are known."""
    edges = np.array([0.0, 1e9])
    model = fairness_of(COHORT, slices_of(rows, edges), outcomes_of(rows), None, screen=0.8)
    [gender] = [each for each in model.attributes if each.attribute == "Gender"]
    assert gender.largest == "Male"
    return {group.group: group for group in gender.groups}


def women_against_men(rows: Applications) -> AgainstGroup:
    """The comparison of the two groups."""
    found = groups(rows)["Female"].against_largest
    assert found is not None
    return found


def test_intervals_of_the_groups_differences_cover_the_truth(years: Applications) -> None:
    """Which is known from half a million applications."""
    many = draw(np.random.default_rng(20), 500_000)
    truth = women_against_men(many)
    assert truth.ratio is not None
    assert truth.true_positive_gap is not None
    assert truth.ratio.value < 0.9
    covered: dict[str, list[bool]] = {"ratio": [], "difference": [], "true_positive_gap": []}
    detected = []
    for seed in range(SEEDS):
        found = women_against_men(years.where((seed, 0)))
        for name, of in covered.items():
            interval, true = getattr(found, name), getattr(truth, name).value
            of.append(interval.low <= true <= interval.high)
        detected.append(found.detectable)
    for name, of in covered.items():
        assert COVERS[0] < np.mean(of) < COVERS[1], name
    assert np.mean(detected) == pytest.approx(0.13, abs=0.03)


def test_rates_of_groups_are_those_of_fairlearn(years: Applications) -> None:
    """On the same rows, for all three groups and between the two that are known."""
    rows = years.where((0, 0))
    found = groups(rows)
    names = np.array(["Male", "Female", NOT_KNOWN])[rows.gender]
    frame = MetricFrame(
        metrics={"selected": selection_rate, "true_positives": true_positive_rate},
        y_true=rows.good,
        y_pred=rows.approved,
        sensitive_features=names,
    )
    for name, group in found.items():
        assert group.selection_rate.value == pytest.approx(frame.by_group.selected[name])
        if group.true_positive_rate:
            rate = frame.by_group.true_positives[name]
            assert group.true_positive_rate.value == pytest.approx(rate)
    assert found["Female"].true_positive_rate is not None
    known = rows.where(rows.gender < 2)
    against = women_against_men(rows)
    assert against.ratio is not None
    pair = {"y_true": known.good, "y_pred": known.approved, "sensitive_features": known.gender}
    assert against.ratio.value == pytest.approx(demographic_parity_ratio(**pair))
    assert -against.difference.value == pytest.approx(demographic_parity_difference(**pair))

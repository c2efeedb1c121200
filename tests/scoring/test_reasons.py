"""Reasons are exact, in order, and defensible: contributions to the score that decided."""

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from pydantic_core import to_json

from services.scoring.engine import decide
from services.scoring.features import FEATURE_INPUTS
from services.scoring.reasons import DECIMALS, FLOOR, code_of, contributions, main_reasons
from services.scoring.registry import Bundle
from services.scoring.scorecard import Linear, Reference, Table, points, score
from services.scoring.shapley import PLAYERS
from services.training.applications import read_applications
from services.training.export import random_applications
from shared.contract.application import EXAMPLE, FIELDS, MONITORED, SCORED
from shared.contract.parsing import parse_application
from shared.contract.reasons import (
    DEFAULT_REFERENCE,
    MAX_REASONS,
    REASON_CODES,
    REASON_CODES_VERSION,
    ReferenceId,
)
from tests.scoring.coalitions import shapley_values
from tests.scoring.test_features import APPLICATIONS, FEW_ROWS

Application = dict[str, Any]

_EXACT = 1e-9
_BEST: dict[str, Application] = {
    "A1": {"LoanAmount": 5e-324},
    "B1": {"ApplicantIncome": 100_000, "CoapplicantIncome": 100_000, "LoanAmount": 5e-324},
    "C1": {"Credit_History": 1},
    "I1": {"ApplicantIncome": 100_000, "CoapplicantIncome": 100_000},
}
"""By code about inputs with an expected direction: their best values."""


@pytest.fixture(scope="module")
def scorecards(bundle: Bundle) -> dict[str, Table | Linear]:
    """The additive models of the shipped bundle."""
    found = {
        name: model.scorecard
        for name, model in bundle.models.items()
        if model.scorecard is not None
    }
    assert {type(scorecard) for scorecard in found.values()} == {Table, Linear}
    return found


@pytest.fixture(scope="module")
def parsed(loan_applications: list[dict[str, object]]) -> list[Application]:
    """All real applications, labelled and not, or generated ones, as the service parses them."""
    read = [parse_application(to_json(application)) for application in loan_applications]
    labelled = Path(os.environ.get("LOAN_DATA_DIR") or "none") / "loans.csv"
    if labelled.is_file():
        read += [dict(application) for application in read_applications(labelled).applications]
    return read


def _missing(application: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(name for name in SCORED if application.get(name) is None)


def _contributions(
    scorecard: Table | Linear,
    application: Application,
    bundle: Bundle,
    reference: Reference | None = None,
) -> dict[str, float]:
    row = bundle.row_of(application)
    return contributions(
        scorecard,
        points(scorecard, row),
        reference or scorecard.references[DEFAULT_REFERENCE],
        _missing(application),
    )


@FEW_ROWS
@given(application=APPLICATIONS)
def test_contributions_add_up_to_the_score_less_the_references_mean(
    bundle: Bundle, scorecards: dict[str, Table | Linear], application: Application
) -> None:
    """For any application, additive model and reference."""
    row = bundle.row_of(application)
    for scorecard in scorecards.values():
        assert set(scorecard.references) == set(get_args(ReferenceId))
        for reference in scorecard.references.values():
            found = _contributions(scorecard, application, bundle, reference)
            assert sum(found.values()) == pytest.approx(
                score(scorecard, row) - reference.mean_score, abs=_EXACT
            )


@pytest.mark.no_cover
def test_contributions_equal_shapley_values_by_brute_force_on_real_rows(
    bundle: Bundle, scorecards: dict[str, Table | Linear], parsed: list[Application]
) -> None:
    """Interventional Shapley values by their definition, over every coalition of codes."""
    for scorecard in scorecards.values():
        background = [_row(application, bundle) for application in parsed[:2]]
        reference = _mean(scorecard, background)
        for application in parsed:
            found = _contributions(scorecard, application, bundle, reference)
            missing, row = _missing(application), _row(application, bundle)
            value = partial(_mean_score, scorecard, _codes(missing), row, background)
            assert found == pytest.approx(shapley_values(sorted(found), value), abs=_EXACT)


def _codes(missing: frozenset[str]) -> list[str]:
    return [code_of(frozenset(inputs), missing) for inputs in FEATURE_INPUTS.values()]


def _mean_score(
    scorecard: Table | Linear,
    codes: Sequence[str],
    row: Sequence[float],
    background: Sequence[Sequence[float]],
    coalition: frozenset[str],
) -> float:
    """The mean over the background with what the coalition is about taken from the row."""
    mixed = (
        [
            own if code in coalition else other
            for code, own, other in zip(codes, row, others, strict=True)
        ]
        for others in background
    )
    return sum(score(scorecard, each) for each in mixed) / len(background)


def _row(application: Application, bundle: Bundle) -> tuple[float, ...]:
    return bundle.row_of(application)


def _mean(scorecard: Table | Linear, rows: Sequence[Sequence[float]]) -> Reference:
    each = [points(scorecard, row) for row in rows]
    means = {feature: sum(one[feature] for one in each) / len(each) for feature in each[0]}
    return Reference(
        id="background",
        description="",
        rows=len(rows),
        mean_score=scorecard.base + sum(means.values()),
        points=means,
    )


@FEW_ROWS
@given(application=APPLICATIONS)
@pytest.mark.no_cover
def test_no_reason_contradicts_the_direction_of_its_inputs(
    bundle: Bundle, scorecards: dict[str, Table | Linear], application: Application
) -> None:
    """No income is too high, no amount too low, and no good credit history a reason."""
    directed = {field.name for field in FIELDS if field.direction is not None}
    assert {
        code
        for code, meaning in REASON_CODES.items()
        if meaning.stated and directed.intersection(meaning.inputs)
    } == set(_BEST)
    for scorecard in scorecards.values():
        for code, best in _BEST.items():
            found = _contributions(scorecard, application | best, bundle)
            assert found.get(code, 0.0) >= 0
            worse = _contributions(scorecard, application, bundle)
            assert worse.get(code, found.get(code, 0.0)) <= found.get(code, 0.0) + _EXACT


@FEW_ROWS
@given(application=APPLICATIONS)
def test_each_refusal_by_an_additive_model_has_reasons_and_nothing_else_has(
    bundle: Bundle, application: Application
) -> None:
    """One to four, the main one first, none weaker than the floor but a single one."""
    read = parse_application(to_json({**EXAMPLE, **application}))
    for model in bundle.models.values():
        decision = json.loads(decide(read, model=model, bundle=bundle).body)
        reasons = decision["reasons"]
        if decision["prediction"] == "Approved" or model.scorecard is None:
            assert (reasons, decision["reasons_basis"]) == (None, None)
            continue
        assert decision["reasons_basis"] == {
            "reference": DEFAULT_REFERENCE,
            "codes_version": REASON_CODES_VERSION,
            "later": False,
        }
        found = [reason["contribution"] for reason in reasons]
        assert 1 <= len(found) <= MAX_REASONS
        assert found == sorted(found)
        weakest = min(-FLOOR, bundle.manifest.principal_share * found[0])
        assert all(value <= weakest + 10**-DECIMALS for value in found[1:])
        for reason in reasons:
            meaning = REASON_CODES[reason["code"]]
            assert (tuple(reason["inputs"]), reason["text"]) == (meaning.inputs, meaning.text)


def test_weak_contributions_are_no_reasons_unless_there_is_no_stronger_one() -> None:
    """At most four, and always one if anything spoke against approval."""
    strong = {"A1": -0.3, "B1": -2.0, "C1": 0.4, "D1": -0.04, "P1": -1.0}
    assert [reason["code"] for reason in main_reasons(strong, 0)] == ["B1", "P1", "A1"]
    assert [reason["code"] for reason in main_reasons(strong, 0.15)] == ["B1", "P1", "A1"]
    assert [reason["code"] for reason in main_reasons(strong, 0.2)] == ["B1", "P1"]
    many = {"A1": -0.1, "B1": -0.2, "C1": -0.3, "D1": -0.4, "E1": -0.5}
    assert [reason["code"] for reason in main_reasons(many, 0.2)] == ["E1", "D1", "C1", "B1"]
    weak = {"A1": -0.0301, "B1": -0.01, "C1": 0.0}
    assert [(reason["code"], reason["contribution"]) for reason in main_reasons(weak, 0.5)] == [
        ("A1", -0.03)
    ]
    assert main_reasons({"A1": 0.0, "B1": 1.0}, 0.2) == []


def test_no_reason_that_a_refusal_needs_is_left_out(bundle: Bundle) -> None:
    """If making good all that counts would approve, making good the given reasons would, too."""
    share = bundle.manifest.principal_share
    assert share > 0
    for application in map(dict, random_applications(3_000)):
        for model in bundle.models.values():
            if model.scorecard is None:
                continue
            row = bundle.row_of(application)
            refused = score(model.scorecard, row)
            if refused >= 0:
                continue
            found = _contributions(model.scorecard, application, bundle)
            everything, stated = (
                sum(reason["contribution"] for reason in main_reasons(found, each))
                for each in (0, share)
            )
            assert refused < everything + 10**-DECIMALS * MAX_REASONS or refused >= stated


def test_order_of_the_features_changes_nothing(
    bundle: Bundle, scorecards: dict[str, Table | Linear], parsed: list[Application]
) -> None:
    """A scorecard whose features stand in another order gives the same contributions."""
    for scorecard in scorecards.values():
        turned = scorecard.model_copy(update={"features": scorecard.features[::-1]})
        for application in parsed:
            assert _contributions(turned, application, bundle) == pytest.approx(
                _contributions(scorecard, application, bundle), abs=_EXACT
            )


def test_constant_feature_and_monitored_inputs_never_appear(
    bundle: Bundle, scorecards: dict[str, Table | Linear], parsed: list[Application]
) -> None:
    """What everybody gets the same points for is no reason; what is not scored has no code."""
    assert not {name for meaning in REASON_CODES.values() for name in meaning.inputs} & set(
        MONITORED
    )
    [table] = [each for each in scorecards.values() if isinstance(each, Table)]
    constant = "Credit_History"
    flat = table.model_copy(
        update={
            "features": tuple(
                each.model_copy(update={"points": (1.0,) * len(each.points)})
                if each.feature == constant
                else each
                for each in table.features
            )
        }
    )
    reference = _mean(flat, [_row(application, bundle) for application in parsed])
    for application in parsed:
        found = _contributions(flat, application, bundle, reference)
        assert found.pop("C1", 0.0) == found.pop("C2", 0.0) == 0


def test_everything_that_contributes_has_a_code() -> None:
    """Whichever inputs are missing, of any feature and of any player of a Shapley value."""
    for inputs in (*map(frozenset, FEATURE_INPUTS.values()), *map(frozenset, PLAYERS)):
        for count in range(len(inputs) + 1):
            for missing in combinations(sorted(inputs), count):
                meaning = REASON_CODES[code_of(inputs, frozenset(missing))]
                assert set(meaning.inputs) & inputs


def test_missing_amount_leaves_the_income_as_the_reason() -> None:
    """A missing amount counts as a typical one, so it is not what speaks against approval."""
    inputs = frozenset(FEATURE_INPUTS["Log_Loan_to_Income"])
    assert code_of(inputs, frozenset()) == "B1"
    assert code_of(inputs, frozenset({"CoapplicantIncome"})) == "B1"
    assert code_of(inputs, frozenset({"LoanAmount"})) == "I1"
    assert code_of(frozenset({"Credit_History"}), frozenset({"Credit_History"})) == "C2"

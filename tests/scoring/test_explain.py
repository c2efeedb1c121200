"""Explanations: exact Shapley values of any model, and changes that really are approved."""

import asyncio
from collections.abc import Callable
from copy import copy
from functools import partial
from itertools import product
from math import ceil, log
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from pydantic_core import to_json

from services.scoring.changes import CHANGEABLE, MAX_CHANGES
from services.scoring.engine import outcome_of
from services.scoring.explain import TYPICAL_APPLICANT, Explainer, TooManyExplanations, explain
from services.scoring.features import FEATURE_INPUTS, FEATURES
from services.scoring.registry import Bundle, ServedModel
from services.scoring.scorecard import Table, TableFeature
from services.scoring.shapley import EDGE, PLAYERS, shapley, typical_applicant
from shared.contract.application import EXAMPLE, SCORED
from shared.contract.parsing import parse_application
from shared.contract.reasons import INCOMES
from shared.contract.warnings import USUAL_TERMS
from tests.scoring.coalitions import shapley_values
from tests.scoring.test_features import APPLICATIONS, FEW_ROWS

Application = dict[str, Any]

_STRIDE = 97
"""Every so many values are tried where all are expected to be refused."""


async def _explain(
    application: Application, bundle: Bundle, model: ServedModel | None = None
) -> dict[str, Any]:
    return await explain(
        application,
        model=model or bundle.champion,
        bundle=bundle,
        reference="approved_near_threshold",
        explainer=Explainer(),
    )


def _is_approved(application: Application, bundle: Bundle) -> bool:
    row = bundle.row_of(application)
    return bool(outcome_of(row, bundle.champion)["prediction"] == "Approved")


@pytest.fixture(scope="module")
def refused(bundle: Bundle, loan_applications: list[dict[str, object]]) -> list[Application]:
    """The applications that the champion refuses."""
    read = [parse_application(to_json(application)) for application in loan_applications]
    return [application for application in read if not _is_approved(application, bundle)]


async def test_contributions_add_up_for_every_model(
    bundle: Bundle, loan_applications: list[dict[str, object]]
) -> None:
    """To the score less the reference's mean; the score is the log-odds of the probability."""
    for application in loan_applications[:20]:
        read = parse_application(to_json(application))
        for model in bundle.models.values():
            explained = await _explain(read, bundle, model)
            found = sum(each["contribution"] for each in explained["contributions"])
            expected = explained["score"] - explained["reference"]["mean"]
            assert found == pytest.approx(expected, abs=1e-9)
            approved = min(max(explained["probability"]["approved"], EDGE), 1 - EDGE)
            assert explained["score"] == pytest.approx(log(approved / (1 - approved)), abs=1e-3)
            assert (explained["reference"]["id"] == TYPICAL_APPLICANT) == (model.scorecard is None)


def test_shapley_values_equal_brute_force(
    bundle: Bundle, loan_applications: list[dict[str, object]]
) -> None:
    """By their definition, each coalition scored by itself."""
    typical = typical_applicant(bundle.manifest)
    names = [player[0] for player in PLAYERS]
    for model in bundle.models.values():
        if model.scorecard is not None:
            continue
        for body in loan_applications[:3]:
            application = parse_application(to_json(body))
            value = partial(_log_odds, model, bundle, application, typical)
            found, mean, score = shapley(application, typical, model=model, bundle=bundle)
            assert dict(zip(names, found, strict=True)) == pytest.approx(
                shapley_values(names, value), abs=1e-5
            )
            assert sum(found) == pytest.approx(score - mean, abs=1e-9)


def _log_odds(
    model: ServedModel,
    bundle: Bundle,
    application: Application,
    typical: Application,
    coalition: frozenset[str],
) -> float:
    members = [name for player in PLAYERS if player[0] in coalition for name in player]
    mixed = typical | {name: application[name] for name in members}
    row = bundle.row_of(mixed)
    inside = min(max(model.exported_probability(row), EDGE), 1 - EDGE)
    return log(inside / (1 - inside))


async def test_typical_applicant_has_no_contributions(bundle: Bundle) -> None:
    """It is the reference itself."""
    typical = dict.fromkeys(EXAMPLE) | typical_applicant(bundle.manifest)
    assert set(SCORED) <= set(typical)
    for model in bundle.models.values():
        if model.scorecard is None:
            assert (await _explain(typical, bundle, model))["contributions"] == []


@pytest.mark.no_cover
async def test_reasons_found_by_shapley_values_contradict_no_direction(
    bundle: Bundle, refused: list[Application]
) -> None:
    """What is as good as a typical applicant's is no reason, whatever the model makes of it."""
    typical = typical_applicant(bundle.manifest)
    as_good: dict[str, Callable[[Application], bool]] = {
        "A1": lambda given: given["LoanAmount"] <= typical["LoanAmount"],
        "C1": lambda given: given["Credit_History"] == 1,
        "I1": lambda given: (
            sum(given[name] or 0 for name in INCOMES) >= sum(typical[name] for name in INCOMES)
        ),
    }
    for model in bundle.models.values():
        for application in refused if model.scorecard is None else ():
            explained = await _explain(application, bundle, model)
            for reason in explained["reasons"] or ():
                assert reason["contribution"] < 0
                unfounded = as_good.get(reason["code"])
                assert unfounded is None or not unfounded(application)


@FEW_ROWS
@given(application=APPLICATIONS)
async def test_any_application_is_explained_and_any_change_shown_is_approved(
    bundle: Bundle, application: Application
) -> None:
    """Changes touch only what an applicant can change, in the direction that can help."""
    explained = await _explain(application, bundle)
    assert (explained["reasons"] is None) == (explained["prediction"] == "Approved")
    if explained["prediction"] == "Approved":
        assert explained["nearest_changes"] is None
        return
    assert len(explained["nearest_changes"]) <= MAX_CHANGES
    for change in explained["nearest_changes"]:
        changes = change["changes"]
        assert set(changes) <= set(CHANGEABLE)
        after = application | {name: each["to"] for name, each in changes.items()}
        assert _is_approved(after, bundle)
        for name, each in changes.items():
            assert each["from"] == application[name]
            if name in INCOMES:
                assert each["to"] > (each["from"] or 0)
            elif name == "LoanAmount":
                assert each["to"] < each["from"]
            else:
                assert each["to"] in USUAL_TERMS


@pytest.mark.no_cover
async def test_no_smaller_change_of_one_input_is_approved(
    bundle: Bundle, refused: list[Application]
) -> None:
    """Each nearer value in whole units is refused; an input that is not shown never helps alone."""
    assert isinstance(bundle.champion.scorecard, Table)
    helped = 0
    for application in refused:
        found = (await _explain(application, bundle))["nearest_changes"]
        single = [change["changes"] for change in found if len(change["changes"]) == 1]
        shown = {name: each["to"] for changes in single for name, each in changes.items()}
        for name, values in _values(application, bundle).items():
            nearer = values[: values.index(shown[name])] if name in shown else values[::_STRIDE]
            if len(shown) < MAX_CHANGES or name in shown:
                assert not any(
                    _is_approved(application | {name: value}, bundle) for value in nearer
                )
        helped += bool(shown)
    assert helped


def _values(application: Application, bundle: Bundle) -> dict[str, list[int]]:
    """The values of each input that an applicant can change, the nearest first."""
    ranges = bundle.training_ranges
    values = {
        name: list(range(int(present) + 1, int(ranges[name][1]) + 1))
        for name in INCOMES
        if (present := application[name]) is not None
    }
    if (amount := application["LoanAmount"]) is not None:
        values["LoanAmount"] = list(range(int(amount) - 1, int(ranges["LoanAmount"][0]) - 1, -1))
    if (term := application["Loan_Amount_Term"]) is not None:
        values["Loan_Amount_Term"] = sorted(
            set(USUAL_TERMS) - {term}, key=lambda other: abs(other - term)
        )
    return values


def _table(bundle: Bundle, base: float, *features: tuple[str, list[float], list[float]]) -> Table:
    return Table(
        base=base,
        references=bundle.champion.scorecard.references if bundle.champion.scorecard else {},
        features=tuple(
            TableFeature(
                feature=name,
                position=FEATURES.index(name),
                inputs=tuple(FEATURE_INPUTS[name]),
                cuts=tuple(cuts),
                points=tuple(points),
            )
            for name, cuts, points in features
        ),
    )


_SHORT_OF_INCOME: Application = {
    **EXAMPLE,
    "ApplicantIncome": 4000,
    "CoapplicantIncome": 0,
    "LoanAmount": 120,
    "Loan_Amount_Term": 360,
}


async def test_two_inputs_change_where_one_is_not_enough(bundle: Bundle) -> None:
    """The smallest of all pairs, by a table that asks for a short term and a low ratio."""
    strict = copy(bundle.champion)
    strict.scorecard = _table(
        bundle,
        -1.5,
        ("Loan_Amount_Term", [200, 300], [1, 0.7, 0]),
        ("Log_Loan_to_Income", [log(20), log(25)], [1, 0.6, 0]),
    )
    application = parse_application(to_json(_SHORT_OF_INCOME))
    explained = await _explain(application, bundle, strict)
    [first, *_] = explained["nearest_changes"]
    sizes = {
        (term, amount): (120 - amount) / 120 + (360 - term) / 360
        for term, amount in product(USUAL_TERMS, range(9, 120))
        if term < 360
        and outcome_of(
            bundle.row_of(application | {"Loan_Amount_Term": term, "LoanAmount": amount}),
            strict,
        )["prediction"]
        == "Approved"
    }
    term, amount = min(sizes, key=sizes.__getitem__)
    assert {name: change["to"] for name, change in first["changes"].items()} == {
        "Loan_Amount_Term": term,
        "LoanAmount": amount,
    }
    assert all(len(change["changes"]) == 2 for change in explained["nearest_changes"])


@pytest.mark.parametrize("ratio", [0.5, 1.03, 1.4])
async def test_amount_and_income_change_together_by_the_least(bundle: Bundle, ratio: float) -> None:
    """Of all pairs that are approved none is smaller by a unit of the income or more."""
    strict = copy(bundle.champion)
    strict.scorecard = _table(bundle, -1, ("Log_Loan_to_Income", [log(ratio)], [2, 0]))
    explained = await _explain(parse_application(to_json(_SHORT_OF_INCOME)), bundle, strict)
    shown = [
        {name: each["to"] for name, each in change["changes"].items()}
        for change in explained["nearest_changes"]
    ]
    highest = {name: bundle.training_ranges[name][1] for name in INCOMES}
    for income in INCOMES:
        before = _SHORT_OF_INCOME[income]
        [found] = [changes for changes in shown if changes.keys() == {"LoanAmount", income}]
        smallest = min(
            (120 - amount) / 120 + (needed - before) / 4000
            for amount in range(9, 120)
            if (needed := ceil(amount * 1000 / ratio - 4000) + before) <= highest[income]
        )
        size = (120 - found["LoanAmount"]) / 120 + (found[income] - before) / 4000
        assert smallest <= size + 1e-9 < smallest + 1 / 4000


async def test_explanations_wait_for_their_turn_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One runs at a time; some wait, for a while; what comes beyond them is refused at once."""
    monkeypatch.setattr("services.scoring.explain.MOST_WAITING", 1)
    monkeypatch.setattr("services.scoring.explain.DEADLINE_S", 0.2)
    explainer, finished = Explainer(), Event()
    running = asyncio.create_task(explainer.run(lambda: finished.wait(10)))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(explainer.run(lambda: True))
    await asyncio.sleep(0.05)
    with pytest.raises(TooManyExplanations, match="Too many"):
        await explainer.run(lambda: True)
    with pytest.raises(TooManyExplanations, match=r"turn within 0\.2 s"):
        await waiting
    finished.set()
    assert await running

"""Drift and fairness over the real service: what is reported is what the rows say."""

import json
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import httpx
import numpy as np
import pytest
import pytest_asyncio
from fairlearn.metrics import MetricFrame, selection_rate, true_positive_rate
from markupsafe import escape
from scipy.stats import entropy
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.monitoring.drift import LEAST_DECISIONS
from shared.contract.events import PredictionRecorded
from shared.observability.metrics.names import FAIRNESS_SCREEN, OF_RECENT_DECISIONS
from shared.pictures.formats import count, percent, with_titles
from tests.history.events import random_event
from tests.history.monitoring.simulated_year import (
    BUNDLE,
    CHANGES_IN,
    MODEL,
    MONTHS,
    REFERENCE_ROWS,
    Applications,
    draw,
    draw_years,
    manifest_of,
)
from tests.history.storage import store_all
from tests.prometheus import Exposition

DECISIONS_A_MONTH: Final = 350
YEAR: Final = 2025
CHANGED_SINCE: Final = f"{YEAR}-{CHANGES_IN + 1:02}"
CLIENTS: Final = ("acme", "north")


class Simulated(NamedTuple):
    """A year of which every outcome is known that was observed by its end."""

    trained_on: Applications
    months: Applications
    known: np.ndarray[Any, np.dtype[np.bool_]]


def events_of(rows: Applications, since: datetime, rng: random.Random) -> list[PredictionRecorded]:
    """The decisions about ``rows`` within four weeks, from two callers in turn."""
    events = []
    for place, row in enumerate(zip(*vars(rows).values(), rows.approved, strict=True)):
        income, credit_history, gender, probability, _, _, approved = row
        decided_at = since + timedelta(days=27 * rng.random())
        event = random_event(rng, decided_at=decided_at)
        decision = event.decision
        chances = {"approved": float(probability), "rejected": 1 - float(probability)}
        inputs = {
            "ApplicantIncome": float(income),
            "Credit_History": (0, 1, None)[credit_history],
            "Gender": ("Male", "Female", None)[gender],
        }
        changes = {
            "prediction": "Approved" if approved else "Rejected",
            "confidence": max(chances.values()),
            "probability": decision.probability.model_copy(update=chances),
            "model_info": decision.model_info.model_copy(update={"name": MODEL, "version": BUNDLE}),
            "input_data": decision.input_data.model_copy(update=inputs),
        }
        decision = decision.model_copy(update=changes)
        client = CLIENTS[place % 2]
        events.append(event.model_copy(update={"decision": decision, "client": client}))
    return events


@pytest_asyncio.fixture
async def year(client: httpx.AsyncClient, engine: AsyncEngine) -> Simulated:
    """One simulated year, decided by a registered bundle, with its outcomes."""
    numbers = np.random.default_rng(183)
    trained_on = draw(numbers, REFERENCE_ROWS)
    registered = await client.post("/internal/bundles", json=manifest_of(trained_on))
    assert registered.status_code == 204
    months = draw_years(numbers, 1, DECISIONS_A_MONTH).where(0)
    rng = random.Random(184)  # noqa: S311 - test data, not a secret
    known = np.arange(MONTHS)[:, None] + months.delay_months < MONTHS
    reports: list[tuple[PredictionRecorded, bool]] = []
    for number in range(MONTHS):
        events = events_of(months.where(number), datetime(YEAR, number + 1, 1, tzinfo=UTC), rng)
        await store_all(engine, events)
        for event, good, is_known in zip(events, months.good[number], known[number], strict=True):
            if is_known:
                reports.append((event, good))
    await report(client, reports)
    return Simulated(trained_on, months, known)


async def report(
    client: httpx.AsyncClient, outcomes: Iterable[tuple[PredictionRecorded, bool]]
) -> None:
    """What became of the decisions: good or bad."""
    lines = [
        json.dumps(
            {
                "prediction_id": str(event.decision.prediction_id),
                "outcome": "repaid" if good else "default",
                "observed_at": datetime.now(UTC).isoformat(),
            }
        )
        for event, good in outcomes
    ]
    answer = await client.post(
        "/outcomes", content="\n".join(lines), headers={"content-type": "application/x-ndjson"}
    )
    assert answer.json()["accepted"] == len(lines)


async def reported_metrics(client: httpx.AsyncClient) -> Exposition:
    """What Prometheus reads."""
    return Exposition((await client.get("/metrics")).text)


async def reported(client: httpx.AsyncClient, what: str, **parameters: str) -> list[dict[str, Any]]:
    """What is reported of each model."""
    answer = await client.get(f"/monitoring/{what}", params=parameters)
    assert answer.status_code == 200, answer.text
    models: list[dict[str, Any]] = answer.json()["models"]
    return models


async def test_year_is_recognised_from_the_rollups_alone(
    client: httpx.AsyncClient, year: Simulated
) -> None:
    """The month of the drift, the worse loans, the women's lower rate; exact on the same rows."""
    months = await reported(client, "drift", by="month")
    assert [each["month"] for each in months] == [f"{YEAR}-{m:02}" for m in range(1, 13)]
    for number, model in enumerate(months):
        income, *others = sorted(
            (*model["inputs"], model["score"]), key=lambda each: each["name"] != "ApplicantIncome"
        )
        assert_income_is_exact(income, year, number)
        assert income["alarm"] == (number >= CHANGES_IN)
        assert not any(each["alarm"] for each in others if each["name"] != "score")
        assert model["decisions"] == DECISIONS_A_MONTH
        assert (model["not_compared"], model["without_inputs"]) == (None, 0)
    assert months[0]["conclusion"].startswith("No sign of drift: no input and no score is above")
    assert months[-1]["conclusion"].startswith("Drift in ApplicantIncome (PSI 0.")

    [before] = await reported(client, "performance", until=CHANGED_SINCE)
    [after] = await reported(client, "performance", since=CHANGED_SINCE)
    assert before["expected"]["calibration"]["holds"]
    assert not after["expected"]["calibration"]["holds"]
    assert after["expected"]["calibration"]["observed"]["value"] == pytest.approx(
        year.months.good[CHANGES_IN:][year.known[CHANGES_IN:]].mean()
    )
    probability = year.months.probability[:CHANGES_IN]
    assert before["expected"]["accuracy"]["value"] == pytest.approx(
        np.maximum(probability, 1 - probability).mean(), abs=1e-6
    )
    assert before["expected"]["good_among_approved"]["value"] == pytest.approx(
        probability[probability >= 0.5].mean(), abs=1e-6
    )
    await assert_fairness_is_exact(client, year)
    await assert_all_is_drawn(client)


def assert_income_is_exact(income: dict[str, Any], year: Simulated, number: int) -> None:
    """Against the index of the rows in the reference's bins."""
    edges = np.quantile(year.trained_on.income, np.linspace(0, 1, 11))
    edges[0], edges[-1] = -np.inf, np.inf
    of_training, of_month = (
        np.histogram(rows, edges)[0] / rows.size
        for rows in (year.trained_on.income, year.months.income[number])
    )
    exact = entropy(of_training, of_month) + entropy(of_month, of_training)
    # Beyond the edges, the service has bins of their own.
    assert income["psi"] == pytest.approx(exact, abs=0.02)
    for side in ("share", "reference"):
        assert sum(bin_[side] for bin_ in income["bins"]) == pytest.approx(1)
    assert (income["decisions"], income["reference_rows"]) == (DECISIONS_A_MONTH, REFERENCE_ROWS)


async def assert_all_is_drawn(client: httpx.AsyncClient) -> None:
    """Each sentence, a pair of distributions for each input, and each group are in the report."""
    page = (await client.get("/monitoring/report")).text
    [drift] = await reported(client, "drift")
    [fairness] = await reported(client, "fairness")
    for sentence in (drift["conclusion"], *(each["conclusion"] for each in fairness["attributes"])):
        assert str(escape(with_titles(sentence))) in page
    bins = sum(len(each["bins"]) for each in (*drift["inputs"], drift["score"]))
    assert page.count('<rect class="pic-hollow" x="') == bins + 1  # and that of the legend
    for attribute in fairness["attributes"]:
        for group in attribute["groups"]:
            rate, decisions = group["selection_rate"]["value"], group["decisions"]
            assert percent(rate) in page
            assert f"{count(decisions)} decisions</text>" in page


async def assert_fairness_is_exact(client: httpx.AsyncClient, year: Simulated) -> None:
    """Against fairlearn on the rows, before erasure or anything else."""
    [model] = await reported(client, "fairness")
    gender, _ = model["attributes"]
    assert (gender["attribute"], gender["largest"]) == ("Gender", "Male")
    names = np.array(["Male", "Female", "not known"])[year.months.gender]
    rates = MetricFrame(
        metrics=selection_rate,
        y_true=year.months.good.ravel(),
        y_pred=year.months.approved.ravel(),
        sensitive_features=names.ravel(),
    ).by_group
    known = year.known
    true_positives = MetricFrame(
        metrics=true_positive_rate,
        y_true=year.months.good[known],
        y_pred=year.months.approved[known],
        sensitive_features=names[known],
    ).by_group
    found = {group["group"]: group for group in gender["groups"]}
    for name in ("Male", "Female", "not known"):
        assert found[name]["selection_rate"]["value"] == pytest.approx(rates[name])
        assert found[name]["true_positive_rate"]["value"] == pytest.approx(true_positives[name])
    against = found["Female"]["against_largest"]
    assert against["ratio"]["value"] == pytest.approx(rates["Female"] / rates["Male"])
    assert against["ratio"]["high"] < 1
    assert gender["not_stated"]["value"] == pytest.approx((names == "not known").mean())


async def test_metrics_are_of_recent_decisions_with_the_bounds_that_alerts_compare(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """Of a world that has changed: incomes have drifted, and loans turn out worse."""
    numbers = np.random.default_rng(185)
    await client.post("/internal/bundles", json=manifest_of(draw(numbers, REFERENCE_ROWS)))
    rows = draw(numbers, 1, 700, changed=np.array([True])).where(0)
    rng = random.Random(188)  # noqa: S311 - test data, not a secret
    events = events_of(rows, datetime.now(UTC) - timedelta(days=28), rng)
    await store_all(engine, events)
    await report(client, zip(events, rows.good.tolist(), strict=True))
    exposed = await reported_metrics(client)
    assert exposed.names >= {metric.name for metric in (FAIRNESS_SCREEN, *OF_RECENT_DECISIONS)}
    served = {"model": MODEL, "version": BUNDLE}
    income = served | {"input": "ApplicantIncome"}
    assert exposed.sum_of("drift_psi", **income) > exposed.sum_of("drift_psi_limit", **income)
    assert exposed.sum_of("drift_psi", **served, input="score") > 0
    assert exposed.sum_of("outcomes_known", **served) == 700
    expected = exposed.sum_of("outcome_expected_good_ratio", **served)
    assert expected == pytest.approx(rows.probability.mean())
    assert exposed.sum_of("outcome_good_ratio", **served, bound="high") < expected
    women = served | {"attribute": "Gender", "group": "Female"}
    low, value, high = (
        exposed.sum_of("fairness_selection_rate_ratio", **women, bound=bound)
        for bound in ("low", "value", "high")
    )
    assert low < value < high
    assert exposed.sum_of("fairness_screen_ratio") == 0.8
    assert 0.7 < exposed.sum_of("expected_accuracy_ratio", **served) < 0.9


async def test_report_on_two_decisions_does_not_say_that_there_is_no_alarm(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """Where all areas are open it says that there is too little to say."""
    rows = draw(np.random.default_rng(188), 2)
    rng = random.Random(189)  # noqa: S311 - test data, not a secret
    await store_all(engine, events_of(rows, datetime.now(UTC) - timedelta(days=28), rng))
    summary = (await client.get("/monitoring/report")).text.partition("<article>")[0]
    assert summary.count("<span>open</span>") == 5
    assert "<p>Too little to say.</p>" in summary
    assert "No alarm" not in summary


async def test_nothing_is_compared_without_reference_or_with_too_few_decisions(
    client: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says why; the approval share and groups that are large enough are shown all the same."""
    monkeypatch.setattr("services.history.binning.ASK_AGAIN_S", 0.0)
    numbers = np.random.default_rng(186)
    rows = draw(numbers, LEAST_DECISIONS - 1)
    since = datetime.now(UTC) - timedelta(days=28)
    rng = random.Random(187)  # noqa: S311 - test data, not a secret
    await store_all(engine, events_of(rows, since, rng))
    [unknown] = await reported(client, "drift")
    assert unknown["not_compared"].startswith("The bundle is not registered")
    assert (unknown["inputs"], unknown["score"]) == ([], None)
    assert unknown["approval"]["share"]["value"] == pytest.approx(rows.approved.mean())
    [model] = await reported(client, "fairness")
    gender, _ = model["attributes"]
    assert gender["suppressed"] == ["not known"]
    assert [group["group"] for group in gender["groups"]] == ["Male", "Female"]
    assert all(group["true_positive_rate"] is None for group in gender["groups"])

    exposed = await reported_metrics(client)
    assert exposed.sum_of("fairness_selection_rate_ratio", group="Female", bound="high") < 1
    assert not exposed.has({"drift_psi", "outcome_good_ratio"})

    older = manifest_of(draw(numbers, REFERENCE_ROWS))
    del older["scores"]
    await client.post("/internal/bundles", json=older)
    [few] = await reported(client, "drift", model=MODEL)
    assert few["not_compared"] == "Not enough yet: 299 of 300 decisions."
    await store_all(engine, events_of(draw(numbers, LEAST_DECISIONS), since, rng))
    [enough] = await reported(client, "drift", bundle=BUNDLE)
    assert enough["not_compared"] is None
    assert enough["score_not_compared"].startswith("The bundle has no reference of its scores")
    # Those made before the bundle was registered are in no bin of a number.
    assert enough["without_inputs"] == LEAST_DECISIONS - 1
    [income] = [each for each in enough["inputs"] if each["name"] == "ApplicantIncome"]
    assert income["decisions"] == LEAST_DECISIONS

"""Live performance: figures from roll-ups agree with exact computation on the same rows."""

import asyncio
import json
import random
import re
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import pytest_asyncio
from markupsafe import escape
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.monitoring import report
from services.history.monitoring.schemas import LEAST_OUTCOMES
from services.history.outcomes.rollups import LOWEST_PROBABILITY, months_between
from services.history.settings import HistorySettings
from services.scoring.manifest import BUNDLE_ROOT, MANIFEST_FILE, read_current_version
from shared.contract.events import PredictionRecorded
from shared.contract.outcomes import BAD, GOOD
from shared.pictures.formats import percent
from tests.history.events import random_event
from tests.history.storage import store_all

MODEL = "logistic_regression"
BUNDLE = "b-00000001"
DECISIONS = 1500


class Labelled(NamedTuple):
    """A decision and what became of it."""

    event: PredictionRecorded
    outcome: str
    observed_at: datetime


def labelled_events(*, seed: int) -> list[Labelled]:
    """Decisions of four months with outcomes that follow their probabilities, mostly."""
    rng = random.Random(seed)  # noqa: S311 - test data, not a secret
    found = []
    for _ in range(DECISIONS):
        decided_at = datetime(2026, 1, 3, tzinfo=UTC) + timedelta(days=rng.uniform(0, 110))
        event = random_event(rng, decided_at=decided_at)
        model = event.decision.model_info.model_copy(update={"name": MODEL, "version": BUNDLE})
        probability = round(rng.betavariate(3, 1.2), 6)
        chances = {"approved": probability, "rejected": round(1 - probability, 6)}
        approved = probability >= 0.5
        decision = event.decision.model_copy(
            update={
                "prediction": "Approved" if approved else "Rejected",
                "confidence": max(probability, 1 - probability),
                "probability": event.decision.probability.model_copy(update=chances),
                "model_info": model,
            }
        )
        good = rng.random() < 0.1 + 0.8 * probability
        outcome = rng.choice(sorted(GOOD if good else BAD))
        if rng.random() < 0.03:
            outcome = "withdrawn"
        observed_at = decided_at + timedelta(days=rng.uniform(1, 150))
        event = event.model_copy(update={"decision": decision})
        found.append(Labelled(event, outcome, observed_at))
    return found


@pytest_asyncio.fixture
async def rows(client: httpx.AsyncClient, engine: AsyncEngine) -> list[Labelled]:
    """Decisions; those that are labelled have their outcome reported, a few others do not."""
    labelled = labelled_events(seed=81)
    await store_all(engine, [row.event for row in labelled])
    # Refused loans are not granted, so what would have become of most is not known.
    labelled = [row for i, row in enumerate(labelled) if is_approved(row) or i % 3 == 0]
    lines = [
        json.dumps(
            {
                "prediction_id": str(row.event.decision.prediction_id),
                "outcome": row.outcome,
                "observed_at": row.observed_at.isoformat(),
            }
        )
        for row in labelled
    ]
    answer = await client.post(
        "/outcomes", content="\n".join(lines), headers={"content-type": "application/x-ndjson"}
    )
    assert answer.json()["accepted"] == len(labelled)
    return labelled


def is_approved(row: Labelled) -> bool:
    """Whether the application was approved."""
    return row.event.decision.prediction == "Approved"


async def performance(client: httpx.AsyncClient, **parameters: Any) -> list[dict[str, Any]]:
    """What is reported of each model."""
    answer = await client.get("/monitoring/performance", params=parameters)
    assert answer.status_code == 200, answer.text
    models: list[dict[str, Any]] = answer.json()["models"]
    return models


def assert_figures_are_exact(figures: dict[str, Any], rows: list[Labelled]) -> None:
    """Within the stated errors, on the rows whose outcome is good or bad."""
    rows = [row for row in rows if row.outcome != "withdrawn"]
    good = np.array([row.outcome in GOOD for row in rows])
    approved = np.array([is_approved(row) for row in rows])
    probability = np.array([row.event.decision.probability.approved for row in rows])
    clipped = np.clip(probability, LOWEST_PROBABILITY, 1 - LOWEST_PROBABILITY)

    def value(name: str) -> float:
        figure = figures[name]
        assert figure["low"] < figure["value"] < figure["high"]
        found: float = figure["value"]
        return found

    assert value("accuracy") == pytest.approx(accuracy_score(good, approved))
    assert value("balanced_accuracy") == pytest.approx(balanced_accuracy_score(good, approved))
    assert value("log_loss") == pytest.approx(log_loss(good, clipped), abs=1e-8)
    assert 0 <= brier_score_loss(good, probability) - value("brier") <= 2.5e-7
    assert abs(value("auc") - roc_auc_score(good, probability)) <= figures["auc_error"] < 0.001
    place = np.minimum((probability * 10).astype(int), 9)
    for bin_ in figures["calibration"]:
        within = place == round(bin_["at_least"] * 10)
        assert bin_["outcomes"] == within.sum()
        assert bin_["predicted"] == pytest.approx(probability[within].mean())
        assert bin_["observed"]["value"] == pytest.approx(good[within].mean())
    rule = np.array([row.event.decision.input_data.Credit_History != 0 for row in rows])
    against = figures["rule"]
    assert against["outcomes"] == len(rows)
    assert against["rule_accuracy"]["value"] == pytest.approx(accuracy_score(good, rule))
    gap = accuracy_score(good, approved) - accuracy_score(good, rule)
    assert against["difference"]["value"] == pytest.approx(gap)
    assert against["better"] is (True if against["difference"]["low"] > 0 else None)


async def test_figures_are_those_of_the_rows_and_say_on_whom_they_are(
    client: httpx.AsyncClient, rows: list[Labelled]
) -> None:
    """Also after corrections, by month, and with what cross-validation found beside them."""
    [model] = await performance(client)
    assert (model["model"], model["bundle"], model["month"]) == (MODEL, BUNDLE, None)
    assert model["outcomes"] == Counter(row.outcome for row in rows)
    assert model["approved"]["outcomes"] + model["refused"]["outcomes"] == sum(
        row.outcome != "withdrawn" for row in rows
    )
    assert model["approved"]["decisions"] + model["refused"]["decisions"] == DECISIONS
    assert f"of {model['refused']['decisions']:,} refused decisions" in model["on_whom"]
    assert model["cross_validated"] is None
    assert_figures_are_exact(model["figures"], rows)

    corrected = [
        row._replace(outcome="default", observed_at=datetime(2026, 10, 1, tzinfo=UTC))
        if i % 10 == 0
        else row
        for i, row in enumerate(rows)
    ]
    reports = [
        {
            "prediction_id": str(row.event.decision.prediction_id),
            "outcome": row.outcome,
            "observed_at": row.observed_at.isoformat(),
        }
        for row in corrected
    ]
    for first in range(0, len(reports), 1000):
        receipt = (await client.post("/outcomes", json=reports[first : first + 1000])).json()
        assert receipt["faulty"] == 0
    manifest = json.loads(
        (BUNDLE_ROOT / read_current_version(BUNDLE_ROOT) / MANIFEST_FILE).read_text()
    )
    for _ in range(2):
        registered = await client.post("/internal/bundles", json=manifest | {"version": BUNDLE})
        assert registered.status_code == 204
    [model] = await performance(client, model=MODEL, bundle=BUNDLE)
    assert_figures_are_exact(model["figures"], corrected)
    for name in ("accuracy", "balanced_accuracy", "auc", "brier", "log_loss"):
        found = manifest["models"][MODEL]["cross_validation"][name]
        assert model["cross_validated"][name]["value"] == found["mean"]

    by_month: defaultdict[str, list[Labelled]] = defaultdict(list)
    for row in corrected:
        by_month[f"{row.event.decision.timestamp:%Y-%m}"].append(row)
    months = await performance(client, by="month")
    assert [each["month"] for each in months] == sorted(by_month)
    for each in months:
        if each["figures"]:
            assert_figures_are_exact(each["figures"], by_month[each["month"]])
    [february] = await performance(client, since="2026-02", until="2026-03")
    assert february | {"month": "2026-02"} == months[1]
    assert await performance(client, model="random_forest") == []
    assert await performance(client, by="month", until="2099-01") == []


async def test_no_figures_before_there_are_enough_outcomes(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """It says how many are missing, and of refused decisions what is not known."""
    rows = [row for row in labelled_events(seed=82) if is_approved(row)][:LEAST_OUTCOMES]
    await store_all(engine, [row.event for row in rows])
    reports = [
        {
            "prediction_id": str(row.event.decision.prediction_id),
            "outcome": "default" if i % 4 == 0 else "repaid",
            "observed_at": "2026-10-01",
        }
        for i, row in enumerate(rows)
    ]
    await client.post("/outcomes", json=reports[1:])
    [model] = await performance(client)
    assert model["figures"] is None
    assert model["not_enough"].startswith(f"Not enough yet: {LEAST_OUTCOMES - 1} of")
    await client.post("/outcomes", json=reports[0])
    [model] = await performance(client)
    assert model["not_enough"] is None
    assert model["figures"]["balanced_accuracy"] is None
    assert "What would have become of the refused is not known." in model["on_whom"]


async def test_vintages_are_the_shares_of_approved_decisions_gone_bad_by_then(
    client: httpx.AsyncClient, rows: list[Labelled]
) -> None:
    """Cumulative, and not beyond today."""
    approved = [row for row in rows if is_approved(row)]
    found = (await client.get("/monitoring/vintages")).json()["vintages"]
    months = {f"{row.event.decision.timestamp:%Y-%m}" for row in approved}
    assert [vintage["month"] for vintage in found] == sorted(months, reverse=True)
    for vintage in found:
        of_month = [
            row for row in approved if f"{row.event.decision.timestamp:%Y-%m}" == vintage["month"]
        ]
        assert vintage["approved"] == vintage["outcomes"] == len(of_month)
        known = f"Outcomes exist for {len(of_month)} of {len(of_month)} approved decisions"
        assert vintage["on_whom"].startswith(known)
        first = datetime.fromisoformat(f"{vintage['month']}-01T00:00:00Z")
        assert len(vintage["curve"]) == months_between(first, datetime.now(UTC)) + 1
        for point in vintage["curve"]:
            bad = sum(
                row.outcome in BAD
                and months_between(row.event.decision.timestamp, row.observed_at)
                <= point["months_on_book"]
                for row in of_month
            )
            assert (point["bad"], point["share"]["value"]) == (
                bad,
                pytest.approx(bad / len(of_month)),
            )


async def test_parameters_that_cannot_be_meant_are_refused(client: httpx.AsyncClient) -> None:
    day = await client.get("/monitoring/performance", params={"since": "2026-11-10"})
    [fault] = day.json()["validation_errors"]
    assert fault["message"] == "must be a month, such as 2026-11"
    for parameters in (
        {"since": "2026-13"},
        {"since": "0000-01"},
        {"since": "2026-05", "until": "2026-04"},
        {"by": "week"},
        {"modell": MODEL},
    ):
        refused = await client.get("/monitoring/performance", params=parameters)
        assert (refused.status_code, refused.json()["code"]) == (400, "InvalidInput"), parameters


async def test_range_without_a_month_is_refused_and_says_how_to_select_one(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """By every route and by the command: ``until`` is exclusive."""
    says = "for Nov 2026 alone, since=2026-11 and until=2026-12"
    for until in ("2026-11", "2026-10"):
        for what in ("performance", "drift", "fairness", "vintages", "report"):
            parameters = {"since": "2026-11", "until": until}
            refused = await client.get(f"/monitoring/{what}", params=parameters)
            assert refused.status_code == 400, what
            [fault] = refused.json()["validation_errors"]
            assert fault["message"] == f"until is the month after the last one: {says}"
        with pytest.raises(SystemExit):
            report.main(["--since", "2026-11", "--until", until])
        assert f"error: until is the month after the last one: {says}" in capsys.readouterr().err
    year_end = {"since": "2026-12", "until": "2026-12"}
    refused = await client.get("/monitoring/drift", params=year_end)
    assert "until=2027-01" in refused.json()["validation_errors"][0]["message"]
    parameters = {"since": "2026-11", "until": "2026-12"}
    assert (await client.get("/monitoring/drift", params=parameters)).status_code == 200


async def test_only_manifests_are_registered(client: httpx.AsyncClient) -> None:
    for body in (
        b"\x08\xff",
        "{",
        "[]",
        '"x"',
        "{}",
        '{"version": "../x", "models": {}}',
        '{"version": "1"}',
    ):
        refused = await client.post("/internal/bundles", content=body)
        assert refused.status_code == 400, body
    odd = '{"version": "1", "models": {"any": {"cross_validation": "\\u0000"}}, "other": 1e999}'
    assert (await client.post("/internal/bundles", content=odd)).status_code == 204


@pytest.mark.usefixtures("rows")
async def test_report_is_one_page_with_the_same_conclusions_and_no_script(
    client: httpx.AsyncClient,
    settings: HistorySettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the route and by the command; it loads nothing, and escapes what it shows."""
    answer = await client.get("/monitoring/report", params={"since": "2026-01"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = answer.text
    assert not re.search(r"<script|<link|<img|src=|href=|url\(|@import", page)
    [model] = await performance(client)
    trends = (await client.get("/monitoring/vintages")).json()["trends"]
    for found in (*model["conclusions"], *(each["conclusion"] for each in trends)):
        assert str(escape(found["text"])) in page
    assert model["on_whom"] in page
    for month in await performance(client, by="month"):
        if month["figures"]:
            assert percent(month["figures"]["accuracy"]["value"]) in page
    assert re.search(r'<div class="pic" role="img" aria-label="Accuracy by month', page)
    nothing = await client.get("/monitoring/report", params={"model": "random_forest"})
    assert "Nothing was decided in that time." in nothing.text
    assert (await client.get("/monitoring/report", params={"since": "May"})).status_code == 400

    monkeypatch.setenv("DATABASE_URL", settings.database_url.render_as_string(hide_password=False))
    written = tmp_path / "report.html"
    arguments = ["--since", "2026-01", "--output", str(written)]
    assert await asyncio.to_thread(report.main, arguments) == 0
    generated = re.compile(r"<dt>Generated</dt>.*")
    assert generated.sub("", written.read_text(encoding="utf-8")) == generated.sub("", page)
    with pytest.raises(SystemExit):
        report.main(["--since", "May"])

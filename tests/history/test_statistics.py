"""Statistics and analytics: they add up to exactly what was stored."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.recorder import store
from shared.contract.events import PredictionRecorded
from tests.history.events import MODELS, random_event, random_events, row_of


async def test_statistics_count_what_was_stored(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """Totals, rates and averages agree with the events, overall and for each model."""
    statistics = (await client.get("/statistics")).json()
    by_model = statistics.pop("by_model")
    assert (statistics.pop("groups"), statistics.pop("previous")) == (None, None)
    _assert_summary(statistics, events)
    assert set(by_model) == set(MODELS)
    for model, summary in by_model.items():
        _assert_summary(summary, [e for e in events if e.decision.model_info.name == model])


async def test_statistics_of_nothing_have_no_average(client: httpx.AsyncClient) -> None:
    """Without decisions the counts are 0 and the averages null."""
    assert (await client.get("/statistics")).json() == {
        "total_predictions": 0,
        "approved": 0,
        "rejected": 0,
        "approval_rate": None,
        "average_confidence": None,
        "by_model": {},
        "groups": None,
        "previous": None,
    }
    analytics = (await client.get("/analytics")).json()
    assert analytics["daily_trend"] == []
    assert sum(bucket["predictions"] for bucket in analytics["confidence_histogram"]) == 0


async def test_analytics_count_what_was_stored(
    client: httpx.AsyncClient, events: list[PredictionRecorded], engine: AsyncEngine
) -> None:
    """Every part of the analytics agrees with the events it is about."""
    now = datetime.now(UTC)
    last_week = random_events(30, seed=34, decided_at=now - timedelta(days=7))
    last_year = random_events(10, seed=35, decided_at=now - timedelta(days=365))
    await store(engine, [row_of(event) for event in last_week + last_year])
    everything = events + last_week + last_year

    analytics = (await client.get("/analytics")).json()
    _assert_summary(analytics["overall"], everything)
    _assert_summary(analytics["last_24_hours"], events)

    recent = events + last_week
    assert [day["date"] for day in analytics["daily_trend"]] == sorted(
        {event.decision.timestamp.date().isoformat() for event in recent}
    )
    for day in analytics["daily_trend"]:
        _assert_summary(
            {name: value for name, value in day.items() if name != "date"},
            [e for e in recent if e.decision.timestamp.date().isoformat() == day["date"]],
        )

    confidences = [event.decision.confidence for event in everything]
    for bucket in analytics["confidence_histogram"]:
        expected = [c for c in confidences if bucket["at_least"] <= c < bucket["below"]]
        assert bucket["predictions"] == len(expected)
    analysis = analytics["confidence_analysis"]
    assert analysis["low"] == sum(c < 0.6 for c in confidences)
    assert analysis["medium"] == sum(0.6 <= c < 0.8 for c in confidences)
    assert analysis["high"] == sum(c >= 0.8 for c in confidences)
    rejected = [e.decision.confidence for e in everything if e.decision.prediction == "Rejected"]
    assert analysis["average_rejected"] == pytest.approx(sum(rejected) / len(rejected))

    for area, summary in analytics["by_property_area"].items():
        wanted = None if area == "missing" else area
        _assert_summary(
            summary, [e for e in everything if e.decision.input_data.Property_Area == wanted]
        )
    for history, summary in analytics["by_credit_history"].items():
        number = None if history == "missing" else int(history)
        _assert_summary(
            summary, [e for e in everything if e.decision.input_data.Credit_History == number]
        )
    assert set(analytics["by_credit_history"]) == {"0", "1", "missing"}


def _assert_summary(summary: dict[str, Any], events: list[PredictionRecorded]) -> None:
    approved = sum(event.decision.prediction == "Approved" for event in events)
    assert summary == {
        "total_predictions": len(events),
        "approved": approved,
        "rejected": len(events) - approved,
        "approval_rate": pytest.approx(approved / len(events)),
        "average_confidence": pytest.approx(
            sum(event.decision.confidence for event in events) / len(events)
        ),
    }
    assert summary["average_confidence"] == round(summary["average_confidence"], 6)


_START = datetime(2026, 3, 2, tzinfo=UTC)
_CLIENTS = ("bank-a", "bank-b")


@pytest_asyncio.fixture
async def spring(client: httpx.AsyncClient, engine: AsyncEngine) -> list[PredictionRecorded]:
    """Decisions of sixty days by two clients; every fourth loan was repaid."""
    rng = random.Random(37)  # noqa: S311 - test data, not a secret
    events = [
        random_event(rng, decided_at=_START + timedelta(hours=7 * number)).model_copy(
            update={"client": _CLIENTS[number % 2]}
        )
        for number in range(200)
    ]
    await store(engine, [row_of(event) for event in events])
    reports = [
        {
            "prediction_id": str(event.decision.prediction_id),
            "outcome": "repaid",
            "observed_at": (event.decision.timestamp + timedelta(days=40)).isoformat(),
        }
        for event in events[::4]
    ]
    assert (await client.post("/outcomes", json=reports)).json()["accepted"] == 50
    return events


async def test_statistics_of_a_selection_count_what_it_leaves(
    client: httpx.AsyncClient, spring: list[PredictionRecorded]
) -> None:
    """By days, model, bundle and client; grouped in each way; beside as many days before."""
    where = {"since": "2026-03-20", "until": "2026-04-10"}
    for parameters, keep in (
        ({}, lambda _: True),
        ({"client": "bank-a"}, lambda event: event.client == "bank-a"),
        ({"model": MODELS[0]}, lambda event: event.decision.model_info.name == MODELS[0]),
        ({"bundle": "2026.1"}, lambda _: True),
    ):
        query = where | parameters | {"compare": "previous", "group_by": "week"}
        found = (await client.get("/statistics", params=query)).json()
        kept = [event for event in spring if keep(event)]
        previous = found.pop("previous")
        assert (previous.pop("since"), previous.pop("until")) == ("2026-02-27", "2026-03-20")
        _assert_summary(previous, _between(kept, "2026-02-27", "2026-03-20"))
        chosen = _between(kept, "2026-03-20", "2026-04-10")
        _assert_groups(found.pop("groups"), chosen, lambda event: _monday(event.decision.timestamp))
        _assert_groups(found.pop("by_model"), chosen, lambda event: event.decision.model_info.name)
        _assert_summary(found, chosen)


async def test_statistics_are_grouped_by_what_is_asked_for(
    client: httpx.AsyncClient, spring: list[PredictionRecorded]
) -> None:
    """By client, month, and what became of the loan; by an input without average confidence."""

    async def groups(by: str, **which: str) -> dict[str, dict[str, Any]]:
        answer = await client.get("/statistics", params=which | {"group_by": by})
        found: dict[str, dict[str, Any]] = answer.json()["groups"]
        return found

    _assert_groups(await groups("client"), spring, lambda event: event.client)
    _assert_groups(
        await groups("month"), spring, lambda event: f"{event.decision.timestamp:%Y-%m-01}"
    )
    repaid = {event.decision.prediction_id for event in spring[::4]}
    _assert_groups(
        await groups("outcome"),
        spring,
        lambda event: "repaid" if event.decision.prediction_id in repaid else "none",
    )
    april = _between(spring, "2026-04-01", "2026-05-01")
    found = await groups("credit_history", since="2026-04-01")
    numbers = [event.decision.input_data.Credit_History for event in april]
    expected = Counter("missing" if number is None else str(number) for number in numbers)
    assert {name: group["total_predictions"] for name, group in found.items()} == expected
    assert {group["average_confidence"] for group in found.values()} == {None}


async def test_analytics_of_a_selection_agree_with_its_decisions(
    client: httpx.AsyncClient, spring: list[PredictionRecorded]
) -> None:
    """The histogram of confidence exactly, the trend in its units, the groups by applicant."""
    query = {"since": "2026-03-20", "client": "bank-b", "group_by": "month"}
    found = (await client.get("/analytics", params=query)).json()
    kept = [event for event in spring if event.client == "bank-b"]
    chosen = _between(kept, "2026-03-20", "2027-01-01")
    _assert_summary(found["overall"], chosen)
    assert [(period["since"], period["until"]) for period in found["trend"]] == [
        ("2026-03-20", "2026-04-01"),
        ("2026-04-01", "2026-05-01"),
    ]
    assert sum(period["total_predictions"] for period in found["trend"]) == len(chosen)
    confidences = [event.decision.confidence for event in chosen]
    for bucket in found["confidence_histogram"]:
        expected = [c for c in confidences if bucket["at_least"] <= c < bucket["below"]]
        assert bucket["predictions"] == len(expected)
    areas = Counter(event.decision.input_data.Property_Area or "missing" for event in chosen)
    by_area = found["by_property_area"]
    assert {name: group["total_predictions"] for name, group in by_area.items()} == areas
    everything = (await client.get("/analytics", params={"bundle": "2026.1"})).json()
    without = (await client.get("/analytics")).json()
    for member in ("overall", "confidence_histogram", "daily_trend"):
        assert everything[member] == without[member]
    assert everything["confidence_analysis"].keys() == without["confidence_analysis"].keys()
    nothing = (await client.get("/analytics", params={"client": "nobody"})).json()
    assert nothing["overall"]["total_predictions"] == 0
    ever = {"since": "0001-01-01", "until": "9999-12-31", "compare": "previous"}
    for unit in ("day", "week", "month"):
        found = (await client.get("/analytics", params=ever | {"group_by": unit})).json()
        assert found["overall"] == without["overall"]
        assert found["previous"]["total_predictions"] == 0
    for days in ({"since": "0460-03-04", "until": "0460-03-09"}, {"since": "9999-12-30"}):
        found = (await client.get("/analytics", params=days | {"compare": "previous"})).json()
        assert found["overall"]["total_predictions"] == 0


_REFUSED = {
    "since=2026-03-01T00:00:00Z": "must be a date such as 2026-01-31",
    "since=2026-03-01&until=2026-03-01": "since must be earlier than until",
    "compare=previous": "compare needs since",
    "group_by=gender": "must be 'day', 'week'",
    "client=a%00b": "must match",
    "modle=any": "the nearest one is model",
    "model=a&model=b": "is given more than once",
}


async def test_grouping_by_outcome_names_the_parameter_at_fault(client: httpx.AsyncClient) -> None:
    first_day = "must be the first day of a month with group_by=outcome"
    for query, message in {
        "since=2026-03-02": f"since {first_day}",
        "since=2026-03-01&until=2026-03-31": f"until {first_day}",
        "client=acme": "client cannot be given with group_by=outcome",
    }.items():
        answer = await client.get(f"/statistics?group_by=outcome&{query}")
        assert answer.status_code == 400
        [fault] = answer.json()["validation_errors"]
        assert fault["message"] == message
    whole = await client.get("/statistics?group_by=outcome&since=2026-03-01&until=2026-04-01")
    assert whole.status_code == 200


async def test_selection_that_cannot_be_meant_is_refused(client: httpx.AsyncClient) -> None:
    """With the parameter at fault, as on every other route."""
    for query, message in _REFUSED.items():
        answer = await client.get(f"/statistics?{query}")
        assert answer.status_code == 400
        [fault] = answer.json()["validation_errors"]
        assert message in fault["message"]


def _between(events: list[PredictionRecorded], since: str, until: str) -> list[PredictionRecorded]:
    return [
        event for event in events if since <= event.decision.timestamp.date().isoformat() < until
    ]


def _monday(moment: datetime) -> str:
    return (moment.date() - timedelta(days=moment.weekday())).isoformat()


def _assert_groups(
    groups: dict[str, dict[str, Any]],
    events: list[PredictionRecorded],
    key: Callable[[PredictionRecorded], str],
) -> None:
    assert list(groups) == sorted({key(event) for event in events})
    for name, summary in groups.items():
        _assert_summary(summary, [event for event in events if key(event) == name])

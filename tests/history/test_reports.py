"""Statistics and analytics: they add up to exactly what was stored."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.recorder import store
from shared.contract.events import PredictionRecorded
from tests.history.events import MODELS, random_events, row_of


async def test_statistics_count_what_was_stored(
    client: httpx.AsyncClient, events: list[PredictionRecorded]
) -> None:
    """Totals, rates and averages agree with the events, overall and for each model."""
    statistics = (await client.get("/statistics")).json()
    by_model = statistics.pop("by_model")
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

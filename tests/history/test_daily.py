"""Decisions by day: counted once, described by their row, read back by any group."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import binning
from services.history.binning import BINNED, Bins, edges_of
from services.history.bundles import register
from services.history.daily import GroupCounts, Selection, read_group_counts, read_totals
from services.scoring.manifest import BUNDLE_ROOT, MANIFEST_FILE, bundle_folder, read_manifest
from shared.contract.events import PredictionRecorded
from tests.history.events import random_events
from tests.history.recount import recount_by_day
from tests.history.storage import assert_rollups_equal_a_recount, store_all

_PATH = bundle_folder(BUNDLE_ROOT, None) / MANIFEST_FILE
MANIFEST = _PATH.read_text(encoding="utf-8")
BUNDLE = read_manifest(_PATH).version
EDGES = edges_of(MANIFEST)


def changed(
    event: PredictionRecorded, *, client: str = "broker", **info: Any
) -> PredictionRecorded:
    """The event with other members of its ``model_info``, by another client."""
    decision = event.decision
    model_info = decision.model_info.model_copy(update={"version": BUNDLE} | info)
    return event.model_copy(
        update={
            "client": client,
            "decision": decision.model_copy(update={"model_info": model_info}),
        }
    )


def at_the_edges(event: PredictionRecorded) -> list[PredictionRecorded]:
    """Decisions on incomes at each edge of its bins, and just beside."""
    incomes = [
        income
        for edge in EDGES["ApplicantIncome"]
        for income in (np.nextafter(edge, 0), edge, np.nextafter(edge, np.inf))
    ]
    copies = random_events(len(incomes), seed=5)
    return [
        copy.model_copy(
            update={
                "decision": copy.decision.model_copy(
                    update={
                        "model_info": event.decision.model_info,
                        "input_data": event.decision.input_data.model_copy(
                            update={"ApplicantIncome": float(income)}
                        ),
                    }
                )
            }
        )
        for copy, income in zip(copies, incomes, strict=True)
    ]


async def group_counts(engine: AsyncEngine, *by: Any, **which: Any) -> list[GroupCounts]:
    """What is read back."""
    async with engine.connect() as connection:
        return await read_group_counts(connection, Selection(**which), by)


def values(events: Iterable[PredictionRecorded], name: str) -> list[Any]:
    """The inputs ``name`` of the events."""
    return [getattr(event.decision.input_data, name) for event in events]


async def test_distribution_of_every_input_is_numpys(engine: AsyncEngine) -> None:
    """Numbers by the bundle's bins, what lies below, above and at the edges; and each category."""
    await register(engine, MANIFEST.encode())
    events = [changed(event) for event in random_events(400, seed=71)]
    events += at_the_edges(events[0])
    await store_all(engine, events)
    await assert_rollups_equal_a_recount(engine)
    async with engine.connect() as connection:
        kept = await connection.execute(text("SELECT * FROM daily_rollup ORDER BY day, model"))
        counted = await connection.execute(text(recount_by_day(EDGES)))
        assert {tuple(row.layout.split()) for row in kept} == {
            tuple(row.layout.split()) for row in counted
        }

    [found] = await group_counts(engine, bundle=BUNDLE)
    assert found.predictions == len(events)
    for field in BINNED:
        given = values(events, field.name)
        known = [value for value in given if value is not None]
        if field.allowed:
            times = Counter(map(str, known))
            expected = [times[str(value)] for value in field.allowed]
            expected += [len(known) - sum(expected)]
        else:
            edges = EDGES[field.name]
            inside = np.histogram([value for value in known if value <= edges[-1]], edges)[0]
            below, above = sum(v < edges[0] for v in known), sum(v > edges[-1] for v in known)
            expected = [below, *inside.tolist(), above]
        assert found.histograms[field.column] == [*expected, len(given) - len(known)], field.name
    approved = [event.decision.probability.approved for event in events]
    assert found.histograms["score"] == np.histogram(approved, np.linspace(0, 1, 21))[0].tolist()


async def test_decisions_before_their_bundle_is_registered_count_without_numbers(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of both kinds stand side by side and merge; registering is noticed by itself."""
    monkeypatch.setattr(binning, "ASK_AGAIN_S", 0.0)
    events = [changed(event) for event in random_events(60, seed=72)]
    await store_all(engine, events[:20])
    await register(engine, MANIFEST.encode())
    await store_all(engine, events[20:])
    [found] = await group_counts(engine, "bundle_version")
    assert found.group == (BUNDLE,)
    assert sum(found.histograms["score"]) == sum(found.histograms["gender"]) == 60
    assert sum(found.histograms["loan_amount"]) == 40


async def test_groups_and_conditions_leave_what_they_say(engine: AsyncEngine) -> None:
    """By month, client, arm and decision; since a day and until before a day."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    events = [
        changed(
            event,
            client=("broker", "branch")[number % 2],
            arm=(None, "x7:candidate")[number % 3 == 0],
        )
        for number in range(180)
        for event in random_events(1, seed=number, decided_at=start + timedelta(hours=9 * number))
    ]
    await store_all(engine, events)
    await assert_rollups_equal_a_recount(engine)
    async with engine.connect() as connection:
        which = Selection(since=date(2026, 1, 10), until=date(2026, 3, 1), client="branch")
        rows = await read_totals(connection, which, ["month", "arm", "prediction"])
        weeks = await read_totals(connection, Selection(arm="x7:candidate"), ["week"])
    expected = Counter(
        (
            event.decision.timestamp.date().replace(day=1),
            event.decision.model_info.arm or "",
            event.decision.prediction,
        )
        for event in events
        if event.client == "branch"
        and date(2026, 1, 10) <= event.decision.timestamp.date() < date(2026, 3, 1)
    )
    assert {tuple(row[:3]): row.predictions for row in rows} == expected
    assert [row.week.weekday() for row in weeks] == [0] * len(weeks)
    assert sum(row.predictions for row in weeks) == 60
    assert await group_counts(engine, "month", since=date(2027, 1, 1)) == []


def test_manifest_without_bins_has_none() -> None:
    """A manifest that is written otherwise, or has too many bins, leaves numbers uncounted."""
    for content in ("{}", "[]", '{"inputs": 3}', '{"inputs": {"LoanAmount": {"bin_edges": [1]}}}'):
        assert edges_of(content) == {}
    assert Bins({}).layout.startswith("score:20 credit_history:4 ")

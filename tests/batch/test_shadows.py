"""Shadows score what is recorded, each decision once; nothing of it outlives an erasure."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.batch.settings import BatchSettings
from services.history.monitoring.fairness import LEAST_DECISIONS
from services.history.recorder import store
from services.scoring.engine import Decided, decide
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.registry import load_bundle
from services.scoring.replay import ROUNDING
from shared.contract.events import PredictionRecorded
from shared.contract.rollout import Arm, Rollout
from tests.batch.conftest import working
from tests.history.events import random_events, row_of
from tests.waiting import eventually_said

SERVED: Final = load_bundle(BUNDLE_ROOT, None)
OLDER: Final = load_bundle(
    BUNDLE_ROOT,
    min(path.name for path in BUNDLE_ROOT.glob("b-*") if path.name != SERVED.manifest.version),
)
FOREST: Final = Arm(bundle=SERVED.manifest.version, model="random_forest")
REGRESSION: Final = Arm(bundle=OLDER.manifest.version, model="logistic_regression")
_BUNDLES: Final = {FOREST: SERVED, REGRESSION: OLDER}


async def _activate(database: asyncpg.Connection, *arms: Arm, epoch: int) -> None:
    default = Arm(bundle=SERVED.manifest.version, model=SERVED.champion.name)
    rollout = Rollout(epoch=epoch, default=default, shadows=list(arms), salt="salt")
    await database.execute(
        "INSERT INTO rollouts VALUES ($1, now(), 'person', 'set', 'because', NULL, $2)",
        epoch,
        rollout.model_dump_json(),
    )
    await database.execute(
        "INSERT INTO rollout_states VALUES ($1, 'active', now(), 'person')", epoch
    )


async def _record(engine: AsyncEngine, events: Iterable[PredictionRecorded]) -> None:
    await store(engine, [row_of(event) for event in events])


async def _count(database: asyncpg.Connection, table: str) -> int:
    found: int = await database.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 - of a test
    return found


def _events(count: int, *, seed: int) -> list[PredictionRecorded]:
    """Every fiftieth has a category that no model takes."""
    events = random_events(count, seed=seed)
    for place in range(0, count, 50):
        decision = events[place].decision
        unknown = decision.input_data.model_copy(update={"Property_Area": "Village"})
        changed = decision.model_copy(update={"input_data": unknown})
        events[place] = events[place].model_copy(update={"decision": changed})
    return events


def _alone(event: PredictionRecorded, arm: Arm) -> Decided | None:
    """What the shadow decides on that application alone."""
    application = event.decision.input_data.model_dump()
    if application["Property_Area"] == "Village":
        return None
    bundle = _BUNDLES[arm]
    return decide(application, model=bundle.models[arm.model], bundle=bundle)


@pytest.mark.server
async def test_each_decision_is_scored_once_as_by_itself_whatever_ends_the_worker(
    settings: BatchSettings,
    database: asyncpg.Connection,
    engine: AsyncEngine,
    history: httpx.AsyncClient,
) -> None:
    """It is cut off in the middle of chunks; results, counts and report are exact."""
    await _record(engine, _events(20, seed=1))
    await _activate(database, FOREST, REGRESSION, epoch=1)
    await asyncio.sleep(1.0)  # the recorder looks once a second
    events = _events(2500, seed=2)
    await _record(engine, events[:1500])
    await _record(engine, events[1000:])
    assert await _count(database, "shadow_queue") == len(events)

    killed = 0

    async def scored() -> bool:
        nonlocal killed
        if killed < 3:
            # While a chunk is scored, its transaction waits.
            killed += await database.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'batch-worker' AND state = 'idle in transaction'"
                " AND datname = current_database() AND query LIKE '%COPY%'"
            )
        return await _count(database, "shadow_queue") == 0

    async with working(settings), working(settings):
        await eventually_said(scored, timeout_s=60)
    assert killed

    for arm in _BUNDLES:
        found = await database.fetch(
            "SELECT decision, probability_approved, approved FROM shadow_decisions"
            " WHERE bundle = $1 AND model = $2",
            arm.bundle,
            arm.model,
        )
        alone = {
            event.decision.prediction_id: decided
            for event in events
            if (decided := _alone(event, arm)) is not None
        }
        assert len(found) == len(alone)
        for decision, probability, approved in found:
            assert alone[decision].prediction == ("Approved" if approved else "Rejected")
            # The runtime adds the trees of one row in another order than those of many.
            assert alone[decision].approved == pytest.approx(probability, abs=ROUNDING)
    answer = await history.get("/admin/rollout/shadows")
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert report["waiting"] == 0
    # Two shadows beside the four models that decided.
    assert len(report["comparisons"]) == 8
    for each in report["comparisons"]:
        assert each["shadowing"]
        _assert_counted(each, events)


def _assert_counted(comparison: Any, events: Iterable[PredictionRecorded]) -> None:
    arm = Arm(**comparison["shadow"])
    pairs = [
        (event.decision, alone.prediction == "Approved")
        for event in events
        if event.decision.model_info.name == comparison["decider"]["model"]
        and (alone := _alone(event, arm)) is not None
    ]
    swaps = comparison["swaps"]
    newly = Counter(
        (decision.prediction, approved)
        for decision, approved in pairs
        if (decision.prediction == "Approved") is not approved
    )
    assert swaps["all"]["decisions"] == len(pairs)
    assert swaps["all"]["newly_approved"] == newly["Rejected", True]
    assert swaps["all"]["newly_refused"] == newly["Approved", False]
    assert swaps["all"]["agreed"]["value"] == pytest.approx(1 - newly.total() / len(pairs))
    assert sum(band["newly_refused"] for band in swaps["bands"]) == newly["Approved", False]
    [gender] = [each for each in swaps["attributes"] if each["attribute"] == "Gender"]
    groups = Counter(decision.input_data.Gender or "not known" for decision, _ in pairs)
    assert {group["group"]: group["decisions"] for group in gender["groups"]} == {
        group: count for group, count in groups.items() if count >= LEAST_DECISIONS
    }
    assert set(gender["suppressed"]) == {
        group for group, count in groups.items() if count < LEAST_DECISIONS
    }


@pytest.mark.server
async def test_a_shadow_that_cannot_be_loaded_holds_up_no_other_and_erasure_reaches_all(
    settings: BatchSettings,
    database: asyncpg.Connection,
    engine: AsyncEngine,
    history: httpx.AsyncClient,
) -> None:
    """What waits for a bundle waits on; erased decisions leave neither results nor waiting rows."""
    missing = Arm(bundle="b-00000000", model="random_forest")
    await _activate(database, missing, epoch=1)
    waiting = _events(30, seed=3)
    await _record(engine, waiting)
    await _activate(database, FOREST, epoch=2)
    await asyncio.sleep(1.0)
    events = random_events(60, seed=4)
    await _record(engine, events)

    async def scored() -> bool:
        return await _count(database, "shadow_decisions") == len(events)

    async with working(settings):
        await eventually_said(scored)
    assert await _count(database, "shadow_queue") == len(waiting)
    for gone, table in ((waiting[1], "shadow_queue"), (events[0], "shadow_decisions")):
        before = await _count(database, table)
        answer = await history.delete(f"/history/{gone.decision.prediction_id}")
        assert answer.status_code == 200, answer.text
        assert await _count(database, table) == before - 1
    loan = events[1].decision.input_data.Loan_ID
    answer = await history.delete("/history", params={"loan_id": loan})
    assert answer.status_code == 200, answer.text
    assert await _count(database, "shadow_decisions") == len(events) - 2
    record = await history.get(f"/history/{events[2].decision.prediction_id}")
    assert "shadow" not in record.text
    # The roll-out that names it has been over for longer than batches are kept.
    await database.execute("SET session_replication_role = replica")
    await database.execute("UPDATE rollout_states SET reached_at = now() - interval '8 days'")

    async def given_up() -> bool:
        return await _count(database, "shadow_queue") == 0

    async with working(settings):
        await eventually_said(given_up)

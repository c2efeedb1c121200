"""The two arms side by side, and the guard that ends an experiment which goes wrong."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.database import AdvisoryLock, try_lock
from services.history.estimates import proportion
from services.history.rollout.guard import Guard
from services.history.rollout.sequential import LEAST
from shared.contract.events import PredictionRecorded
from shared.contract.rollout import ArmName, Rollout
from tests.history.events import random_event
from tests.history.rollout.conftest import FIRST, SECOND, Registry, arm
from tests.history.storage import rows_of, store_all
from tests.waiting import eventually_said

DECISIONS = 500


def decided(
    experiment: str, name: ArmName, *, approved: int, seed: int
) -> list[PredictionRecorded]:
    """``DECISIONS`` decisions of an arm, of which so many are approvals, from now on."""
    rng = random.Random(seed)  # noqa: S311 - test data, not a secret
    now = datetime.now(UTC)
    events = []
    for place in range(DECISIONS):
        event = random_event(rng, decided_at=now + timedelta(milliseconds=place + 1))
        info = event.decision.model_info.model_copy(update={"arm": f"{experiment}:{name}"})
        changes: dict[str, Any] = {
            "model_info": info,
            "prediction": "Approved" if place < approved else "Rejected",
            "reasons": None,
            "reasons_basis": None,
        }
        events.append(
            event.model_copy(update={"decision": event.decision.model_copy(update=changes)})
        )
    return events


async def report(registry: Registry, status: int = 200, **parameters: str) -> dict[str, Any]:
    answer = await registry.client.get("/admin/rollout/report", params=parameters)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_the_report_counts_each_arm_and_tells_a_difference_from_chance(
    registry: Registry, engine: AsyncEngine
) -> None:
    """Approvals from the daily counts, outcomes of the approved; nothing before there is enough."""
    await report(registry, 404)
    await registry.roll_out(0, FIRST, SECOND, 5000)
    found = await report(registry)
    assert (found["experiment"], found["share"], found["running"]) == ("x1", 5000, True)
    assert found["default"]["arm"] == arm(FIRST)
    assert found["candidate"]["arm"] == arm(SECOND)
    assert found["candidate"]["decisions"] == 0
    assert found["approval"] is found["outcomes"] is found["candidate"]["approval_share"] is None

    default = decided("x1", "default", approved=400, seed=1)
    candidate = decided("x1", "candidate", approved=375, seed=2)
    of_another = decided("x9", "candidate", approved=0, seed=3)
    await store_all(engine, [*default, *candidate, *of_another])
    lines = [
        json.dumps(
            {
                "prediction_id": str(event.decision.prediction_id),
                "outcome": "default" if place < bad else "repaid",
                "observed_at": event.decision.timestamp.isoformat(),
            }
        )
        for events, bad in ((default, 30), (candidate, 150))
        for place, event in enumerate(events[: LEAST + 50])
    ]
    answer = await registry.client.post(
        "/outcomes", content="\n".join(lines), headers={"content-type": "application/x-ndjson"}
    )
    assert answer.json()["accepted"] == len(lines), answer.text

    found = await report(registry, experiment="x1")
    assert found["default"]["decisions"] == found["candidate"]["decisions"] == DECISIONS
    share = found["candidate"]["approval_share"]
    assert tuple(share.values()) == pytest.approx(proportion(375, DECISIONS))
    assert (found["default"]["good"], found["default"]["bad"]) == (LEAST + 20, 30)
    assert found["candidate"]["bad_share"]["value"] == 150 / (LEAST + 50)
    assert found["approval"]["different"] is False
    assert found["approval"]["value"] == pytest.approx(-0.05)
    assert "no difference can be told from chance" in found["approval"]["sentence"]
    assert found["outcomes"]["different"] is True
    assert "bad outcomes is 48.0 points higher" in found["outcomes"]["sentence"]
    assert found["guard"]["crossed"] is None
    assert found["default"]["with_warnings"] == sum(
        bool(event.decision.warnings) for event in default
    )


async def test_the_guard_takes_the_share_of_a_candidate_that_decides_too_differently(
    registry: Registry, engine: AsyncEngine
) -> None:
    """By itself, once it is certain, with a sentence, an entry in the audit log and no approval."""
    active = await registry.roll_out(0, FIRST, SECOND, 5000)
    await store_all(
        engine,
        [
            *decided("x1", "default", approved=400, seed=1),
            *decided("x1", "candidate", approved=200, seed=2),
        ],
    )

    async def is_rolled_back() -> bool:
        await registry.report(epoch=1)
        return bool((await registry.status())["epoch"] == 2)

    await eventually_said(is_rolled_back)
    entry = (await registry.status())["pending"]
    assert (entry["proposed_by"], entry["change"]) == ("guard", "roll back")
    assert "approvals is 40.0 points lower than the default's" in entry["reason"]
    assert (entry["rollout"]["default"], entry["rollout"]["candidate"]) == (active["default"], None)
    await registry.follow(2)
    assert (await rows_of(engine, "audit_log"))[-2]["actor"] == "guard"
    assert (await report(registry))["running"] is False


async def test_the_guard_acts_on_a_replica_that_lastingly_cannot_serve_the_roll_out(
    registry: Registry, engine: AsyncEngine
) -> None:
    """Not at once, because it may succeed when it tries again; and never without a candidate."""
    active = Rollout.model_validate(await registry.roll_out(0, FIRST, SECOND, 5000))
    guard = Guard()
    async with _instead_of_the_services_guard(engine):
        await registry.report("late", ready=1, failed="the store does not answer")
        for seen in (active, None, active):
            await guard.look(engine, seen, largest=0.1)
        assert (guard.actions, (await registry.status())["epoch"]) == (0, 1)
        await registry.report("late", ready=1, failed="the store does not answer")
        await guard.look(engine, active, largest=0.1)
    newest = (await registry.status())["recent"][0]
    assert newest["reason"] == "late: the store does not answer"
    assert next(iter(guard.samples())).value == guard.actions == 1


@asynccontextmanager
async def _instead_of_the_services_guard(engine: AsyncEngine) -> AsyncIterator[None]:
    """Be the one guard that looks."""
    while True:
        async with try_lock(engine, AdvisoryLock.ROLLOUT_GUARD) as locked:
            if locked:
                yield
                return
        await asyncio.sleep(0.01)

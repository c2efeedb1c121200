"""Changes of what decides: based on the newest, agreed by all replicas, and approved."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import audit
from services.history.main import create_app
from services.history.rollout import replicas
from services.history.settings import HistorySettings
from shared.contract.rollout import ROLLOUT_KEY, Rollout
from tests import keys
from tests.bundles import make_bundle
from tests.history.rollout.conftest import (
    FIRST,
    MODELS,
    OTHER_SECRET,
    SECOND,
    THIRD,
    Registry,
    arm,
)
from tests.history.storage import rows_of
from tests.serving import served
from tests.waiting import eventually_said

_DOCUMENT: Final = Path(__file__).parents[3] / "docs/rollout.md"


async def test_a_roll_out_is_in_force_once_every_living_replica_has_it(
    registry: Registry, redis: Redis
) -> None:
    """Not before; then Redis has a copy for replicas that start while history is away."""
    assert await registry.report("one") == {"active": None, "pending": None}
    await registry.report("two")
    entry = await registry.set(0, FIRST, SECOND, 1000)
    assert (entry["epoch"], entry["state"]) == (1, "pending")
    state = await registry.report("one")
    assert state["active"] is None
    assert state["pending"] == entry["rollout"]

    assert (await registry.report("one", ready=1))["active"] is None
    assert await redis.get(ROLLOUT_KEY) is None
    assert (await registry.report("two", ready=1)) == {"active": entry["rollout"], "pending": None}

    async def is_copied() -> bool:
        # The look of each 0.1 s may have brought it into force, and copies it a moment later.
        copy = await redis.get(ROLLOUT_KEY)
        expected = Rollout.model_validate(entry["rollout"])
        return copy is not None and Rollout.model_validate_json(copy) == expected

    await eventually_said(is_copied)
    status = await registry.status()
    assert status["active"]["state"] == "active"
    assert {each["replica"]: each["ready"] for each in status["replicas"]} == {"one": 1, "two": 1}


async def test_a_roll_out_that_a_replica_cannot_load_fails_and_the_former_one_stays(
    registry: Registry,
) -> None:
    """Its sentence says why; the next change is based on the one that failed."""
    first = await registry.roll_out(0, FIRST)
    await registry.report("two", epoch=1)
    await registry.set(1, SECOND)
    await registry.report("one", epoch=1, ready=2)
    state = await registry.report("two", epoch=1, ready=2, failed="model.onnx is altered")
    assert state == {"active": first, "pending": None}
    failed = (await registry.status())["recent"][0]
    assert (failed["state"], failed["why"]) == ("failed", "two (inference): model.onnx is altered")
    assert (await registry.set(2, THIRD))["epoch"] == 3


async def test_a_replica_that_no_longer_reports_is_shown_last_and_not_as_alive(
    registry: Registry, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the moment of its last report, for a minute."""
    monkeypatch.setattr(replicas, "ALIVE_S", 25.0)
    for replica in ("a-killed-one", "one"):
        await registry.report(replica)
    async with engine.connect() as connection:
        killed = (
            "UPDATE replicas SET seen_at = now() - interval '30 s' WHERE replica = 'a-killed-one'"
        )
        await connection.execute(text(killed))
    living, ended = (await registry.status())["replicas"]
    assert (living["replica"], living["alive"]) == ("one", True)
    assert (ended["replica"], ended["alive"]) == ("a-killed-one", False)
    assert ended["seen_at"] < living["seen_at"]


async def test_a_replica_that_has_ended_is_not_waited_for_and_one_that_is_late_ends_the_wait(
    registry: Registry, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registry.report("ended")
    await registry.set(0, FIRST)
    assert (await registry.report("one", ready=1))["active"] is None
    async with engine.connect() as connection:
        ended = "UPDATE replicas SET seen_at = now() - interval '1 hour' WHERE replica = 'ended'"
        await connection.execute(text(ended))
    assert (await registry.report("one", ready=1))["active"]["epoch"] == 1

    monkeypatch.setattr(replicas, "PATIENCE_S", 0.0)
    await registry.set(1, SECOND)
    while (found := (await registry.status())["recent"][0])["state"] == "pending":
        await registry.report("one", epoch=1)
    assert (found["state"], found["why"]) == ("failed", "not ready after 0 s: one")


async def test_a_change_that_is_not_based_on_the_newest_is_refused(registry: Registry) -> None:
    """It names the newest epoch. What waits is superseded by a change that is based on it."""
    await registry.set(0, FIRST)
    for path, more in (
        ("rollout", {"default": arm(SECOND)}),
        ("rollout/promote", {}),
        ("rollout/rollback", {}),
    ):
        problem = await registry.post(path, 409, epoch=0, **more)
        assert (problem["code"], problem["epoch"]) == ("RolloutChanged", 1)
    await registry.set(1, SECOND)
    newest, former = (await registry.status())["recent"]
    assert (newest["state"], former["state"]) == ("pending", "superseded")
    assert "roll-out 2" in former["why"]


_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"default": arm("b-ffffffff")}, "default.bundle"),
    ({"default": arm(FIRST, "no_such")}, "default.model"),
    ({"candidate": arm(FIRST) | {"share": 10}}, "candidate"),
    ({"candidate": arm(SECOND) | {"share": 0}}, "candidate.share"),
    ({"shadows": [arm(SECOND), arm(SECOND)]}, "shadows.1"),
    ({"reason": ""}, "reason"),
    ({"shares": 5}, "shares"),
]


async def test_what_cannot_decide_is_refused_by_its_name(registry: Registry) -> None:
    for change, field in _REFUSED:
        body = {"epoch": 0, "default": arm(FIRST)} | change
        problem = await registry.post("rollout", 400, **body)
        assert [fault["field"] for fault in problem["validation_errors"]] == [field]
    assert (await registry.status())["epoch"] == 0


async def test_documented_body_of_a_change_is_accepted_and_the_next_one_replaces_its_shadows(
    registry: Registry, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    document = _DOCUMENT.read_text(encoding="utf-8")
    [example] = re.findall(r"```json\n(\{\"epoch\"[^`]*)```", document)
    body = json.loads(example)
    for version in {body[name]["bundle"] for name in ("default", "candidate")}:
        make_bundle(store, version=version, models=MODELS)
        await registry.register(store, version)
    await registry.roll_out(0, FIRST)
    entry = await registry.post("rollout", **body)
    assert body.items() <= (entry["rollout"] | {"reason": entry["reason"], "epoch": 1}).items()
    assert (await registry.follow(2))["shadows"] == body["shadows"]
    assert (await registry.roll_out(2, FIRST))["shadows"] == []


async def test_a_candidate_keeps_its_experiment_while_its_share_grows(registry: Registry) -> None:
    """Another candidate, or another default, is another experiment with another salt."""
    shares = [await registry.roll_out(0, FIRST, SECOND, 1000)]
    shares.append(await registry.roll_out(1, FIRST, SECOND, 5000))
    assert [each["experiment"] for each in shares] == ["x1", "x1"]
    assert shares[0]["salt"] == shares[1]["salt"]
    other = await registry.roll_out(2, FIRST, THIRD, 1000)
    assert other["experiment"] == "x3"
    assert other["salt"] != shares[0]["salt"]


async def test_a_candidate_is_promoted_and_rolled_back(registry: Registry) -> None:
    """Back to no share while there is a candidate; after the promotion, to the former default."""
    await registry.post("rollout/rollback", 409, epoch=0)
    await registry.roll_out(0, FIRST, SECOND, shadows=[arm(SECOND, "gradient_boosting")])
    await registry.post("rollout/rollback", epoch=1)
    active = await registry.follow(2)
    assert (active["default"], active["candidate"]) == (arm(FIRST), None)
    assert active["shadows"] == [arm(SECOND, "gradient_boosting")]
    await registry.post("rollout/promote", 409, epoch=2)

    await registry.roll_out(2, FIRST, SECOND)
    entry = await registry.post("rollout/promote", epoch=3)
    assert (entry["change"], entry["proposed_by"]) == ("promote", "tests")
    active = await registry.follow(4)
    assert (active["default"], active["candidate"]) == (arm(SECOND), None)
    assert active["experiment"] is None
    await registry.post("rollout/rollback", epoch=4)
    assert (await registry.follow(5))["default"] == arm(FIRST)
    states = [each["state"] for each in (await registry.status())["recent"]]
    assert states == ["active", "replaced", "replaced", "replaced", "replaced"]


async def test_rolling_back_again_goes_further_back_and_never_brings_back_what_it_took_away(
    registry: Registry, settings: HistorySettings
) -> None:
    """Not even where a change needs two people; what is set again can be gone back to again."""
    for epoch, bundle in enumerate((FIRST, SECOND, FIRST, THIRD)):
        await registry.roll_out(epoch, bundle)
    app = create_app(settings.model_copy(update={"rollout_approvals": 2}))
    async with served(app, headers=keys.HEADERS) as client:
        careful = Registry(client)
        for epoch, default in ((5, FIRST), (6, SECOND)):
            await careful.post("rollout/rollback", epoch=epoch - 1)
            await careful.post("rollout/rollback", 409, epoch=epoch - 1)
            assert (await careful.follow(epoch))["default"] == arm(default)
        problem = await careful.post("rollout/rollback", 409, epoch=6)
        assert problem["detail"] == "There is nothing earlier to go back to; use set."
    await registry.roll_out(6, THIRD)
    await registry.post("rollout/rollback", epoch=7)
    assert (await registry.follow(8))["default"] == arm(SECOND)
    await registry.post("rollout/rollback", 409, epoch=8)


async def test_a_candidate_that_was_rolled_back_is_not_gone_back_to(registry: Registry) -> None:
    """Although it was the default once."""
    await registry.roll_out(0, FIRST)
    await registry.roll_out(1, SECOND)
    await registry.roll_out(2, THIRD, SECOND)
    for epoch, default in ((4, THIRD), (5, FIRST)):
        await registry.post("rollout/rollback", epoch=epoch - 1)
        assert (await registry.follow(epoch))["default"] == arm(default)


async def test_rolling_back_passes_over_retired_bundles_or_says_which_one_is(
    registry: Registry,
) -> None:
    for epoch, bundle in enumerate((FIRST, SECOND, THIRD)):
        await registry.roll_out(epoch, bundle)
    await registry.post(f"bundles/{SECOND}/retire", 200)
    await registry.post("rollout/rollback", epoch=3)
    assert (await registry.follow(4))["default"] == arm(FIRST)
    problem = await registry.post("rollout/rollback", 409, epoch=4)
    assert problem["detail"] == (
        f"{SECOND} is retired, so there is nothing to roll back to: use set."
    )


async def test_two_people_are_needed_where_the_setting_says_so(
    registry: Registry, settings: HistorySettings
) -> None:
    """The proposer cannot approve; going back needs nobody else."""
    await registry.roll_out(0, FIRST)
    app = create_app(settings.model_copy(update={"rollout_approvals": 2}))
    async with served(app, headers=keys.HEADERS) as client:
        careful = Registry(client)
        entry = await careful.set(1, FIRST, SECOND)
        assert entry["state"] == "proposed"
        assert (await careful.report(epoch=1))["pending"] is None
        problem = await careful.post("rollout/2/approve", 403)
        assert problem["code"] == "SecondPersonNeeded"
        await careful.post("rollout/1/approve", 409)
        approved = await client.post(
            "/admin/rollout/2/approve", headers={"x-api-key": OTHER_SECRET}
        )
        assert approved.status_code == 202, approved.text
        assert approved.json()["approved_by"] == "other-person"
        await careful.post("rollout/2/approve", 409)
        await careful.follow(2)
        assert (await careful.post("rollout/promote", epoch=2))["state"] == "proposed"
        assert (await careful.post("rollout/rollback", epoch=3))["state"] == "pending"
        assert (await careful.status())["recent"][1]["state"] == "superseded"


async def test_every_change_is_in_the_audit_log_and_no_row_can_be_changed(
    registry: Registry, engine: AsyncEngine
) -> None:
    await registry.roll_out(0, FIRST, SECOND)
    await registry.post("rollout/rollback", epoch=1, reason="too many refusals")
    log = await rows_of(engine, "audit_log")
    assert [(row["actor"], row["action"], row["subject"]) for row in log] == [
        ("tests", "set roll-out", "roll-out 1"),
        ("replicas", "activate roll-out", "roll-out 1"),
        ("tests", "roll back roll-out", "roll-out 2"),
    ]
    assert json.loads(log[0]["details"])["rollout"]["candidate"]["share"] == 1000
    assert "salt" not in log[0]["details"]
    assert json.loads(log[2]["details"])["reason"] == "too many refusals"
    assert (await audit.verify(engine)).id == 3
    for statement in ("UPDATE rollouts SET content = '{}'", "DELETE FROM rollout_states"):
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError, match="only ever added"):
                await connection.execute(text(statement))

"""A what-if decides a period again by another rule: exactly, once, and in the background."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.batch.database import open_pool
from services.batch.jobs import Lost
from services.batch.settings import BatchSettings
from services.batch.what_if import WhatIfs
from services.command.main import main
from services.history.recorder import store
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.replay import Bundles
from services.scoring.store import BundleStore
from shared.contract.events import PredictionRecorded
from tests.batch.conftest import working
from tests.batch.test_shadows import FOREST, SERVED
from tests.history.events import random_events, row_of
from tests.waiting import eventually_said

_TODAY: Final = datetime.now(UTC).date()
_COSTS: Final = {"approved_good": -5, "approved_bad": 40, "rejected_good": 5, "referred": 1}
_COST: Final = {("Approved", True): -5, ("Approved", False): 40, ("Rejected", True): 5}


async def _events(engine: AsyncEngine) -> list[PredictionRecorded]:
    """Decisions of the last hour, and some of the week before."""
    earlier = datetime.now(UTC) - timedelta(days=8)
    events = random_events(400, seed=5)
    await store(engine, [row_of(event) for event in random_events(9, seed=6, decided_at=earlier)])
    await store(engine, [row_of(event) for event in events])
    return events


async def _register(history: httpx.AsyncClient, **members: object) -> None:
    """Register the served bundle, as the inference service does, or one that is like it."""
    manifest = SERVED.manifest.model_dump(mode="json") | members
    answer = await history.post("/internal/bundles", json=manifest)
    assert answer.status_code == 204, answer.text


async def _ask(history: httpx.AsyncClient, **order: Any) -> str:
    answer = await history.post("/admin/what-if", json=order)
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "queued"
    return f"/admin/what-if/{answer.json()['id']}"


async def _done(history: httpx.AsyncClient, path: str) -> Any:
    found: Any = {}

    async def has_ended() -> bool:
        nonlocal found
        answer = await history.get(path)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return found["state"] in ("done", "failed")

    await eventually_said(has_ended)
    return found


@pytest.mark.server
async def test_another_rule_is_counted_as_deciding_each_application_by_itself(
    settings: BatchSettings, history: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """By band and group, with the cost of those whose outcome is known; refusals are sentences."""
    events = await _events(engine)
    missing = {"bundle": "b-00000000", "model": "random_forest"}
    await _register(history)
    await _register(history, version=missing["bundle"])
    outcomes = {
        event.decision.prediction_id: "default" if place % 3 else "repaid"
        for place, event in enumerate(events[:90])
    }
    reported = [
        {
            "prediction_id": str(decision),
            "outcome": outcome,
            "observed_at": datetime.now(UTC).isoformat(),
        }
        for decision, outcome in outcomes.items()
    ]
    answer = await history.post("/outcomes", json=reported)
    assert answer.status_code == 200, answer.text
    band = {"low": 0.45, "high": 0.75}
    model = SERVED.models[FOREST.model]
    since = str(_TODAY - timedelta(days=3))
    async with working(settings):
        path = await _ask(history, arm=FOREST.model_dump(), refer=band, costs=_COSTS, since=since)
        found = await _done(history, path)
        recut = await _done(history, await _ask(history, threshold=0.9, since=since))
        by_one = await _done(
            history,
            await _ask(
                history,
                threshold=0.1,
                decided_by={"bundle": "2026.1", "model": "random_forest"},
            ),
        )
        failed = await _done(history, await _ask(history, arm=missing))

    def instead(event: PredictionRecorded) -> str:
        application = event.decision.input_data.model_dump()
        probability = model.approval_probability(SERVED.row_of(application))
        if probability >= band["high"]:
            return "Approved"
        return "Rejected" if probability < band["low"] else "Referred"

    pairs = [(event.decision, instead(event)) for event in events]
    swaps = found["swaps"]
    counts = Counter((decision.prediction, other) for decision, other in pairs)
    assert found["progress"]["read"] == found["progress"]["expected"] == len(events)
    assert swaps["all"]["decisions"] == len(events)
    assert swaps["all"]["newly_approved"] == counts["Rejected", "Approved"]
    assert swaps["all"]["newly_refused"] == counts["Approved", "Rejected"]
    assert swaps["all"]["referred"] == sum(other == "Referred" for _, other in pairs)
    for each in swaps["bands"]:
        within = [
            other for one, other in pairs if each["low"] <= one.probability.approved < each["high"]
        ]
        assert (each["decisions"], each["referred"]) == (len(within), within.count("Referred"))
    known = [
        (_COST.get((one.prediction, good), 0), _COST.get((other, good), other == "Referred"))
        for one, other in pairs
        if (outcome := outcomes.get(one.prediction_id)) is not None
        for good in (outcome == "repaid",)
    ]
    assert found["cost"]["decisions"] == len(outcomes)
    assert found["cost"]["on_record"] == pytest.approx(sum(one for one, _ in known))
    assert found["cost"]["instead"] == pytest.approx(sum(other for _, other in known))
    assert recut["swaps"]["all"]["newly_refused"] == sum(
        0.5 <= one.probability.approved < 0.9 for one, _ in pairs
    )
    assert by_one["swaps"]["all"]["decisions"] < len(events) < by_one["progress"]["read"]
    assert by_one["progress"]["read"] == by_one["progress"]["expected"]
    assert failed["problem"] == "The bundle b-00000000 cannot be read: it is not published here"
    typo = {"threshold": 0.5, "costs": {"approved_baad": 900}}
    for order in ({}, {"threshold": 0.5, "refer": band}, {"threshold": 2}, {"surprise": 1}, typo):
        refused = await history.post("/admin/what-if", json=order)
        assert refused.status_code == 400, refused.text


@pytest.mark.server
async def test_a_bundle_or_model_that_does_not_exist_is_refused_at_once_by_its_name(
    history: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """What decided needs only be on record: its bundle may never have been registered."""
    await _events(engine)
    await _register(history)
    served, unknown = FOREST.bundle, "b-00000000"
    for order, field in (
        ({"arm": {"bundle": unknown, "model": "random_forest"}}, "arm.bundle"),
        ({"arm": {"bundle": served, "model": "no_such"}}, "arm.model"),
        ({"decided_by": {"bundle": unknown, "model": "random_forest"}}, "decided_by.bundle"),
        ({"decided_by": {"bundle": served, "model": "no_such"}}, "decided_by.model"),
        ({"decided_by": {"bundle": "2026.1", "model": "no_such"}}, "decided_by.model"),
    ):
        answer = await history.post("/admin/what-if", json={"threshold": 0.5, **order})
        assert answer.status_code == 400, answer.text
        assert [fault["field"] for fault in answer.json()["validation_errors"]] == [field]
    for bundle in (served, "2026.1"):
        decider = {"bundle": bundle, "model": "random_forest"}
        await _ask(history, threshold=0.5, decided_by=decider)


@pytest.mark.server
async def test_a_worker_that_lost_a_what_if_changes_nothing_and_another_goes_on(
    settings: BatchSettings,
    history: httpx.AsyncClient,
    engine: AsyncEngine,
    database: asyncpg.Connection,
) -> None:
    """Each decision counts once, although one worker is cut off between two of its pieces."""
    await _events(engine)
    path = await _ask(history, threshold=0.9)
    whole = await _ask(history, threshold=0.9)
    pieces = 0

    def lose_the_third(_: int) -> None:
        nonlocal pieces
        pieces += 1
        if pieces == 3:
            _elsewhere(settings, "UPDATE what_ifs SET fence = fence + 1, attempts = 5")

    async with _at_work(settings, lose_the_third, piece_rows=100) as first:
        with pytest.raises(Lost):
            await first.work()
    halfway = (await history.get(path)).json()
    assert (halfway["state"], halfway["progress"]["read"]) == ("running", 300)
    # As when a worker was killed: its lease ends.
    await database.execute("UPDATE what_ifs SET leased_until = now() - interval '1 second'")
    async with working(settings):
        resumed, at_once = await _done(history, path), await _done(history, whole)
    assert resumed["progress"]["read"] == at_once["progress"]["read"] == 409
    assert resumed["swaps"] == at_once["swaps"]


@pytest.mark.server
async def test_a_what_if_that_is_cancelled_ends_at_once_and_is_never_gone_on_with(
    settings: BatchSettings,
    history: httpx.AsyncClient,
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its worker goes on with the next; one that is done stays so. The command waits for one."""
    await _events(engine)
    path = await _ask(history, threshold=0.9)
    cancelling: list[asyncio.Task[httpx.Response]] = []

    def cancel(_: int) -> None:
        if not cancelling:
            cancelling.append(asyncio.create_task(history.delete(path)))

    async with _at_work(settings, cancel, piece_rows=1) as worker:
        with pytest.raises(Lost):
            await worker.work()
        assert not await worker.work()
    cancelled = (await cancelling[0]).json()
    assert (cancelled["state"], cancelled["swaps"]) == ("cancelled", None)
    assert 1 <= cancelled["progress"]["read"] < 409
    assert cancelled["finished_at"] is not None
    monkeypatch.setenv("HISTORY_URL", str(history.base_url))
    monkeypatch.setenv("API_KEY", history.headers["x-api-key"])
    async with working(settings):
        command = ["what-if", "ask", "--threshold", "0.9", "--wait"]
        assert await asyncio.to_thread(main, command) == 0
        said = capsys.readouterr()
        without_outcomes = [*command, "--cost", "referred=1"]
        assert await asyncio.to_thread(main, without_outcomes) == 0
        assert "\nOutcomes are known of none of these decisions." in capsys.readouterr().out
        assert await asyncio.to_thread(main, [*command, "--until", "2020-01-01"]) == 0
        assert "before 2020-01-01\nNo decision is in this period." in capsys.readouterr().out
    assert "queued  0 of 409 decisions" in said.err
    assert "done  409 of 409 decisions" in said.out
    assert "newly refused" in said.out
    first = (await history.get("/admin/what-if", params={"limit": 3})).json()
    done = first["items"][-1]
    rest = {"cursor": first["next_cursor"]}
    second = (await history.get("/admin/what-if", params=rest)).json()
    assert (second["items"], second["next_cursor"]) == ([cancelled], None)
    assert (await history.delete(f"/admin/what-if/{done['id']}")).json() == done
    assert done["state"] == "done"
    assert (await history.delete(f"/admin/what-if/{UUID(int=1)}")).status_code == 404


@asynccontextmanager
async def _at_work(
    settings: BatchSettings, count: Callable[[int], None], *, piece_rows: int
) -> AsyncIterator[WhatIfs]:
    async with open_pool(settings, name="test", size=3) as pool:
        yield WhatIfs(
            pool=pool,
            bundles=Bundles(BundleStore(None, shipped=BUNDLE_ROOT), lambda: [SERVED]),
            lease_s=60,
            stopping=asyncio.Event(),
            count=count,
            piece_rows=piece_rows,
        )


def _elsewhere(settings: BatchSettings, statement: str) -> None:
    """Execute a statement while the event loop stands still."""

    async def execute() -> None:
        connection = await asyncpg.connect(settings.database_url)
        await connection.execute(statement)
        await connection.close()

    thread = threading.Thread(target=asyncio.run, args=(execute(),))
    thread.start()
    thread.join()

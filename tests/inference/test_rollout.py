"""A replica follows roll-outs: it loads beside, reports, swaps, and refuses what it cannot use."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import thread_time
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from services.inference.main import create_app
from services.inference.settings import InferenceSettings
from services.scoring import follower
from services.scoring.manifest import MANIFEST_FILE, SCHEMA_VERSION
from shared.contract.application import EXAMPLE
from shared.contract.events import STREAM
from shared.contract.parsing import read_application
from shared.contract.rollout import (
    REPORT_S,
    ROLLOUT_KEY,
    RolloutState,
    arm_of,
)
from tests import keys
from tests.bundles import make_bundle
from tests.prometheus import Exposition
from tests.rollouts import NEW, OTHER, OWN, History, rollout
from tests.serving import served
from tests.waiting import eventually_said


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with two bundles; beside it are shipped ones of which ``OWN`` is current."""
    shipped = {"regression": "logistic_regression", "forest": "random_forest"}
    make_bundle(tmp_path / "shipped", version=OWN, models=shipped)
    make_bundle(tmp_path / "store", version=NEW, models={"newcomer": "gradient_boosting"})
    make_bundle(tmp_path / "store", version=OTHER, models={"forest": "random_forest"})
    return tmp_path / "store"


@asynccontextmanager
async def serving(
    settings: InferenceSettings, store: Path, history: History | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, History]]:
    """A replica with the bundles of ``store``, and the history service that it reports to."""
    history = history or History()
    async with served(history.app()) as there:
        here = settings.model_copy(
            update={
                "bundle_root": store.parent / "shipped",
                "bundle_store": str(store),
                "history_url": str(there.base_url),
                "internal_api_key": SecretStr(keys.SECRET),
            }
        )
        async with served(create_app(here), headers=keys.HEADERS) as client:
            yield client, history


async def _decide(client: httpx.AsyncClient, loan_id: str = "LP1", **more: Any) -> dict[str, Any]:
    answer = await client.post("/predict", json={**EXAMPLE, "Loan_ID": loan_id}, **more)
    info: dict[str, Any] = answer.raise_for_status().json()["model_info"]
    return {name: info.get(name) for name in ("name", "version", "arm")}


async def _ready(client: httpx.AsyncClient) -> tuple[int, Any]:
    answer = await client.get("/readyz")
    return answer.status_code, answer.json()["checks"]["rollout"]["detail"]


async def test_a_pending_roll_out_is_loaded_beside_and_swapped_in_once_it_is_in_force(
    settings: InferenceSettings, store: Path
) -> None:
    async with serving(settings, store) as (client, history):
        await history.reported(lambda report: (report.epoch, report.ready) == (0, None))
        assert await _decide(client) == {"name": "regression", "version": OWN, "arm": None}
        assert await _ready(client) == (200, {"epoch": 0, "source": "history", "failed": None})
        first = rollout(1, NEW, "newcomer")
        history.state = RolloutState(pending=first)
        await history.reported(lambda report: (report.epoch, report.ready) == (0, 1))
        assert (await _decide(client))["version"] == OWN
        history.state = RolloutState(active=first)
        await history.reported(lambda report: (report.epoch, report.ready) == (1, None))
        assert await _decide(client) == {"name": "newcomer", "version": NEW, "arm": None}
        assert [each["name"] for each in (await client.get("/models")).json()["models"]] == [
            "newcomer"
        ]
        # Another model of the first bundle: it decides wherever none is named.
        await history.puts_in_force(rollout(2, OWN, "forest"))
        assert await _decide(client) == {"name": "forest", "version": OWN, "arm": None}
        assert (await client.get("/model-info")).json()["name"] == "forest"
        history.state = RolloutState()
        await history.reported(lambda report: report.epoch == 0)
        assert (await _decide(client))["name"] == "regression"
        metrics = Exposition((await client.get("/metrics")).text)
    assert metrics.sum_of("rollout_load_failures_total") == 0
    assert metrics.sum_of("decisions_total", version=OWN, model="forest") == 1


async def test_arms_are_met_alone_and_together_and_a_repeated_request_keeps_its_answer(
    settings: InferenceSettings, store: Path
) -> None:
    async with serving(settings, store) as (client, history):
        half = rollout(2, OWN, "regression", share=5000)
        await history.puts_in_force(half)
        applications = [{**EXAMPLE, "Loan_ID": f"LP{number}"} for number in range(60)]
        expected = [f"x2:{arm_of(half, read_application(each))}" for each in applications]
        together = (await client.post("/predict/many", json=applications)).raise_for_status().json()
        decisions = [each["decision"] for each in together["results"]]
        assert [each["model_info"]["arm"] for each in decisions] == expected
        assert {*expected} == {"x2:default", "x2:candidate"}
        of_arms = {
            (each["model_info"]["arm"], each["model_info"]["version"], each["model_info"]["name"])
            for each in decisions
        }
        assert of_arms == {("x2:default", OWN, "regression"), ("x2:candidate", OTHER, "forest")}
        for number, arm in enumerate(expected[:20]):
            assert (await _decide(client, f"LP{number}"))["arm"] == arm
        candidate = expected.index("x2:candidate")
        named = await client.post("/predict/forest", json=applications[candidate])
        assert (named.json()["model_info"]["version"], named.json()["model_info"]["arm"]) == (
            OWN,
            None,
        )
        for decision in decisions[:10]:
            replayed = (await client.post("/replay", json=decision)).json()
            assert (replayed["equal"], replayed["differences"]) == (True, [])
        keyed = {"headers": {"idempotency-key": "one"}}
        before = await _decide(client, f"LP{candidate}", **keyed)
        await history.puts_in_force(rollout(3, NEW, "newcomer"))
        assert (await _decide(client, f"LP{candidate}"))["version"] == NEW
        assert await _decide(client, f"LP{candidate}", **keyed) == before
        assert before["arm"] == "x2:candidate"


async def test_a_decision_of_the_candidate_is_replayed_by_the_bundle_that_is_loaded_already(
    settings: InferenceSettings, store: Path
) -> None:
    async with serving(settings, store) as (client, history):
        await history.puts_in_force(rollout(2, NEW, "newcomer", share=10_000))
        shutil.rmtree(store)
        decision = (await client.post("/predict", json=EXAMPLE)).raise_for_status().json()
        assert decision["model_info"]["version"] == OTHER
        assert (await client.post("/replay", json=decision)).json()["equal"]


async def test_an_explanation_is_by_the_arm_that_would_decide_unless_model_or_bundle_is_named(
    settings: InferenceSettings, store: Path
) -> None:
    async with serving(settings, store) as (client, history):
        half = rollout(2, OWN, "regression", share=5000)
        await history.puts_in_force(half)

        async def explained(path: str, application: dict[str, Any]) -> Any:
            return (await client.post(path, json=application)).raise_for_status().json()

        arms = set()
        for number in range(12):
            application = {**EXAMPLE, "Loan_ID": f"LP{number}"}
            decision = (await client.post("/predict", json=application)).raise_for_status().json()
            explanation = await explained("/explain", application)
            for member in ("model_info", "prediction", "probability"):
                assert explanation[member] == decision[member]
            arms.add(decision["model_info"]["arm"])
            for path, version in (("/explain/forest", OWN), (f"/explain?bundle={OTHER}", OTHER)):
                info = (await explained(path, application))["model_info"]
                assert (info["name"], info["version"], info["arm"]) == ("forest", version, None)
        assert arms == {"x2:default", "x2:candidate"}


def _alter(folder: Path) -> None:
    model = folder / "newcomer.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")


def _truncate(folder: Path) -> None:
    model = folder / "newcomer.onnx"
    model.write_bytes(model.read_bytes()[:-100])


def _change(**members: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
        (folder / MANIFEST_FILE).write_text(json.dumps(manifest | members))

    return change


def _against_directions(folder: Path) -> None:
    shutil.rmtree(folder)
    make_bundle(folder.parent, version=NEW, models={"newcomer": "support_vector_machine"})
    manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
    manifest["models"]["newcomer"]["directions"]["held"] = True
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))


async def test_a_bundle_that_cannot_be_used_is_refused_in_one_sentence_and_changes_nothing(
    settings: InferenceSettings, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "FOLLOW_S", 0.3)
    monkeypatch.setattr(follower, "_RETRY_S", 0.1)
    faults: list[tuple[Callable[[Path], object], str]] = [
        (_alter, "newcomer.onnx is altered"),
        (_truncate, "newcomer.onnx is altered"),
        (_change(version=OTHER), f"{NEW} is {OTHER} by its manifest"),
        (
            _change(schema_version=SCHEMA_VERSION + 1),
            f"newer than the {SCHEMA_VERSION} that this service reads",
        ),
        (_against_directions, "lowers approval for a better value of LoanAmount, ApplicantIncome"),
        (shutil.rmtree, f"The bundle {NEW} cannot be read: it is not published here"),
    ]
    kept = store.parent / "kept"
    shutil.copytree(store / NEW, kept)
    async with serving(settings, store) as (client, history):
        for epoch, (spoil, sentence) in enumerate(faults, start=1):
            spoil(store / NEW)
            history.state = RolloutState(pending=rollout(epoch, NEW, "newcomer"))
            report = await history.reported_failure(epoch)
            assert report.failed is not None
            assert sentence in report.failed.reason
            assert (report.epoch, report.ready) == (0, None)
            assert (await _decide(client))["version"] == OWN
            status, detail = await _ready(client)
            assert status == 200
            assert sentence in detail["failed"]
            shutil.copytree(kept, store / NEW, dirs_exist_ok=True)
        unknown = rollout(9, NEW, "regression")
        history.state = RolloutState(pending=unknown)
        report = await history.reported_failure(9)
        assert report.failed is not None
        assert report.failed.reason == f"The bundle {NEW} has no model regression."
        # In force nevertheless, for others have it: this replica is not ready, and says why.
        history.state = RolloutState(active=unknown)
        await eventually_said(lambda: _is_not_ready(client, "has no model regression"))
        assert (await _decide(client))["version"] == OWN
        metrics = Exposition((await client.get("/metrics")).text)
        assert metrics.sum_of("rollout_load_failures_total") >= len(faults) + 1
        assert metrics.sum_of("rollout_active_epoch") == 9
        history.state = RolloutState()
        await history.reported(lambda report: (report.epoch, report.failed) == (0, None))
        assert (await _ready(client))[0] == 200


async def _is_not_ready(client: httpx.AsyncClient, reason: str) -> bool:
    status, detail = await _ready(client)
    return status == 503 and reason in detail


async def test_a_replica_that_starts_and_cannot_load_the_roll_out_in_force_decides_nothing(
    settings: InferenceSettings, redis: Redis, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anything recorded, until it can; what is to replace the roll-out it can prepare."""
    monkeypatch.setattr(follower, "_RETRY_S", 0.1)
    kept = store.parent / "kept"
    shutil.copytree(store / NEW, kept)
    _truncate(store / NEW)
    history, broken = History(), rollout(1, NEW, "newcomer")
    history.state = RolloutState(active=broken)
    async with serving(settings, store, history) as (client, _):
        assert await _is_not_ready(client, "newcomer.onnx is altered")
        for path, body in _DECISIONS:
            await _is_refused(client, path, body)
        assert not await redis.exists(STREAM)
        history.state = RolloutState(active=broken, pending=rollout(2, OTHER, "forest"))
        await history.reported(lambda report: (report.epoch, report.ready) == (0, 2))
        await _is_refused(client, *_DECISIONS[0])
        history.state = RolloutState(active=rollout(2, OTHER, "forest"))
        await history.reported(lambda report: report.epoch == 2)
        assert (await _decide(client))["version"] == OTHER
        # Now it has one to stay on.
        history.state = RolloutState(active=rollout(3, NEW, "newcomer"))
        await history.reported_failure(3)
        assert (await _decide(client))["version"] == OTHER
    history.state = RolloutState(active=broken)
    async with serving(settings, store, history) as (client, _):
        await _is_refused(client, *_DECISIONS[0])
        shutil.copytree(kept, store / NEW, dirs_exist_ok=True)
        await history.reported(lambda report: report.epoch == 1)
        assert (await _decide(client))["version"] == NEW


_DECISIONS: list[tuple[str, Any]] = [
    ("/predict", EXAMPLE),
    ("/predict/regression", EXAMPLE),
    ("/predict/many", [EXAMPLE]),
    ("/predict/many?model=regression", [EXAMPLE]),
    ("/explain", EXAMPLE),
    ("/models/benchmark", {}),
    ("/v2/models/regression/infer", {}),
    (f"/v2/models/newcomer/versions/{NEW}/infer", {}),
]


async def _is_refused(client: httpx.AsyncClient, path: str, body: Any) -> None:
    answer = await client.post(path, json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["code"] == "RolloutNotLoaded"


async def test_nothing_is_refused_between_the_moment_a_roll_out_is_in_force_and_its_swap(
    settings: InferenceSettings, store: Path
) -> None:
    async with serving(settings, store) as (client, history):
        for epoch, wanted in enumerate([(NEW, "newcomer"), (OTHER, "forest")], start=1):
            # In force for others, and this replica has not even begun to load it.
            history.state = RolloutState(active=rollout(epoch, *wanted))
            while (await _decide(client))["version"] != wanted[0]:
                assert (await client.post("/predict/many", json=[EXAMPLE])).status_code == 200


async def test_a_replica_without_history_starts_with_the_copy_in_redis_and_follows_it_forward(
    settings: InferenceSettings, redis: Redis, store: Path
) -> None:
    """Without either it serves its own default; a copy that is late leads nowhere back."""
    history = History()
    history.away = True
    async with serving(settings, store, history) as (client, _):
        assert (await _decide(client))["version"] == OWN
        assert await _ready(client) == (
            200,
            {"epoch": 0, "source": "last known", "failed": None},
        )
    await redis.set(ROLLOUT_KEY, rollout(4, NEW, "newcomer").model_dump_json())
    async with serving(settings, store, history) as (client, _):
        assert (await _decide(client))["version"] == NEW
        assert (await _ready(client))[1] == {"epoch": 4, "source": "last known", "failed": None}
        await redis.set(ROLLOUT_KEY, rollout(3, OTHER, "forest").model_dump_json())
        await asyncio.sleep(2 * REPORT_S)
        assert (await _decide(client))["version"] == NEW
        await redis.set(ROLLOUT_KEY, rollout(5, OTHER, "forest").model_dump_json())
        await eventually_said(lambda: _serves(client, OTHER))
        history.away, history.state = False, RolloutState(active=rollout(4, NEW, "newcomer"))
        await history.reported(lambda report: report.epoch == 4)
        assert (await _decide(client))["version"] == NEW


async def _serves(client: httpx.AsyncClient, version: str) -> bool:
    return bool((await _decide(client))["version"] == version)


@pytest.mark.no_cover
async def test_a_hundred_swaps_hold_no_request_up_and_leave_no_memory_behind(
    settings: InferenceSettings, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request meanwhile is answered, and the event loop is never busy for long."""
    monkeypatch.setattr(follower, "REPORT_S", 0.005)
    turns: list[float] = []
    answered: list[str] = []

    async def turn() -> None:
        while True:
            began_s = thread_time()
            await asyncio.sleep(0)
            turns.append(thread_time() - began_s)

    async def ask(client: httpx.AsyncClient) -> None:
        while True:
            answered.append((await _decide(client))["version"])

    async with serving(settings, store) as (client, history):
        busy = [asyncio.create_task(each) for each in (turn(), ask(client))]
        first_kb = 0
        for epoch in range(1, 121):
            wanted = (NEW, "newcomer") if epoch % 2 else (OTHER, "forest")
            await history.puts_in_force(rollout(epoch, *wanted))
            if epoch == 20:
                first_kb = _resident_kb()
        last_kb = _resident_kb()
        for task in busy:
            task.cancel()
        assert (await _ready(client))[0] == 200
    assert {*answered} == {OWN, NEW, OTHER}
    assert last_kb < 1.05 * first_kb
    assert sorted(turns)[-len(turns) // 1000] < 0.005


def _resident_kb() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0])

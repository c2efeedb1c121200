"""Bundles are published, shadow, get a share, are promoted and rolled back, whatever is killed."""

import asyncio
import io
import random
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

from services.history.shadowing import ASK_AGAIN_S
from services.local import components
from services.local.processes import Process
from services.local.servers import Server
from services.scoring.manifest import BUNDLE_ROOT, MANIFEST_FILE, read_current_version
from services.scoring.registry import load_bundle
from shared.contract.parsing import read_application
from shared.contract.rollout import FOLLOW_S, Rollout, arm_label, arm_of
from tests.applications import random_application
from tests.bundles import make_bundle, version_of
from tests.harness import HOST, System, free_port, running_system
from tests.waiting import eventually_said

pytestmark = pytest.mark.system

_MODELS = {"newcomer": "gradient_boosting"}
_NO_MODEL = {"newcomer.onnx": b"no model"}
"""What no runtime can load, under a checksum that is right."""
_NEW, _SPOILT = version_of(_MODELS), version_of(_MODELS, _NO_MODEL)
_CANDIDATE = {"bundle": _NEW, "model": "newcomer"}
_SHARE = 1000
_CALLERS = 3


def _archive(folder: Path, **changed: bytes) -> bytes:
    """The bundle's folder as a ZIP archive; ``changed`` files have other bytes, by their stem."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.writestr(path.name, changed.get(path.stem, path.read_bytes()))
    return file.getvalue()


@dataclass
class Stage:
    """Two replicas of inference, history and its consumer, and who changes what is rolled out."""

    system: System
    second: Process
    urls: tuple[str, str]
    client: httpx.AsyncClient
    answered: list[dict[str, Any]] = field(default_factory=list)
    rollouts: dict[str, Rollout] = field(default_factory=dict)

    @property
    def replicas(self) -> tuple[Process, Process]:
        """Both replicas of inference."""
        return self.system.inference, self.second

    async def admin(self, path: str, status: int = 202, **body: Any) -> dict[str, Any]:
        """Post a change with its reason; it is based on the newest epoch."""
        if path.startswith("rollout"):
            body |= {"epoch": (await self.status())["epoch"], "reason": "a test"}
        answer = await self.client.post(f"{self.system.history_url}/admin/{path}", json=body)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def publish(self, archive: bytes) -> httpx.Response:
        """Publish a bundle."""
        return await self.client.post(
            f"{self.system.history_url}/admin/bundles",
            content=archive,
            headers={"content-type": "application/zip"},
        )

    async def status(self) -> dict[str, Any]:
        """What is rolled out."""
        answer = await self.client.get(f"{self.system.history_url}/admin/rollout")
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    async def serve(self, epoch: int) -> None:
        """Return once both replicas serve the roll-out ``epoch``."""
        await eventually_said(lambda: self._both_serve(epoch))
        active = (await self.status())["active"]
        assert active["epoch"] == epoch
        rollout = Rollout.model_validate(active["rollout"])
        self.rollouts[rollout.experiment or ""] = rollout

    async def epochs(self) -> set[int]:
        """The epochs that the replicas serve; all of them are ready."""
        answers = [await self.client.get(f"{url}/readyz") for url in self.urls]
        assert {answer.status_code for answer in answers} == {200}
        return {answer.json()["checks"]["rollout"]["detail"]["epoch"] for answer in answers}

    async def _both_serve(self, epoch: int) -> bool:
        return await self.epochs() == {epoch}

    async def change(self, path: str, **body: Any) -> int:
        """Make a change and have both replicas follow it within two seconds; its epoch."""
        entry = await self.admin(path, **body)
        began_s = monotonic()
        await self.serve(entry["epoch"])
        took_s = monotonic() - began_s
        print(f"roll-out {entry['epoch']} ({entry['change']}) in force after {took_s:.2f} s")
        assert took_s < FOLLOW_S
        return int(entry["epoch"])

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Callers ask both replicas during the block; each request has to be answered."""
        stopping = asyncio.Event()

        async def ask(number: int) -> None:
            rng = random.Random(number)  # noqa: S311 - test data, not a secret
            while not stopping.is_set():
                for url in self.urls:
                    self.answered.append(await self.decide(url, random_application(rng)))

        asking = [asyncio.create_task(ask(number)) for number in range(_CALLERS)]
        try:
            yield
        finally:
            stopping.set()
            await asyncio.gather(*asking)

    async def decide(self, url: str, application: dict[str, object]) -> dict[str, Any]:
        """The decision of one replica."""
        answer = await self.client.post(f"{url}/predict", json=application)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def running(
    database_url: str, own_redis: Server, tmp_path: Path
) -> Iterator[tuple[System, Process, str]]:
    """The system with a store of its own, and a second replica of inference."""
    store = {"BUNDLE_STORE": str(tmp_path / "store")}
    with running_system(
        database_url=database_url, redis_url=own_redis.url, logs=tmp_path, settings=store
    ) as system:
        (tmp_path / "second").mkdir()
        port = free_port()
        second = components.inference(
            system.environment, host=HOST, port=port, logs=tmp_path / "second"
        )
        try:
            second.start()
            yield system, second, f"http://{HOST}:{port}"
        finally:
            second.stop()
            print(second.log_tail())


async def test_a_candidate_goes_all_its_way_under_load_and_no_kill_leaves_a_mixture(
    running: tuple[System, Process, str], own_redis: Server, tmp_path: Path
) -> None:
    system, second, url = running
    headers = {"x-api-key": system.api_key}
    async with httpx.AsyncClient(headers=headers, timeout=20) as client:
        stage = Stage(system, second, (system.inference_url, url), client)
        shipped = load_bundle(BUNDLE_ROOT, None).manifest
        default = {"bundle": shipped.version, "model": shipped.champion}
        await eventually_said(lambda: _is_registered(stage, shipped.version))
        async with stage.load():
            await _publish(stage, tmp_path)
            await stage.change("rollout", default=default, candidate=_CANDIDATE | {"share": _SHARE})
            await asyncio.sleep(1)
            await stage.change("rollout/promote")
            await _refuse_what_no_replica_can_load(stage)
            await stage.change("rollout/rollback")
        await _every_decision_is_one_that_a_roll_out_makes(stage)
        await _no_kill_leaves_a_mixture(stage, own_redis, default)
        (tmp_path / "worker").mkdir()
        worker = components.batch_worker(
            system.environment, host=HOST, metrics_port=free_port(), logs=tmp_path / "worker"
        )
        try:
            worker.start()
            await _a_published_bundle_shadows(stage, default)
        finally:
            worker.stop()
            print(worker.log_tail())


async def _is_registered(stage: Stage, version: str) -> bool:
    answer = await stage.client.get(f"{stage.system.history_url}/admin/bundles")
    return version in {each["version"] for each in answer.json()["bundles"]}


async def _publish(stage: Stage, tmp_path: Path) -> None:
    """Publish two bundles; one that is altered, truncated or too new is refused, and not there."""
    for version, changed in ((_NEW, {}), (_SPOILT, _NO_MODEL)):
        make_bundle(tmp_path / "made", version=version, models=_MODELS, changed=changed)
    folder = tmp_path / "made" / _NEW
    manifest = (folder / MANIFEST_FILE).read_bytes()
    for archive, sentence in (
        (_archive(folder, newcomer=b"altered"), "newcomer.joblib is altered"),
        (_archive(folder)[:-200], "ZIP"),
        (_archive(folder, manifest=manifest.replace(b'"schema_version": ', b'"schema_version": 9')),
         "newer than"),
    ):  # fmt: skip
        refused = await stage.publish(archive)
        assert refused.status_code == 400
        assert sentence in refused.json()["detail"]
        assert not await _is_registered(stage, _NEW)
    for version in (_NEW, _SPOILT):
        assert (await stage.publish(_archive(folder.parent / version))).status_code == 201


async def _refuse_what_no_replica_can_load(stage: Stage) -> None:
    """The roll-out fails with the replica's sentence, and the one in force stays everywhere."""
    [before] = await stage.epochs()
    arm = {"bundle": _SPOILT, "model": "newcomer"}
    epoch = (await stage.admin("rollout", default=arm))["epoch"]

    async def failed() -> bool:
        recent = (await stage.status())["recent"]
        return any(each["epoch"] == epoch and each["state"] == "failed" for each in recent)

    await eventually_said(failed)
    [entry] = [each for each in (await stage.status())["recent"] if each["epoch"] == epoch]
    assert "newcomer.onnx is not a model that the runtime can load" in entry["why"]
    assert await stage.epochs() == {before}


async def _every_decision_is_one_that_a_roll_out_makes(stage: Stage) -> None:
    """Each names the bundle of its arm, and comes out the same again on the other replica."""
    shipped = read_current_version(BUNDLE_ROOT)
    made = set()
    for decision in stage.answered:
        info = decision["model_info"]
        experiment = (info["arm"] or "").partition(":")[0]
        made.add((info["version"], info["arm"]))
        if experiment:
            rollout = stage.rollouts[experiment]
            arm = arm_of(rollout, read_application(decision["input_data"]))
            assert info["arm"] == arm_label(rollout, arm)
            assert info["version"] == (_NEW if arm == "candidate" else shipped)
    [experiment] = filter(None, stage.rollouts)
    assert made == {
        (shipped, None),
        (shipped, f"{experiment}:default"),
        (_NEW, f"{experiment}:candidate"),
        (_NEW, None),
    }
    for decision in stage.answered[:: max(1, len(stage.answered) // 200)]:
        answer = await stage.client.post(f"{stage.urls[1]}/replay", json=decision)
        assert answer.json()["differences"] == [], answer.text
    print(f"{len(stage.answered)} requests, all answered")

    async def all_stored() -> bool:
        answer = await stage.client.get(f"{stage.system.history_url}/statistics")
        return bool(answer.json()["total_predictions"] == len(stage.answered))

    await eventually_said(all_stored)


async def _no_kill_leaves_a_mixture(stage: Stage, redis: Server, default: dict[str, str]) -> None:
    """After each kill both replicas serve the former roll-out or the new one, and agree."""
    history, (first, second) = stage.system.history, stage.replicas
    # History, amid the agreement: nothing changes until it is back.
    [before] = await stage.epochs()
    epoch = (await stage.admin("rollout", default=_CANDIDATE))["epoch"]
    history.kill()
    await asyncio.sleep(FOLLOW_S)
    between = await stage.epochs()
    assert len(between) == 1
    assert between <= {before, epoch}
    history.start()
    await stage.serve(epoch)
    # Redis: decisions go by HTTP, and replicas follow without the copy.
    redis.process.kill()
    epoch = (await stage.admin("rollout", default=default))["epoch"]
    await stage.serve(epoch)
    decided = await stage.decide(stage.urls[0], random_application(random.Random(1)))  # noqa: S311
    assert decided["model_info"]["version"] == default["bundle"]
    redis.process.start()
    # A replica: the others go on without it, and it starts with what is in force.
    epoch = (await stage.admin("rollout", default=_CANDIDATE))["epoch"]
    second.kill()
    second.start()
    await stage.serve(epoch)
    # A replica that starts while history is away has the copy in Redis.
    history.kill()
    first.kill()
    first.start()
    assert await stage.epochs() == {epoch}
    history.start()
    await stage.serve(epoch)


async def _a_published_bundle_shadows(stage: Stage, default: dict[str, str]) -> None:
    """It scores each decision that is made from then on, and decides none."""
    await stage.serve(
        (await stage.admin("rollout", default=default, shadows=[_CANDIDATE]))["epoch"]
    )
    await asyncio.sleep(ASK_AGAIN_S)
    before = len(stage.answered)
    async with stage.load():
        await asyncio.sleep(0.5)
    made = stage.answered[before:]
    assert {each["model_info"]["version"] for each in made} == {default["bundle"]}

    async def all_scored() -> bool:
        answer = await stage.client.get(f"{stage.system.history_url}/admin/rollout/shadows")
        found = answer.raise_for_status().json()["comparisons"]
        return bool(
            [(each["shadow"], each["decider"], each["swaps"]["all"]["decisions"]) for each in found]
            == [(_CANDIDATE, default, len(made))]
        )

    await eventually_said(all_scored)

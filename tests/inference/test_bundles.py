"""Any set of models can be served, and one set replaced by another between two requests."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from starlette.types import Message, Receive, Scope, Send

from services.inference.deps import Resources, resources_of, serve
from services.inference.main import create_app
from services.inference.settings import InferenceSettings
from services.scoring.manifest import Manifest
from services.scoring.registry import load_bundle
from shared.contract.application import EXAMPLE
from shared.contract.events import PredictionRecorded
from tests import keys
from tests.bundles import make_bundle
from tests.prometheus import Exposition
from tests.serving import served
from tests.stream import recorded_events

_SHIPPED = ("random_forest", "logistic_regression", "gradient_boosting", "support_vector_machine")
_THREE = {name: name for name in _SHIPPED[:3]}
_FIVE = {name: name for name in _SHIPPED} | {"second_forest": "random_forest"}


@asynccontextmanager
async def _serving(
    settings: InferenceSettings, once_read: Sequence[Callable[[], None]] = ()
) -> AsyncIterator[tuple[httpx.AsyncClient, Resources]]:
    """A client with a key, and the resources of the app that serves it.

    ``once_read`` is called when a handler has read the body of its request.
    """
    app = create_app(settings)
    found: list[Resources] = []

    async def looked_into(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_call() -> Message:
            message = await receive()
            for call in once_read:
                call()
            return message

        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        found.append(resources_of(scope))
        await app(scope, receive_and_call, send)

    async with served(looked_into, headers=keys.HEADERS) as client:
        await client.get("/livez")
        yield client, found[0]


@pytest.mark.parametrize("models", [_THREE, _FIVE], ids=["three", "five"])
async def test_bundle_declares_its_own_models(
    settings: InferenceSettings, redis: Redis, tmp_path: Path, models: Mapping[str, str]
) -> None:
    make_bundle(tmp_path, version="b-00000001", models=models)
    here = settings.model_copy(update={"bundle_root": tmp_path})
    async with _serving(here) as (client, _):
        listed = (await client.get("/models")).json()["models"]
        compared = (await client.get("/models/compare")).json()["models"]
        ready = (await client.get("/readyz")).json()["checks"]["bundle"]["detail"]
        benchmark = (await client.post("/models/benchmark", json=EXAMPLE)).json()
        assert [model["name"] for model in listed] == list(compared) == list(models)
        assert ready["models"] == sorted(models)
        assert list(benchmark["results"]) == list(models)
        assert benchmark["consensus"]["total_models"] == len(models)
        for model in models:
            assert (await client.get(f"/models/{model}")).json()["name"] == model
            decided = (await client.post(f"/predict/{model}", json=EXAMPLE)).json()
            assert decided["model_info"]["name"] == model
        for model in set(_SHIPPED) - set(models):
            unknown = await client.post(f"/predict/{model}", json=EXAMPLE)
            assert unknown.json()["code"] == "UnknownModel"
            assert unknown.json()["detail"].endswith(f"there are: {', '.join(models)}.")
        metrics = Exposition((await client.get("/metrics")).text)
    events = [PredictionRecorded.model_validate_json(e) for e in await recorded_events(redis)]
    assert [event.decision.model_info.name for event in events] == list(models)
    for model in models:
        assert metrics.sum_of("decisions_total", model=model, version="b-00000001") == 1


async def test_request_under_way_finishes_with_the_bundle_it_began_with(
    settings: InferenceSettings, redis: Redis, tmp_path: Path
) -> None:
    make_bundle(tmp_path, version="b-00000002", models={"newcomer": "logistic_regression"})
    once_read: list[Callable[[], None]] = []
    async with _serving(settings, once_read) as (client, resources):
        before, after = _replacement(resources, tmp_path)
        once_read.append(lambda: setattr(resources, "served", after))
        first = await client.post("/predict", json=EXAMPLE)
        second = await client.post("/predict", json=EXAMPLE)
        index = (await client.get("/")).json()
    assert _decided_by(first) == (before.champion, before.version)
    assert _decided_by(second) == ("newcomer", "b-00000002")
    assert index["bundle"] == "b-00000002"
    events = [PredictionRecorded.model_validate_json(e) for e in await recorded_events(redis)]
    assert [event.decision.model_info.version for event in events] == [before.version, "b-00000002"]


@pytest.mark.no_cover
async def test_no_request_mixes_two_bundles_however_often_they_are_swapped(
    settings: InferenceSettings, tmp_path: Path
) -> None:
    make_bundle(tmp_path, version="b-00000003", models={"newcomer": "logistic_regression"})
    async with _serving(settings) as (client, resources):
        before, after = _replacement(resources, tmp_path)
        manifests = {m.version: m for m in (before, after.bundle.manifest)}
        both, done = (resources.served, after), asyncio.Event()

        async def swap() -> None:
            while not done.is_set():
                for resources.served in both:
                    await asyncio.sleep(0.001)

        async def ask(number: int) -> Counter[tuple[str, str]]:
            seen: Counter[tuple[str, str]] = Counter()
            for _ in range(20):
                decided = await client.post("/predict", json=EXAMPLE)
                model, version = _decided_by(decided)
                assert manifests[version].champion == model
                seen[model, version] += 1
                if number == 0:
                    await _agree(client, manifests)
            return seen

        swapping = asyncio.create_task(swap())
        counted = sum(await asyncio.gather(*map(ask, range(8))), Counter[tuple[str, str]]())
        done.set()
        await swapping
        metrics = Exposition((await client.get("/metrics")).text)
    assert set(manifests) == {version for _, version in counted}
    for (model, version), times in counted.items():
        assert metrics.sum_of("decisions_total", model=model, version=version) == times
    assert metrics.sum_of("decisions_total") == counted.total()
    assert metrics.sum_of("bundle_info") == 1


def _replacement(resources: Resources, root: Path) -> tuple[Manifest, Any]:
    """The manifest that is served, and everything to be served after it."""
    return (
        resources.served.bundle.manifest,
        serve(resources.served.metrics, load_bundle(root, None)),
    )


def _decided_by(response: httpx.Response) -> tuple[str, str]:
    info = response.json()["model_info"]
    return info["name"], info["version"]


async def _agree(client: httpx.AsyncClient, manifests: Mapping[str, Manifest]) -> None:
    """Hold each description of the models against the one bundle that it names."""
    listed = (await client.get("/models")).json()
    info = (await client.get("/model-info")).json()
    ready = (await client.get("/readyz")).json()["checks"]["bundle"]["detail"]
    benchmark = (await client.post("/models/benchmark", json=EXAMPLE)).json()
    assert [m["name"] for m in listed["models"]] == list(manifests[listed["version"]].models)
    assert listed["champion"] == manifests[listed["version"]].champion
    assert info["name"] == manifests[info["version"]].champion
    assert ready["champion"] == manifests[ready["version"]].champion
    assert ready["models"] == sorted(manifests[ready["version"]].models)
    assert list(benchmark["results"]) in [list(manifest.models) for manifest in manifests.values()]

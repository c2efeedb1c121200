"""What the inference service exports to Prometheus: each metric, provoked."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from services.inference.main import create_app
from services.inference.settings import InferenceSettings
from services.local.servers import Server
from services.scoring.registry import Bundle
from shared.access.api_keys import parse_keys
from shared.access.limits import parse_limits
from shared.contract.application import EXAMPLE, SCORED
from tests import keys
from tests.harness import HOST, free_port
from tests.prometheus import Exposition
from tests.serving import served

_BARE = {"ApplicantIncome": 900, "LoanAmount": 500, "Credit_History": 0}
"""Hardly anything is known of it, and what is known is warned about."""


async def _scrape(client: httpx.AsyncClient) -> Exposition:
    return Exposition((await client.get("/metrics")).text)


@pytest_asyncio.fixture
async def known(settings: InferenceSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose key has no limit."""
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        yield client


async def test_decisions_are_counted_by_model_and_outcome(
    known: httpx.AsyncClient, bundle: Bundle
) -> None:
    """With their probabilities; a model that has not decided yet stands at 0."""
    answers = [
        (await known.post(path, json=body)).json()
        for path in ("/predict", "/predict/random_forest")
        for body in (EXAMPLE, _BARE, _BARE)
    ]
    exposed = await _scrape(known)
    version = bundle.manifest.version
    for model in bundle.models:
        of_model = [answer for answer in answers if answer["model_info"]["name"] == model]
        for outcome in ("Approved", "Rejected"):
            expected = sum(answer["prediction"] == outcome for answer in of_model)
            series = {"model": model, "version": version, "outcome": outcome.lower()}
            assert exposed.sum_of("decisions_total", **series) == expected
        probabilities = [answer["probability"]["approved"] for answer in of_model]
        name = "decision_approval_probability"
        assert exposed.sum_of(f"{name}_sum", model=model) == pytest.approx(sum(probabilities))
        below = sum(probability <= 0.5 for probability in probabilities)
        assert exposed.sum_of(f"{name}_bucket", model=model, le="0.5") == below
    champion = bundle.manifest.champion
    assert exposed.sum_of("bundle_info", version=version, champion=champion) == 1


async def test_what_was_missing_and_warned_about_is_counted(known: httpx.AsyncClient) -> None:
    """By input: a field that lenders stop sending shows before the decisions do."""
    answers = [(await known.post("/predict", json=body)).json() for body in (EXAMPLE, _BARE)]
    exposed = await _scrape(known)
    missing = answers[1]["imputed"]
    assert len(missing) >= 5
    for field in SCORED:
        assert exposed.sum_of("decision_imputed_inputs_total", input=field) == (field in missing)
    warnings = sum(len(answer["warnings"]) for answer in answers)
    assert exposed.sum_of("decision_warnings_total") == warnings >= 2


async def test_each_stage_of_each_decision_is_timed(known: httpx.AsyncClient) -> None:
    """Together they are part of the request's time; what is refused or only checked is not."""
    for number in range(5):
        await known.post("/predict", json=EXAMPLE, headers={"idempotency-key": f"{number % 3}"})
    await known.post("/predict", json={})
    await known.post("/validate-loan", json=EXAMPLE)
    exposed = await _scrape(known)
    spent = 0.0
    for stage in ("validate", "model", "publish"):
        assert exposed.sum_of("decision_stage_seconds_count", stage=stage) == 3
        spent += exposed.sum_of("decision_stage_seconds_sum", stage=stage)
    assert 0 < spent < exposed.sum_of("http_request_duration_seconds_sum", route="/predict")
    assert exposed.sum_of("decisions_total") == 3
    assert exposed.sum_of("idempotency_replays_total") == 2


async def test_groups_and_failed_sinks_are_counted(own_redis: Server) -> None:
    """A refused decision is not counted as one; each sink that failed is named."""
    settings = InferenceSettings(
        redis_url=own_redis.url,
        history_url=f"http://{HOST}:{free_port()}",
        api_keys=parse_keys(keys.ENTRY),
    )
    async with served(create_app(settings), headers=keys.HEADERS) as client:
        answers = await asyncio.gather(*(client.post("/predict", json=EXAMPLE) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        exposed = await _scrape(client)
        assert exposed.sum_of("publish_group_decisions_sum") == 20
        assert 1 <= exposed.sum_of("publish_group_decisions_count") <= 20
        assert exposed.sum_of("publish_failures_total") == 0
        own_redis.process.kill()
        assert (await client.post("/predict", json=EXAMPLE)).status_code == 503
        exposed = await _scrape(client)
    assert exposed.sum_of("publish_failures_total", sink="stream") == 1
    assert exposed.sum_of("publish_failures_total", sink="http") == 1
    assert exposed.sum_of("publish_refused_decisions_total") == 1
    assert exposed.sum_of("decisions_total") == 20


async def test_callers_over_their_limit_are_counted_by_bucket(settings: InferenceSettings) -> None:
    """A bucket says which routes were asked too often, and no label says by whom."""
    limited = settings.model_copy(
        update={
            "rate_limit_predict": parse_limits("1/hour"),
            "rate_limit_other": parse_limits("2/hour"),
        }
    )
    async with served(create_app(limited)) as client:
        for _ in range(4):
            await client.post("/predict", json=EXAMPLE)
            await client.get("/models")
        exposed = await _scrape(client)
    assert exposed.sum_of("rate_limit_rejections_total", bucket="predict") == 3
    assert exposed.sum_of("rate_limit_rejections_total", bucket="other") == 2
    assert exposed.sum_of("rate_limit_rejections_total", bucket="key") == 0
    assert exposed.sum_of("rate_limit_degraded") == 0
    assert HOST not in str(exposed.families)


async def test_performance_lists_each_requested_route(known: httpx.AsyncClient) -> None:
    """The most asked first; failures count like any request."""
    for _ in range(3):
        await known.post("/predict", json=EXAMPLE)
    await known.post("/predict", json={})
    await known.get("/models/no-such-model")
    answer = await known.get("/performance")
    assert answer.status_code == 200
    performance = answer.json()
    assert performance["cache_hit_rate"] is None
    first, second = performance["routes"]
    assert (first["method"], first["route"], first["requests"]) == ("POST", "/predict", 4)
    assert (second["route"], second["requests"]) == ("/models/{model}", 1)
    assert 0 < first["median_ms"] <= first["p95_ms"] <= first["p99_ms"]
    assert first["mean_ms"] > 0

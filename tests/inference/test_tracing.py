"""What a trace shows of a decision."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis

from services.inference.main import create_app
from services.inference.settings import InferenceSettings
from services.local.servers import Server
from shared.contract.application import EXAMPLE
from shared.contract.events import EVENT_FIELD, STREAM, PredictionRecorded
from tests.serving import served
from tests.tracing import TRACEPARENT, parent_id, span_id, trace_id, traces

_LOAN_ID = "LP-UNMISTAKABLE-7431"
_APPLICATION = EXAMPLE | {"Loan_ID": _LOAN_ID, "ApplicantIncome": 48213.77}


@pytest_asyncio.fixture(params=[1])
async def traced(
    settings: InferenceSettings, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[httpx.AsyncClient, InMemorySpanExporter]]:
    """A client of the service, which traces this share of the requests, and the spans."""
    with traces(share=request.param) as (tracing, kept):
        async with served(create_app(settings, tracing=tracing)) as client:
            yield client, kept


async def _events(redis: Redis) -> list[bytes]:
    entries: Any = await redis.xrange(STREAM)
    return [event for _, fields in entries for event in fields[EVENT_FIELD.encode()].split(b"\n")]


def _by_name(kept: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in kept.get_finished_spans()}


async def test_decision_is_one_trace_from_its_request_to_the_stream(
    traced: tuple[httpx.AsyncClient, InMemorySpanExporter], redis: Redis
) -> None:
    """The steps stand in the request, in their order, and the event names the step it left in."""
    client, kept = traced
    answer = await client.post(
        "/predict/random_forest", json=_APPLICATION, headers={"x-request-id": "order-66"}
    )
    spans = _by_name(kept)
    assert list(spans) == ["validate", "model", "publish", "POST /predict/{model}"]
    request = spans["POST /predict/{model}"]
    assert len({trace_id(span) for span in spans.values()}) == 1
    steps = list(spans.values())[:-1]
    assert {parent_id(step) for step in steps} == {span_id(request)}
    times = [(span.start_time or 0, span.end_time or 0) for span in (*steps, request)]
    assert all(began <= ended for began, ended in times)
    assert times[0][1] <= times[1][0] <= times[1][1] <= times[2][0]
    assert times[3][0] <= times[0][0]
    assert times[2][1] <= times[3][1]

    decided = answer.json()
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/predict/{model}",
        "http.response.status_code": 200,
        "request_id": "order-66",
        "prediction_id": decided["prediction_id"],
        "model": "random_forest",
        "version": decided["model_info"]["version"],
        "outcome": decided["prediction"],
    }
    [event] = await _events(redis)
    traceparent = PredictionRecorded.model_validate_json(event).traceparent or ""
    assert traceparent.startswith(f"00-{trace_id(request)}-{span_id(spans['publish'])}-")
    exported = "".join(span.to_json() for span in spans.values())
    assert _LOAN_ID not in exported
    assert "48213" not in exported


async def test_repeated_request_is_traced_with_the_decision_it_was_given(
    traced: tuple[httpx.AsyncClient, InMemorySpanExporter], redis: Redis
) -> None:
    """Nothing is handed over for it, and its span says which decision it got."""
    client, kept = traced
    key = {"idempotency-key": "order-66"}
    first = await client.post("/predict", json=_APPLICATION, headers=key)
    kept.clear()
    await client.post("/predict", json=_APPLICATION, headers=key)
    spans = _by_name(kept)
    assert list(spans) == ["validate", "model", "POST /predict"]
    attributes = spans["POST /predict"].attributes or {}
    assert attributes["prediction_id"] == first.json()["prediction_id"]
    assert len(await _events(redis)) == 1


async def test_decision_that_cannot_be_recorded_is_a_failed_trace(
    own_redis: Server, settings: InferenceSettings
) -> None:
    """With its steps to the one that failed."""
    away = settings.model_copy(update={"redis_url": own_redis.url})
    own_redis.process.kill()
    with traces(share=1) as (tracing, kept):
        async with served(create_app(away, tracing=tracing)) as client:
            answer = await client.post("/predict", json=_APPLICATION)
        spans = _by_name(kept)
    assert answer.status_code == 503
    assert list(spans) == ["validate", "model", "publish", "POST /predict"]
    assert not spans["POST /predict"].status.is_ok


@pytest.mark.parametrize("traced", [0], indirect=True)
async def test_decision_that_is_not_traced_leaves_no_mark(
    traced: tuple[httpx.AsyncClient, InMemorySpanExporter], redis: Redis
) -> None:
    """Its event has the members it always had; that of a traced one has one more."""
    client, kept = traced
    await client.post("/predict", json=_APPLICATION)
    assert kept.get_finished_spans() == ()
    await client.post("/predict", json=_APPLICATION, headers={"traceparent": TRACEPARENT})
    untraced, traced_one = map(json.loads, await _events(redis))
    assert set(traced_one) - set(untraced) == {"traceparent"}

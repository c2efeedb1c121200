"""A trace includes the transaction that stores its decision, with either sink."""

import httpx
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.main import create_app
from services.history.settings import HistorySettings
from shared.contract.events import INTERNAL_PREDICTIONS_PATH, PredictionRecorded
from tests import keys
from tests.history.conftest import consuming
from tests.history.events import body_of, path_of, random_events
from tests.history.storage import publish, store_all, stored, stored_ids
from tests.serving import served
from tests.tracing import CALLER, TRACE, TRACEPARENT, parent_id, trace_id, traces
from tests.waiting import eventually_said as eventually


def _events(count: int) -> list[PredictionRecorded]:
    """Events of which the first is traced."""
    first, *others = random_events(count, seed=71)
    return [first.model_copy(update={"traceparent": TRACEPARENT}), *others]


def _assert_stored(kept: InMemorySpanExporter, event: PredictionRecorded, *, rows: int) -> None:
    """The trace of ``event`` has the transaction that stored it, and there is no other."""
    [span] = [span for span in kept.get_finished_spans() if span.name == "store"]
    assert (trace_id(span), parent_id(span)) == (TRACE, CALLER)
    assert (span.start_time or 0) < (span.end_time or 0)
    assert dict(span.attributes or {}) == {
        "rows": rows,
        "request_id": event.request_id,
        "prediction_id": str(event.decision.prediction_id),
    }


async def test_transaction_of_the_consumer_is_part_of_the_trace(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """Of each traced event that it stored, and of no other."""
    events = _events(5)
    await publish(redis, events, group=5)
    with traces(share=0) as (tracing, kept):
        async with consuming(settings, tracing=tracing):
            await eventually(stored(engine, 5))
        _assert_stored(kept, events[0], rows=5)


async def test_mark_that_makes_no_sense_costs_no_record(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """The event is stored and not traced; so is one whose values only look like a mark."""
    bad = random_events(1, seed=72)[0].model_copy(update={"traceparent": "order-66"})
    odd = random_events(1, seed=73, warnings=[f'"traceparent":"{TRACEPARENT}"'])[0]
    await publish(redis, [bad, odd])
    with traces(share=0) as (tracing, kept):
        async with consuming(settings, tracing=tracing):
            await eventually(stored(engine, 2))
        assert kept.get_finished_spans() == ()


async def test_transaction_of_the_history_service_is_part_of_the_trace(
    settings: HistorySettings, engine: AsyncEngine
) -> None:
    """When events come by HTTP because Redis is away."""
    events = _events(2)
    with traces(share=0) as (tracing, kept):
        async with served(create_app(settings, tracing=tracing), headers=keys.HEADERS) as client:
            answer = await client.post(
                INTERNAL_PREDICTIONS_PATH,
                content=b"\n\n".join(map(body_of, events)),
                headers={"content-type": "application/x-ndjson"},
            )
        _assert_stored(kept, events[0], rows=2)
    assert answer.status_code == 204
    assert len(await stored_ids(engine)) == 2


async def test_read_is_traced_under_its_template(
    settings: HistorySettings, engine: AsyncEngine
) -> None:
    """As part of its caller's trace, and without the values in its path."""
    [event] = random_events(1, seed=74)
    await store_all(engine, [event])

    async def read(client: httpx.AsyncClient) -> int:
        return (await client.get(path_of(event), headers={"traceparent": TRACEPARENT})).status_code

    with traces(share=0) as (tracing, kept):
        async with served(create_app(settings, tracing=tracing), headers=keys.HEADERS) as client:
            assert await read(client) == 200
        [span] = kept.get_finished_spans()
    assert span.name == "GET /history/{prediction_id}"
    assert (trace_id(span), parent_id(span)) == (TRACE, CALLER)
    assert str(event.decision.prediction_id) not in span.to_json()

"""One decision can be followed by its id, through every process that has a hand in it."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.local.processes import Process
from services.local.servers import Server
from shared.contract.application import EXAMPLE
from shared.contract.events import INTERNAL_PREDICTIONS_PATH
from tests.harness import HOST, System, events_in, free_port, running_system
from tests.tracing import CALLER, TRACE, TRACEPARENT, collector
from tests.waiting import eventually

pytestmark = pytest.mark.system


def _found(process: Process, **members: object) -> list[dict[str, Any]]:
    """The events of a log that have these members."""
    return [event for event in events_in(process) if members.items() <= event.items()]


async def _says(process: Process, **members: object) -> None:
    await eventually(lambda: bool(_found(process, **members)))


def _committed(process: Process, request_id: str) -> list[dict[str, Any]]:
    return [
        event for event in _found(process, event="stored") if request_id in event["request_ids"]
    ]


@pytest.mark.parametrize("named", [False, True])
async def test_decision_is_followed_by_either_id_from_the_answer_to_the_row(
    system: System, named: bool
) -> None:
    """The request's id and the decision's stand together where it is answered and in its record."""
    request_id = f"order-{named}"
    headers = {"x-api-key": system.api_key, "x-request-id": request_id}
    if named:
        headers["idempotency-key"] = request_id
    async with httpx.AsyncClient(headers=headers, timeout=20) as http:
        answer = await http.post(f"{system.inference_url}/predict/random_forest", json=EXAMPLE)
        prediction_id = answer.json()["prediction_id"]
        await eventually(lambda: bool(_committed(system.consumer, request_id)))
        record = await http.get(f"{system.history_url}/history/{prediction_id}")

    # An answer is sent before its line is written.
    await _says(system.inference, event="request", request_id=request_id)
    [asked] = _found(system.inference, event="request", request_id=request_id)
    assert 0 < asked["duration_s"] < 20
    assert (
        asked.items()
        >= {
            "logger": "access",
            "client": "local",
            "method": "POST",
            "route": "/predict/{model}",
            "status": 200,
            "prediction_id": prediction_id,
        }.items()
    )
    [commit] = _committed(system.consumer, request_id)
    assert commit["rows"] == 1
    assert record.json()["request_id"] == request_id
    await _says(system.history, event="request", request_id=request_id)
    [read] = _found(system.history, event="request", request_id=request_id)
    assert read["route"] == "/history/{prediction_id}"


async def test_decision_is_one_trace_and_every_log_and_the_row_know_its_request(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """From the request through the model and the stream to the commit, at a real collector."""
    request_id = "order-66"
    with (
        collector() as (address, received),
        running_system(
            database_url=database_url,
            redis_url=redis_url,
            logs=tmp_path,
            settings={
                "OTEL_EXPORTER_OTLP_ENDPOINT": address,
                "OTEL_TRACES_SAMPLER_ARG": "0",
                "OTEL_BSP_SCHEDULE_DELAY": "50",
            },
        ) as system,
    ):
        headers = {"x-api-key": system.api_key, "x-request-id": request_id}
        async with httpx.AsyncClient(headers=headers, timeout=20) as http:
            answer = await http.post(
                f"{system.inference_url}/predict",
                json=EXAMPLE,
                headers={"traceparent": TRACEPARENT},
            )
            await eventually(lambda: len(received) >= len(_SPANS))
            prediction_id = answer.json()["prediction_id"]
            record = await http.get(f"{system.history_url}/history/{prediction_id}")

        parents = {span.span_id: span.name for span in received}
        spans = {(span.service, span.name, parents.get(span.parent_id)) for span in received}
        assert spans == _SPANS
        assert {span.trace_id for span in received} == {TRACE}
        by_name = {span.name: span for span in received}
        assert by_name["POST /predict"].parent_id == CALLER
        ids = {"request_id": request_id, "prediction_id": prediction_id}
        for name in ("POST /predict", "store"):
            assert by_name[name].attributes.items() >= ids.items()
        [logged] = _found(system.inference, event="request", request_id=request_id)
        assert logged.items() >= ids.items()
        assert len(_committed(system.consumer, request_id)) == 1
        assert record.json().items() >= ids.items()


_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_SPANS = {
    ("inference", "POST /predict", None),
    ("inference", "validate", "POST /predict"),
    ("inference", "model", "POST /predict"),
    ("inference", "publish", "POST /predict"),
    ("history-consumer", "store", "publish"),
}
"""Each span of a decision's trace: whose it is, its name, and the name of the one it stands in."""


async def test_collector_that_is_away_changes_no_answer_and_no_end(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Each decision is traced, answered and stored; the processes end as they always do."""
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{free_port()}",
        "OTEL_TRACES_SAMPLER_ARG": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    with running_system(
        database_url=database_url, redis_url=redis_url, logs=tmp_path, settings=settings
    ) as system:
        async with httpx.AsyncClient(headers={"x-request-id": "order-66"}, timeout=20) as http:
            answer = await http.post(f"{system.inference_url}/predict", json=EXAMPLE)
        assert answer.status_code == 200
        await eventually(lambda: bool(_committed(system.consumer, "order-66")))
        for process in (system.inference, system.consumer):
            await _says(process, logger=_EXPORTER)
            await asyncio.to_thread(process.stop)
            assert process.exit_code == 0


async def test_repeated_request_is_logged_with_the_decision_it_was_given(system: System) -> None:
    """Each request has an id of its own; the decision's is the same."""
    headers = {"x-api-key": system.api_key, "idempotency-key": "order-66"}
    async with httpx.AsyncClient(headers=headers, timeout=20) as http:
        for request_id in ("first", "second"):
            await http.post(
                f"{system.inference_url}/predict",
                json=EXAMPLE,
                headers={"x-request-id": request_id},
            )
    # An answer is sent before its line is written.
    await eventually(lambda: bool(_found(system.inference, request_id="second")))
    logged = [
        _found(system.inference, request_id=request_id)[0]["prediction_id"]
        for request_id in ("first", "second")
    ]
    assert logged[0] == logged[1]


async def test_decision_that_took_the_other_road_is_found_in_the_history_services_log(
    database_url: str, own_redis: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With Redis away the history service stores it itself, and says so in the same words."""
    logs = tmp_path_factory.mktemp("logs")
    with running_system(database_url=database_url, redis_url=own_redis.url, logs=logs) as system:
        await asyncio.to_thread(own_redis.process.kill)
        async with httpx.AsyncClient(headers={"x-request-id": "order-66"}, timeout=20) as http:
            answer = await http.post(f"{system.inference_url}/predict", json=EXAMPLE)
        assert answer.status_code == 200
        [commit] = _committed(system.history, "order-66")
        assert commit["rows"] == 1
        # An answer is sent before its line is written.
        await _says(system.history, event="request", route=INTERNAL_PREDICTIONS_PATH, status=204)
        await _says(system.inference, request_id="order-66", client="anonymous")

"""One decision can be followed by its id, through every process that has a hand in it."""

import asyncio
from typing import Any

import httpx
import pytest

from services.local.processes import Process
from services.local.servers import Server
from shared.events import EXAMPLE, INTERNAL_PREDICTIONS_PATH
from tests.harness import System, events_in, running_system
from tests.waiting import eventually


def _found(process: Process, **members: object) -> list[dict[str, Any]]:
    """The events of a log that have these members."""
    return [event for event in events_in(process) if members.items() <= event.items()]


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
    [read] = _found(system.history, event="request", request_id=request_id)
    assert read["route"] == "/history/{prediction_id}"


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
        assert _found(system.history, event="request", route=INTERNAL_PREDICTIONS_PATH, status=204)
        assert _found(system.inference, request_id="order-66", client="anonymous")

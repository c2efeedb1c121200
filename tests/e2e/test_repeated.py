"""A request that is repeated after Redis forgot it is one record all the same."""

import httpx
import pytest
from redis.asyncio import Redis

from shared.contract.application import EXAMPLE
from tests.harness import System
from tests.waiting import eventually_said

pytestmark = pytest.mark.system


async def test_postgres_stores_a_repeated_request_once_even_if_redis_forgot(
    system: System, redis_url: str
) -> None:
    """Decided twice under one id, stored once; the record is the first answer."""
    key = {"idempotency-key": "order-66"}
    async with httpx.AsyncClient(headers={"x-api-key": system.api_key}, timeout=20) as http:

        async def decide(**headers: str) -> httpx.Response:
            response = await http.post(
                f"{system.inference_url}/predict", json=EXAMPLE, headers=headers
            )
            assert response.status_code == 200
            return response

        async def record_of(answer: httpx.Response) -> httpx.Response:
            identifier = answer.json()["prediction_id"]
            return await http.get(f"{system.history_url}/history/{identifier}")

        async def is_stored(answer: httpx.Response) -> bool:
            return (await record_of(answer)).status_code == 200

        first = await decide(**key)
        await eventually_said(lambda: is_stored(first))
        async with Redis.from_url(redis_url) as redis:
            await redis.flushall()
        second = await decide(**key)
        # What comes after it on the stream is stored after it.
        last = await decide()
        await eventually_said(lambda: is_stored(last))
        record = (await record_of(second)).json()
        page = (await http.get(f"{system.history_url}/history")).json()
    assert "idempotency-replayed" not in second.headers
    assert {member: record[member] for member in first.json()} == first.json()
    assert len(page["items"]) == 2

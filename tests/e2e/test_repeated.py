"""A repeated request: one record, and an answer that agrees with it, whatever failed between."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from services.history.database import open_engine
from services.history.main import create_app as create_history
from services.history.recorder import decode, store
from services.history.settings import HistorySettings
from services.inference.main import create_app as create_inference
from services.inference.settings import InferenceSettings
from services.scoring.publisher import Publisher
from shared.access.api_keys import parse_keys
from shared.contract.application import EXAMPLE
from tests import keys
from tests.harness import System, running_system
from tests.redis_proxy import redis_proxy
from tests.serving import served
from tests.waiting import eventually_said

pytestmark = pytest.mark.system

_KEY = {"idempotency-key": "order-66"}


async def test_postgres_stores_a_repeated_request_once_even_if_redis_forgot(
    system: System,
) -> None:
    """Decided twice under one id, stored once; the record is the first answer."""
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

        first = await decide(**_KEY)
        await eventually_said(lambda: is_stored(first))
        async with Redis.from_url(system.environment["REDIS_URL"]) as redis:
            await redis.flushall()
        second = await decide(**_KEY)
        # What comes after it on the stream is stored after it.
        last = await decide()
        await eventually_said(lambda: is_stored(last))
        record = (await record_of(second)).json()
        page = (await http.get(f"{system.history_url}/history")).json()
    assert "idempotency-replayed" not in second.headers
    assert {member: record[member] for member in first.json()} == first.json()
    assert len(page["items"]) == 2


async def test_repeated_request_adopts_the_decision_of_a_process_killed_before_its_answer(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """kill -9 after the hand-over: what is answered later is what is on record, time included."""
    with (
        redis_proxy(redis_url, command=b"XADD") as proxy,
        running_system(
            database_url=database_url,
            redis_url=proxy.url,
            logs=tmp_path,
            settings={"PUBLISH_REDIS_DEADLINE_S": "30"},
        ) as system,
    ):
        headers = {"x-api-key": system.api_key}
        async with (
            httpx.AsyncClient(headers=headers, timeout=60) as http,
            Redis.from_url(redis_url) as redis,
        ):
            predict = f"{system.inference_url}/predict"

            async def recorded() -> list[dict[str, object]]:
                page = (await http.get(f"{system.history_url}/history?limit=9")).json()
                items: list[dict[str, object]] = page["items"]
                return items

            async def is_recorded() -> bool:
                return bool(await recorded())

            proxy.withholding = True
            cut_off = asyncio.create_task(http.post(predict, json=EXAMPLE, headers=_KEY))
            await eventually_said(is_recorded)
            system.inference.kill()
            with pytest.raises(httpx.HTTPError):
                await cut_off
            # As if the time had passed after which another request may decide.
            for mark in await redis.keys("*idempotency*:mark:*"):
                await redis.delete(mark)
            proxy.withholding = False
            system.inference.start()
            answers = [await http.post(predict, json=EXAMPLE, headers=_KEY) for _ in range(2)]
            # What comes after it on the stream is stored after it.
            await http.post(predict, json=EXAMPLE)

            async def all_recorded() -> bool:
                return len(await recorded()) == 2

            await eventually_said(all_recorded)
            answer = answers[0].json()
            record = (
                await http.get(f"{system.history_url}/history/{answer['prediction_id']}")
            ).json()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert {member: record[member] for member in answer} == answer


async def test_answer_erased_before_its_request_was_finished_never_comes_back(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race is forced: the decision is stored and erased between hand-over and answer."""
    known = parse_keys(keys.ENTRY)
    history_settings = HistorySettings(
        database_url=database_url, redis_url=redis_url, api_keys=known
    )
    inference_settings = InferenceSettings(redis_url=redis_url, api_keys=known)
    engine = open_engine(history_settings, name="test", pool_size=1)
    publish = Publisher.publish
    application = {**EXAMPLE, "Loan_ID": "LP-UNMISTAKABLE-7431"}

    async def publish_store_and_erase(publisher: Publisher, event: bytes) -> None:
        await publish(publisher, event)
        assert await store(engine, [decode(event)]) == 1
        identifier = json.loads(event)["decision"]["prediction_id"]
        assert (await history.delete(f"/history/{identifier}")).status_code == 200

    monkeypatch.setattr(Publisher, "publish", publish_store_and_erase)
    async with (
        served(create_history(history_settings), headers=keys.HEADERS) as history,
        served(create_inference(inference_settings), headers=keys.HEADERS) as inference,
        Redis.from_url(redis_url, decode_responses=True) as redis,
    ):
        first = await inference.post("/predict", json=application, headers=_KEY)
        second = await inference.post("/predict", json=application, headers=_KEY)
        kept = [await redis.get(key) for key in await redis.keys("*idempotency*:answer:*")]
    await engine.dispose()
    assert first.status_code == 200
    assert second.status_code == 410
    assert second.json()["code"] == "AnswerErased"
    assert not any(kept)

"""The hand-over: groups, the two sinks, and what happens when both are closed."""

import asyncio
import json
from collections.abc import Sequence
from itertools import count
from time import monotonic

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from pydantic import SecretStr
from redis.asyncio import Redis

from services.inference.main import create_app
from services.inference.settings import InferenceSettings
from services.local.servers import Server
from services.scoring import publisher
from services.scoring.publisher import MAX_GROUP, Publisher, Sink, redis_sink
from shared.access.api_keys import parse_keys
from shared.contract.application import EXAMPLE
from shared.contract.errors import NotRecorded
from shared.contract.events import INTERNAL_PREDICTIONS_PATH
from shared.observability.metrics.samples import Distribution
from tests import keys
from tests.harness import HOST, free_port
from tests.serving import served
from tests.stream import recorded_events


class GatedSink:
    """A sink that accepts each group only when released, like a slow server."""

    def __init__(self) -> None:
        self.groups: list[Sequence[bytes]] = []
        self.gate = asyncio.Semaphore(0)

    async def __call__(self, events: Sequence[bytes]) -> None:
        """Take ``events`` once the gate lets a group through."""
        await self.gate.acquire()
        self.groups.append(events)


def _failing(error: Exception) -> Sink:
    async def fail(_: Sequence[bytes]) -> None:
        raise error

    return fail


async def test_events_gather_while_a_group_is_on_its_way() -> None:
    """The first event leaves at once; those that came meanwhile leave together, in order."""
    sink = GatedSink()
    publisher = Publisher(stream=sink, fallback=_failing(OSError()))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(publisher.publish(b"0"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for number in range(1, 10):
            tasks.create_task(publisher.publish(b"%d" % number))
        await asyncio.sleep(0)
        sink.gate.release()
        sink.gate.release()
    assert sink.groups == [[b"0"], [b"%d" % number for number in range(1, 10)]]
    assert publisher.groups.value == Distribution((1, 0, 0, 0, 1, 0, 0, 0), 10)
    assert publisher.published == 10


async def test_clients_that_were_just_answered_join_the_next_group() -> None:
    """Otherwise clients that ask again at once would form two groups that take turns."""
    sink = GatedSink()
    publisher = Publisher(stream=sink, fallback=_failing(OSError()))

    async def ask_twice() -> None:
        for _ in range(2):
            await publisher.publish(b"event")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            for _ in range(3):
                tasks.create_task(ask_twice())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        for _ in range(4):
            sink.gate.release()
    assert [len(group) for group in sink.groups] == [3, 6, 3]


async def test_a_group_is_bounded() -> None:
    """However many wait, one command stays small enough not to hold Redis up."""
    sink = GatedSink()
    publisher = Publisher(stream=sink, fallback=_failing(OSError()))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(MAX_GROUP + 1):
            tasks.create_task(publisher.publish(b"event"))
        await asyncio.sleep(0)
        sink.gate.release()
        sink.gate.release()
    assert [len(group) for group in sink.groups] == [MAX_GROUP, 1]


async def test_events_reach_the_stream_in_the_order_they_came(redis: Redis, redis_url: str) -> None:
    """A thousand concurrent events are all in the stream, in order, in fewer groups."""
    async with Redis.from_url(redis_url) as client:
        publisher = Publisher(stream=redis_sink(client, deadline_s=5), fallback=_failing(OSError()))
        events = [b"%d" % number for number in range(1000)]
        await asyncio.gather(*(publisher.publish(event) for event in events))
    assert await recorded_events(redis) == events
    assert publisher.groups.value.size < len(events)


async def test_connection_that_redis_has_closed_is_replaced(redis: Redis, redis_url: str) -> None:
    """As after a restart of Redis: nothing goes by the other sink."""
    async with Redis.from_url(redis_url) as client:
        publisher = Publisher(stream=redis_sink(client, deadline_s=5), fallback=_failing(OSError()))
        await publisher.publish(b"before")
        await redis.client_kill_filter(_type="normal", skipme=True)
        await publisher.publish(b"after")
    assert await recorded_events(redis) == [b"before", b"after"]


@pytest.mark.parametrize(("longest_s", "stays"), [(60, True), (0, False)])
async def test_loop_is_kept_awake_while_the_block_waits_and_not_after(
    longest_s: float, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle service must use no processor time."""
    turns = count()

    def look() -> float:
        next(turns)
        return monotonic()

    monkeypatch.setattr(publisher, "monotonic", look)
    with publisher.awake(longest_s):
        await asyncio.sleep(0.1)
    turned = next(turns)
    await asyncio.sleep(0.1)
    assert next(turns) == turned + 1
    assert (turned > 10) is stays


async def test_group_goes_by_the_fallback_when_the_stream_fails() -> None:
    """A failing stream is answered by the other sink, and rests before it is tried again."""
    attempts = 0

    async def stream(_: Sequence[bytes]) -> None:
        nonlocal attempts
        attempts += 1
        raise ConnectionRefusedError

    fallback = GatedSink()
    fallback.gate = asyncio.Semaphore(9)
    publisher = Publisher(stream=stream, fallback=fallback)
    await publisher.publish(b"first")
    await publisher.publish(b"second")
    assert fallback.groups == [[b"first"], [b"second"]]
    assert publisher.fallbacks == 2
    assert attempts == 1


async def test_decision_is_refused_when_both_sinks_fail() -> None:
    """What could not be recorded is not answered, and is counted."""
    publisher = Publisher(
        stream=_failing(ConnectionRefusedError()), fallback=_failing(httpx.ConnectError("refused"))
    )
    with pytest.raises(NotRecorded):
        await publisher.publish(b"event")
    assert (publisher.refused, publisher.published) == (1, 0)


async def test_events_that_wait_while_both_sinks_fail_are_refused_too() -> None:
    """No event waits for a second failure, so an outage of any length builds no queue."""
    attempts: list[int] = []
    asked, deadline = asyncio.Event(), asyncio.Event()

    async def wedged(events: Sequence[bytes]) -> None:
        attempts.append(len(events))
        asked.set()
        await deadline.wait()
        raise TimeoutError

    publisher = Publisher(stream=_failing(OSError()), fallback=wedged)
    waiting = [asyncio.create_task(publisher.publish(b"event")) for _ in range(3 * MAX_GROUP)]
    await asked.wait()
    deadline.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {NotRecorded}
    assert attempts == [MAX_GROUP]
    assert (publisher.refused, publisher.published) == (3 * MAX_GROUP, 0)


async def test_unexpected_failure_leaves_no_request_waiting() -> None:
    """Even a programming error in a sink ends in a refusal, not in silence."""
    publisher = Publisher(stream=_failing(ValueError("bug")), fallback=_failing(OSError()))
    with pytest.raises(NotRecorded):
        await asyncio.wait_for(publisher.publish(b"event"), timeout=1)


async def test_client_that_left_does_not_stop_the_group() -> None:
    """The others of a group are recorded although one of them no longer waits."""
    sink = GatedSink()
    publisher = Publisher(stream=sink, fallback=_failing(OSError()))
    gone = asyncio.create_task(publisher.publish(b"gone"))
    stays = asyncio.create_task(publisher.publish(b"stays"))
    await asyncio.sleep(0)
    gone.cancel()
    sink.gate.release()
    await stays
    assert sink.groups == [[b"gone", b"stays"]]


async def test_drain_waits_for_what_has_gathered() -> None:
    """A shutdown leaves no event behind."""
    sink = GatedSink()
    publisher = Publisher(stream=sink, fallback=_failing(OSError()))
    task = asyncio.create_task(publisher.publish(b"last"))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.05, sink.gate.release)
    await publisher.drain()
    assert sink.groups == [[b"last"]]
    await task


async def test_without_redis_the_decision_goes_to_the_history_service() -> None:
    """The same event arrives by HTTP as NDJSON, and the client notices nothing."""
    received: list[bytes] = []
    presented: list[str] = []
    history = FastAPI()

    @history.post(INTERNAL_PREDICTIONS_PATH, status_code=204)
    async def take(request: Request) -> Response:
        received.extend((await request.body()).split(b"\n"))
        presented.append(request.headers["x-api-key"])
        return Response(status_code=204)

    async with served(history) as history_client:
        settings = InferenceSettings(
            redis_url=f"redis://{HOST}:{free_port()}/0",
            history_url=str(history_client.base_url),
            internal_api_key=SecretStr(keys.SECRET),
            allow_anonymous=True,
        )
        async with served(create_app(settings)) as client:
            response = await client.post("/predict", json=EXAMPLE)
    assert response.status_code == 200
    [event] = received
    assert presented == [keys.SECRET]
    assert json.loads(event)["decision"] == response.json()


async def test_without_redis_and_history_no_decision_is_shown() -> None:
    """Both sinks closed: 503 with Retry-After, and not a word of the decision."""
    settings = InferenceSettings(
        redis_url=f"redis://{HOST}:{free_port()}/0",
        history_url=f"http://{HOST}:{free_port()}",
        allow_anonymous=True,
    )
    async with served(create_app(settings)) as client:
        response = await client.post("/predict", json=EXAMPLE)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["code"] == "NotRecorded"
    assert "probability" not in response.text


async def test_wedged_redis_never_stalls_other_requests(own_redis: Server) -> None:
    """While a frozen Redis holds a decision up, the event loop serves everything else."""
    settings = InferenceSettings(
        redis_url=own_redis.url,
        history_url=f"http://{HOST}:{free_port()}",
        api_keys=parse_keys(keys.ENTRY),
    )
    async with served(create_app(settings)) as client:
        client.headers.update(keys.HEADERS)
        assert (await client.post("/predict", json=EXAMPLE)).status_code == 200
        own_redis.process.pause()
        started_s = monotonic()
        stuck = asyncio.create_task(client.post("/predict", json=EXAMPLE))
        while not stuck.done():
            for path in ("/livez", "/models", "/validation-rules"):
                assert (await client.get(path)).status_code == 200
            benchmark = await client.post("/models/benchmark", json=EXAMPLE)
            assert benchmark.status_code == 200
        waited_s = monotonic() - started_s
        health = (await client.get("/health")).json()
        own_redis.process.resume()
    assert (await stuck).status_code == 503
    deadlines_s = settings.publish_redis_deadline_s + settings.publish_http_deadline_s
    assert waited_s < deadlines_s + 2
    assert health["status"] == "degraded"
    assert health["checks"]["redis"]["status"] == "down"


async def test_full_redis_is_reported_as_full_and_decisions_go_by_http(
    own_redis: Server, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[Sequence[bytes]] = []

    async def take(events: Sequence[bytes]) -> None:
        received.append(events)

    async with Redis.from_url(own_redis.url) as redis:
        await redis.config_set("maxmemory", "1")
        publisher = Publisher(stream=redis_sink(redis, deadline_s=5), fallback=take)
        await publisher.publish(b"event")
        settings = InferenceSettings(redis_url=own_redis.url)
        async with served(create_app(settings)) as client:
            health = (await client.get("/health")).json()
    assert received == [[b"event"]]
    assert "Redis is full" in caplog.text
    assert health["status"] == "degraded"
    assert "Redis is full" in health["checks"]["redis"]["detail"]

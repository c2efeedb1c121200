"""The shipped processes: started before their servers, and stopped amid their work."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from services.local import components
from services.local.processes import Process
from services.local.servers import Server
from shared.contract.application import EXAMPLE
from tests import keys
from tests.harness import HOST, free_port, measuring
from tests.stream import recorded_events
from tests.waiting import eventually, eventually_said

pytestmark = pytest.mark.system

_IN_FLIGHT = 8
_LONG_S = "30"


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A client that keeps no connection, so that each request meets the process as it is then."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(headers=keys.HEADERS, timeout=30, limits=limits) as client:
        yield client


def _environment(
    *, database_url: str = "postgresql:///absent", redis_url: str, **settings: str
) -> dict[str, str]:
    return (
        components.environment(
            host=HOST,
            database_url=database_url,
            redis_url=redis_url,
            inference_url=f"http://{HOST}:{free_port()}",
            history_url=f"http://{HOST}:{free_port()}",
            api_key=keys.SECRET,
        )
        | settings
    )


def _consumer(env: Mapping[str, str], folder: Path) -> Process:
    return components.consumer(env, host=HOST, metrics_port=free_port(), logs=folder)


@contextmanager
def _spawned(process: Process) -> Iterator[Process]:
    """A process that is not waited for; stopped at the end, with its log shown."""
    try:
        process.spawn()
        yield process
    finally:
        process.stop()
        print(process.log_tail())


async def _sent(
    http: httpx.AsyncClient, method: str, url: str, *, json: object = None
) -> asyncio.Task[httpx.Response]:
    """A request on its way, which the service has begun with: it answers later ones first."""
    sent = asyncio.Event()

    async def trace(event: str, _: object) -> None:
        if event == "http11.send_request_body.complete":
            sent.set()

    request = http.build_request(method, url, json=json, extensions={"trace": trace})
    answer = asyncio.create_task(http.send(request))
    await sent.wait()
    for _ in range(2):
        assert (await http.get(request.url.join("/livez"))).status_code == 200
    return answer


async def _ended(process: Process) -> int | None:
    await eventually(lambda: not process.running)
    return process.exit_code


def _says(http: httpx.AsyncClient, url: str, status: str) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        try:
            return bool((await http.get(f"{url}/health")).json()["status"] == status)
        except httpx.TransportError:
            return False

    return ask


async def test_decisions_in_flight_are_answered_while_inference_stops(
    own_redis: Server, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    """SIGTERM takes nobody's answer away: each is recorded and given, and the exit code is 0."""
    port = free_port()
    env = _environment(redis_url=own_redis.url, PUBLISH_REDIS_DEADLINE_S=_LONG_S)
    with _spawned(components.inference(env, host=HOST, port=port, logs=tmp_path)) as process:
        process.wait_ready()
        own_redis.process.pause()
        url = f"http://{HOST}:{port}/predict"
        asked = [await _sent(http, "POST", url, json=EXAMPLE) for _ in range(_IN_FLIGHT)]
        process.send(signal.SIGTERM)
        await eventually(lambda: "Shutting down" in process.log.read_text())
        own_redis.process.resume()
        answers = await asyncio.gather(*asked)
        assert await _ended(process) == 0
    assert [answer.status_code for answer in answers] == [200] * _IN_FLIGHT
    async with Redis.from_url(own_redis.url) as redis:
        events = await recorded_events(redis)
    assert sorted(event[event.index(b'{"success"') : -1] for event in events) == sorted(
        answer.content for answer in answers
    )


async def test_reads_in_flight_are_answered_while_history_stops(
    own_postgres: Server, redis_url: str, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    """A page that is being read is sent to its end, then the pools are closed."""
    port = free_port()
    env = _environment(
        database_url=own_postgres.url, redis_url=redis_url, DATABASE_CONNECT_TIMEOUT_S=_LONG_S
    )
    with _spawned(components.history(env, host=HOST, port=port, logs=tmp_path)) as process:
        process.wait_ready()
        own_postgres.process.pause()
        asked = await _sent(http, "GET", f"http://{HOST}:{port}/history")
        process.send(signal.SIGTERM)
        await eventually(lambda: "Shutting down" in process.log.read_text())
        own_postgres.process.resume()
        assert (await asked).status_code == 200
        assert await _ended(process) == 0


async def test_service_that_drains_says_so_and_goes_on_serving(
    redis_url: str, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Not ready from SIGTERM on, yet nobody is refused until DRAIN_S or a second one."""
    port = free_port()
    url = f"http://{HOST}:{port}"
    env = _environment(redis_url=redis_url, DRAIN_S=_LONG_S)
    with _spawned(components.inference(env, host=HOST, port=port, logs=tmp_path)) as process:
        process.wait_ready()
        assert "connection" not in (await http.get(f"{url}/readyz")).headers
        process.send(signal.SIGTERM)
        await eventually_said(_says(http, url, "draining"))
        assert (await http.get(f"{url}/readyz")).status_code == 503
        assert (await http.get(f"{url}/livez")).status_code == 200
        decision = await http.post(f"{url}/predict", json=EXAMPLE)
        assert decision.status_code == 200
        assert decision.headers["connection"] == "close"
        process.send(signal.SIGTERM)
        assert await _ended(process) == 0


async def test_inference_starts_without_its_servers_and_finds_redis(
    own_redis: Server, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    """It comes up degraded and refuses decisions with 503 until there is a sink for them."""
    own_redis.process.kill()
    port = free_port()
    url = f"http://{HOST}:{port}"
    env = _environment(redis_url=own_redis.url)
    with _spawned(components.inference(env, host=HOST, port=port, logs=tmp_path)) as process:
        await eventually_said(_says(http, url, "degraded"))
        refused = await http.post(f"{url}/predict", json=EXAMPLE)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        own_redis.process.start()
        await eventually_said(_says(http, url, "ok"))

        async def decides() -> bool:
            return (await http.post(f"{url}/predict", json=EXAMPLE)).status_code == 200

        await eventually_said(decides)
        process.send(signal.SIGTERM)
        assert await _ended(process) == 0


async def test_history_starts_without_postgres_and_becomes_ready(
    own_postgres: Server, redis_url: str, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Not ready before the database is there; ready without a restart once it is."""
    own_postgres.process.kill()
    port = free_port()
    url = f"http://{HOST}:{port}"
    env = _environment(database_url=own_postgres.url, redis_url=redis_url)
    with _spawned(components.history(env, host=HOST, port=port, logs=tmp_path)) as process:
        await eventually_said(_says(http, url, "down"))
        assert (await http.get(f"{url}/readyz")).status_code == 503
        assert (await http.get(f"{url}/history")).status_code == 503
        own_postgres.process.start()
        process.wait_ready()
        assert (await http.get(f"{url}/history")).json()["items"] == []


async def test_consumer_starts_without_its_servers_and_stores_once_they_are_there(
    own_postgres: Server, own_redis: Server, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    """It waits for both, in whatever order they come, and ends with 0 amid its work."""
    for server in (own_postgres, own_redis):
        server.process.kill()
    port, history_port = free_port(), free_port()
    env = _environment(database_url=own_postgres.url, redis_url=own_redis.url, **measuring())
    with (
        _spawned(_consumer(env, tmp_path)) as consumer,
        _spawned(components.inference(env, host=HOST, port=port, logs=tmp_path)) as inference,
        _spawned(components.history(env, host=HOST, port=history_port, logs=tmp_path)) as history,
    ):
        await eventually(lambda: '"server":"redis"' in consumer.log.read_text())
        own_redis.process.start()
        inference.wait_ready()

        async def decides() -> bool:
            answer = await http.post(f"http://{HOST}:{port}/predict", json=EXAMPLE)
            return answer.status_code == 200

        await eventually_said(decides)
        await eventually(lambda: '"server":"postgres"' in consumer.log.read_text())
        own_postgres.process.start()
        history.wait_ready()

        async def stored() -> bool:
            found = await http.get(f"http://{HOST}:{history_port}/statistics")
            return found.status_code == 200 and found.json()["total_predictions"] == 1

        await eventually_said(stored)
        consumer.send(signal.SIGTERM)
        assert await _ended(consumer) == 0


async def test_consumer_stops_with_neither_server_there(tmp_path: Path) -> None:
    """Waiting for servers is no reason not to leave when asked to."""
    env = _environment(
        database_url=f"postgresql://nobody@{HOST}:{free_port()}/absent",
        redis_url=f"redis://{HOST}:{free_port()}/0",
    )
    with _spawned(_consumer(env, tmp_path)) as consumer:
        await eventually(lambda: '"server":"redis"' in consumer.log.read_text())
        consumer.send(signal.SIGTERM)
        assert await _ended(consumer) == 0


async def test_settings_of_the_server_are_checked_at_the_start(tmp_path: Path) -> None:
    """A proxy that is none stops the start: believing nobody in silence would limit all as one."""
    env = os.environ | {"FORWARDED_ALLOW_IPS": "10.0.0.0/99"}
    with _spawned(components.inference(env, host=HOST, port=free_port(), logs=tmp_path)) as process:
        assert await _ended(process) == 2
    assert "FORWARDED_ALLOW_IPS" in process.log.read_text()


async def test_nobody_who_has_connected_is_cut_off_when_a_service_leaves(
    redis_url: str, tmp_path: Path
) -> None:
    """Each request is answered or could not be sent, so that a gateway can go on to a replica."""
    port = free_port()

    async def ask_until_refused() -> int:
        answered = 0
        while True:
            try:
                reader, writer = await asyncio.open_connection(HOST, port)
            except ConnectionRefusedError:
                return answered
            writer.write(b"GET /livez HTTP/1.1\r\nhost: here\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            answered += 1
            writer.close()
            await writer.wait_closed()

    env = _environment(redis_url=redis_url)
    with _spawned(components.inference(env, host=HOST, port=port, logs=tmp_path)) as process:
        process.wait_ready()
        callers = [asyncio.create_task(ask_until_refused()) for _ in range(16)]
        await asyncio.sleep(0.5)
        process.send(signal.SIGTERM)
        assert min(await asyncio.gather(*callers)) > 0
        assert await _ended(process) == 0


async def test_port_of_another_service_is_not_shared(redis_url: str, tmp_path: Path) -> None:
    """A second service finds it taken and ends."""
    port = free_port()
    env = _environment(redis_url=redis_url)
    with _spawned(components.inference(env, host=HOST, port=port, logs=tmp_path)) as process:
        process.wait_ready()
        second = components.inference(env, host=HOST, port=port, logs=tmp_path / "second")
        with _spawned(second):
            assert await _ended(second) == 3
        assert process.running


async def test_request_on_its_way_over_a_kept_connection_is_answered_when_a_service_leaves(
    redis_url: str, tmp_path: Path
) -> None:
    """The answer says that it is the last one; a connection without a request is just closed."""
    port = free_port()
    env = _environment(redis_url=redis_url)
    with _spawned(components.inference(env, host=HOST, port=port, logs=tmp_path)) as process:
        process.wait_ready()
        asked, idle, fresh = [await asyncio.open_connection(HOST, port) for _ in range(3)]
        for reader, writer in (asked, idle):
            writer.write(b"GET /livez HTTP/1.1\r\nhost: here\r\n\r\n")
            await reader.readuntil(b'{"status":"alive"}')
        process.send(signal.SIGTERM)
        await eventually(lambda: "Shutting down" in process.log.read_text())
        asked[1].write(b"GET /livez HTTP/1.1\r\nhost: here\r\n\r\n")
        answer = await asked[0].read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close\r\n" in answer
        assert await idle[0].read() == b""
        assert await fresh[0].read() == b""
        for _, writer in (asked, idle, fresh):
            writer.close()
            await writer.wait_closed()
        assert await _ended(process) == 0

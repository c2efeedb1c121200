"""The metrics of the history service and of the consumer, each provoked."""

import asyncio
import os
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import httpx
import pytest
from prometheus_client import generate_latest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.consumer import CONCURRENT_BATCHES, Consumer
from services.history.database import FailureReason, reason_of
from services.history.main import create_app
from services.history.settings import HistorySettings
from services.history.stream import create_group, read_new
from services.local import components
from services.local.processes import Process
from services.local.servers import Server
from shared.contract.events import DEAD_LETTER_STREAM, EVENT_FIELD, STREAM
from shared.observability.metrics import Metrics
from shared.observability.metrics.server import CONNECTIONS, metrics_server
from tests import keys
from tests.harness import HOST, free_port
from tests.history.conftest import consuming, quick_settings
from tests.history.events import random_events
from tests.history.storage import publish, stored
from tests.prometheus import Exposition
from tests.serving import served
from tests.waiting import eventually_said as eventually
from tests.waiting import until

_OF_REDIS = {
    *("stream_entries", "stream_lag_entries", "stream_pending_entries", "stream_dead_letters"),
    *("stream_oldest_pending_seconds", "stream_consumers", "redis_memory_bytes"),
    "redis_full",
}


async def _scrape(client: httpx.AsyncClient) -> Exposition:
    response = await client.get("/metrics")
    assert response.status_code == 200
    return Exposition(response.text)


def _of(consumer: Consumer) -> Exposition:
    metrics = Metrics()
    metrics.read_from(consumer.metrics.samples)
    return Exposition(generate_latest(metrics).decode())


async def test_stream_metrics_separate_pending_entries_from_unread_ones(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """Entries that a consumer has read are pending, with the age of the oldest; the rest is lag."""
    empty = await _scrape(client)
    assert empty.sum_of("stream_up") == 1
    for name in _OF_REDIS - {"redis_memory_bytes"}:
        assert empty.sum_of(name) == 0, name
    await create_group(redis)
    await publish(redis, random_events(5, seed=1))
    await read_new(redis, consumer="slow", count=2, block_s=0.1)
    await redis.xadd(DEAD_LETTER_STREAM, {EVENT_FIELD: b"poison"})
    await asyncio.sleep(1)  # as long as the metrics are kept
    exposed = await _scrape(client)
    assert exposed.sum_of("stream_entries") == 5
    assert exposed.sum_of("stream_pending_entries") == 2
    assert exposed.sum_of("stream_lag_entries") == 3
    assert exposed.sum_of("stream_dead_letters") == 1
    assert exposed.sum_of("stream_consumers") == 1
    assert exposed.sum_of("stream_oldest_pending_seconds") >= 1
    assert exposed.sum_of("redis_memory_bytes") > 500_000


async def test_key_that_is_no_stream_is_reported_as_down(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """A fault in one server does not stop the metrics of the other."""
    await redis.set(STREAM, "no stream")
    exposed = await _scrape(client)
    assert exposed.sum_of("stream_up") == 0
    assert exposed.sum_of("database_up") == 1
    assert not exposed.has(_OF_REDIS)


async def test_lag_is_right_where_redis_itself_does_not_know_it(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """After unread entries were deleted, Redis reports no lag of its own."""
    await create_group(redis)
    await publish(redis, random_events(6, seed=2))
    await read_new(redis, consumer="slow", count=1, block_s=0.1)
    entries = await redis.xrange(STREAM)
    assert entries
    unread = entries[3][0]
    await redis.xdel(STREAM, unread or b"")
    [group] = await redis.xinfo_groups(STREAM)
    assert group["lag"] is None
    assert (await _scrape(client)).sum_of("stream_lag_entries") == 4


async def test_limits_are_exposed_only_if_set(
    client: httpx.AsyncClient, redis: Redis, settings: HistorySettings
) -> None:
    """Without a limit there is no metric: 0 would look like a server without memory."""
    assert not (await _scrape(client)).has({"redis_max_memory_bytes", "database_budget_bytes"})
    await redis.config_set("maxmemory", "256mb")
    try:
        budgeted = settings.model_copy(update={"database_budget_bytes": 10**9})
        async with served(create_app(budgeted)) as other:
            exposed = await _scrape(other)
    finally:
        await redis.config_set("maxmemory", "0")
    assert exposed.sum_of("redis_max_memory_bytes") == 256 * 2**20
    assert exposed.sum_of("database_budget_bytes") == 10**9


async def test_full_redis_is_reported_as_full(database_url: str, own_redis: Server) -> None:
    """By health, metrics and erasure alike; it answers, so it is not reported as away."""
    settings = quick_settings(database_url=database_url, redis_url=own_redis.url)
    async with (
        served(create_app(settings), headers=keys.HEADERS) as client,
        Redis.from_url(own_redis.url) as redis,
    ):
        assert (await _scrape(client)).sum_of("redis_full") == 0
        await redis.config_set("maxmemory", "1")
        health = (await client.get("/health")).json()
        erasure = await client.delete("/history", params={"loan_id": "LP1"})

        async def is_full() -> bool:
            return (await _scrape(client)).sum_of("redis_full") == 1

        await eventually(is_full)
        assert (await _scrape(client)).sum_of("stream_up") == 1
        await redis.config_set("maxmemory", "0")
        mended = (await client.get("/health")).json()
    assert (health["status"], mended["status"]) == ("degraded", "ok")
    assert "Redis is full" in health["checks"]["redis"]["detail"]
    assert erasure.status_code == 503
    assert "Redis is full, so nothing was erased" in erasure.json()["detail"]


async def test_database_metrics_are_its_size_and_the_pools_connections(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """The size is PostgreSQL's own, and the connections are those of the service's pool."""
    async with engine.connect() as connection:
        query = text("SELECT pg_database_size(current_database())")
        size = (await connection.execute(query)).scalar_one()
    await client.get("/statistics")
    exposed = await _scrape(client)
    assert exposed.sum_of("database_up") == 1
    assert exposed.sum_of("database_size_bytes") == pytest.approx(size, rel=0.1)
    assert exposed.sum_of("database_pool_connections", state="idle") >= 1
    assert exposed.sum_of("database_pool_connections", state="in_use") == 0


async def test_cache_metrics_and_hit_rate_agree_with_x_cache(
    client: httpx.AsyncClient,
) -> None:
    """Each answer says in X-Cache which it was."""
    assert (await client.get("/performance")).json()["cache_hit_rate"] is None
    said = [(await client.get("/statistics")).headers["x-cache"] for _ in range(4)]
    assert said == ["MISS", "HIT", "HIT", "HIT"]
    exposed = await _scrape(client)
    assert exposed.sum_of("cache_misses_total") == 1
    assert exposed.sum_of("cache_hits_total") == 3
    assert exposed.sum_of("cache_failures_total") == 0
    performance = (await client.get("/performance")).json()
    assert performance["cache_hit_rate"] == 0.75
    asked = {route["route"]: route["requests"] for route in performance["routes"]}
    assert (asked["/statistics"], asked["/performance"]) == (4, 1)


@pytest.mark.parametrize("how", ["killed", "wedged"])
async def test_redis_that_is_down_is_reported_without_stale_metrics(
    own_redis: Server, database_url: str, how: str
) -> None:
    """No scrape waits longer than the deadline; once Redis is back its metrics are, too."""
    settings = quick_settings(database_url=database_url, redis_url=own_redis.url)
    async with served(create_app(settings)) as client:
        assert (await _scrape(client)).has(_OF_REDIS) == _OF_REDIS
        own_redis.process.kill() if how == "killed" else own_redis.process.pause()
        await client.get("/statistics", headers=keys.HEADERS)
        await client.get("/")  # counted against a limit, which the processes cannot share now

        async def is_degraded() -> bool:
            return (await _scrape(client)).sum_of("rate_limit_degraded") == 1

        await eventually(is_degraded)
        await asyncio.sleep(1)  # as long as the metrics are kept
        async with asyncio.timeout(3):
            exposed = await _scrape(client)
        assert exposed.sum_of("stream_up") == 0
        assert exposed.sum_of("database_up") == 1
        assert exposed.sum_of("cache_failures_total") >= 1
        assert not exposed.has(_OF_REDIS)
        own_redis.process.start() if how == "killed" else own_redis.process.resume()

        async def is_back() -> bool:
            return (await _scrape(client)).sum_of("stream_up") == 1

        await eventually(is_back)


@pytest.mark.parametrize("how", ["killed", "wedged"])
async def test_database_that_is_down_is_reported_without_stale_metrics(
    own_postgres: Server, redis_url: str, how: str
) -> None:
    """The same for PostgreSQL."""
    settings = quick_settings(database_url=own_postgres.url, redis_url=redis_url)
    async with served(create_app(settings)) as client:
        process = own_postgres.process
        if how == "killed":
            assert (await _scrape(client)).sum_of("database_size_bytes") > 0
            process.kill()
            await asyncio.sleep(1)  # as long as the metrics are kept
        else:
            # Frozen, it accepts no connection; open connections would still be served.
            process.pause()
        async with asyncio.timeout(3):
            exposed = await _scrape(client)
        assert exposed.sum_of("database_up") == 0
        assert exposed.sum_of("stream_up") == 1
        assert not exposed.has({"database_size_bytes"})
        await asyncio.to_thread(process.start) if how == "killed" else process.resume()

        async def is_back() -> bool:
            return (await _scrape(client)).sum_of("database_up") == 1

        await eventually(is_back)


async def test_servers_are_queried_once_a_second_however_many_scrape(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """Monitoring must not be a load on what it monitors."""
    await redis.config_resetstat()
    await asyncio.gather(*(client.get("/metrics") for _ in range(30)))
    calls = await redis.info("commandstats")
    assert calls["cmdstat_xpending"]["calls"] <= 2


async def test_consumer_counts_what_it_stores(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """Each decision once, however often delivered; each transaction with its size and duration."""
    began_s = time.time()
    events = random_events(30, seed=3)
    await publish(redis, events, group=10)
    async with consuming(settings) as consumer:
        nothing = _of(consumer)
        await eventually(stored(engine, 30))
        await publish(redis, events)
        await publish(redis, random_events(1, seed=4))
        await eventually(stored(engine, 31))
    assert nothing.sum_of("consumer_last_commit_timestamp_seconds") == 0
    exposed = _of(consumer)
    assert exposed.sum_of("consumer_rows_total") == 31
    assert exposed.sum_of("consumer_batch_rows_sum") >= 31
    commits = exposed.sum_of("consumer_batch_rows_count")
    assert exposed.sum_of("consumer_commit_seconds_count") == commits >= 2
    took_s = time.time() - began_s
    assert 0 < exposed.sum_of("consumer_commit_seconds_sum") < took_s * CONCURRENT_BATCHES
    assert began_s <= exposed.sum_of("consumer_last_commit_timestamp_seconds") <= time.time()
    assert exposed.sum_of("consumer_database_failures_total") == 0


async def test_consumer_counts_what_it_took_over_and_put_aside(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """Entries of a consumer that is gone, and events that cannot be stored, each once."""
    await create_group(redis)
    await publish(redis, random_events(4, seed=5))
    await read_new(redis, consumer="gone", count=4, block_s=0.1)
    async with consuming(settings) as consumer:
        await eventually(stored(engine, 4))
        assert _of(consumer).sum_of("consumer_taken_over_entries_total") == 4
        await redis.xadd(STREAM, {EVENT_FIELD: b"poison\nand more"})

        async def put_aside() -> bool:
            return _of(consumer).sum_of("consumer_dead_letters_total") == 2

        await eventually(put_aside)
    assert await redis.xlen(DEAD_LETTER_STREAM) == 2


async def test_consumer_counts_failures_of_the_database_by_their_reason(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """A full disk is another reason than refused values."""
    events = random_events(3, seed=6)
    object.__setattr__(events[1].decision.input_data, "Loan_ID", "LP\0001")
    async with engine.begin() as connection:
        for statement in _REFUSE_FOR_WANT_OF_SPACE:
            await connection.execute(text(statement))
    await publish(redis, events)
    async with consuming(settings) as consumer:

        async def failed_for(reason: str) -> bool:
            return _of(consumer).sum_of("consumer_database_failures_total", reason=reason) > 0

        await eventually(lambda: failed_for("disk_full"))
        async with engine.begin() as connection:
            await connection.execute(text("DROP TRIGGER refuse ON predictions"))
        await eventually(lambda: failed_for("refused"))
        await eventually(stored(engine, 2))
        assert not await failed_for("connections")
        assert not await failed_for("other")


_REFUSE_FOR_WANT_OF_SPACE = (
    """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full';
    END $$
    """,
    "CREATE TRIGGER refuse AFTER INSERT ON predictions EXECUTE FUNCTION refuse()",
)


async def test_database_that_is_gone_is_a_failure_of_the_connection(
    own_postgres: Server, redis_url: str, redis: Redis
) -> None:
    """Counted at each attempt."""
    settings = quick_settings(database_url=own_postgres.url, redis_url=redis_url)
    own_postgres.process.kill()
    await publish(redis, random_events(1, seed=7))
    async with consuming(settings) as consumer:

        async def failed_twice() -> bool:
            exposed = _of(consumer)
            return exposed.sum_of("consumer_database_failures_total", reason="connections") >= 2

        await eventually(failed_twice)
        assert _of(consumer).sum_of("consumer_database_failures_total", reason="other") == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (asyncpg.TooManyConnectionsError(), "connections"),
        (asyncpg.AdminShutdownError(), "connections"),
        (asyncpg.CannotConnectNowError(), "connections"),
        (asyncpg.QueryCanceledError(), "other"),
        (asyncpg.UndefinedTableError(), "other"),
        (asyncpg.ReadOnlySQLTransactionError(), "other"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_reason_of_a_refusal_is_its_sqlstate(
    error: asyncpg.PostgresError, reason: FailureReason
) -> None:
    """For errors that a test cannot provoke in a real server."""
    assert reason_of(DBAPIError(None, None, error)) == reason


def test_consumer_serves_metrics_at_its_port_and_stops_cleanly(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A scrape of the process itself."""
    port = free_port()
    consumer = _consumer(database_url, redis_url, port, tmp_path)
    consumer.start()
    try:
        exposed = Exposition(httpx.get(f"http://{HOST}:{port}/metrics").text)
        assert exposed.sum_of("build_info", service="consumer") == 1
        assert exposed.sum_of("consumer_rows_total") == 0
    finally:
        consumer.stop()
    assert consumer.exit_code == 0


def test_connections_that_send_nothing_cost_a_bounded_number_of_threads_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is too many is closed at once, and a scrape is answered once the silent ones are."""
    monkeypatch.setattr("shared.observability.metrics.server._Handler.timeout", 1.0)
    port = free_port()
    before = threading.active_count()
    with metrics_server(Metrics(), host=HOST, port=port), ExitStack() as stack:
        address = (HOST, port)
        silent = [
            stack.enter_context(socket.create_connection(address, timeout=5))
            for _ in range(3 * CONNECTIONS)
        ]
        assert silent[-1].recv(1) == b""
        assert threading.active_count() <= before + 1 + CONNECTIONS
        assert [one.recv(1) for one in silent] == [b""] * len(silent)
        until(lambda: threading.active_count() == before + 1)
        assert httpx.get(f"http://{HOST}:{port}/metrics").is_success


def test_port_in_use_is_reported_in_one_sentence(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """With the variable that changes it, and no traceback."""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        consumer = _consumer(database_url, redis_url, port, tmp_path)
        consumer.spawn()
        until(lambda: not consumer.running)
    assert consumer.exit_code == 1
    said = consumer.log.read_text()
    assert said.splitlines()[-1] == (
        f"Port {port} on {HOST} cannot be used (Address already in use):"
        " choose another with METRICS_PORT, or another address with METRICS_HOST."
    )
    assert "Traceback" not in said


def _consumer(database_url: str, redis_url: str, port: int, logs: Path) -> Process:
    env = os.environ | {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    return components.consumer(env, host=HOST, metrics_port=port, logs=logs)

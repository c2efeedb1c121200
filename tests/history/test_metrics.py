"""What the history service and the consumer tell Prometheus: each figure, brought about."""

import asyncio
import os
import socket
import subprocess
import sys
import time

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
from services.local.servers import Server
from shared.contract.events import DEAD_LETTER_STREAM, EVENT_FIELD, STREAM
from shared.observability.metrics import Metrics
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
}


async def _told(client: httpx.AsyncClient) -> Exposition:
    response = await client.get("/metrics")
    assert response.status_code == 200
    return Exposition(response.text)


def _of(consumer: Consumer) -> Exposition:
    metrics = Metrics()
    metrics.read_from(consumer.metrics.samples)
    return Exposition(generate_latest(metrics).decode())


async def test_stream_is_told_by_what_was_read_and_what_was_not(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """Entries in a consumer's hands are pending, with the age of the oldest; the rest is lag."""
    empty = await _told(client)
    assert empty.sum_of("stream_up") == 1
    for name in _OF_REDIS - {"redis_memory_bytes"}:
        assert empty.sum_of(name) == 0, name
    await create_group(redis)
    await publish(redis, random_events(5, seed=1))
    await read_new(redis, consumer="slow", count=2, block_s=0.1)
    await redis.xadd(DEAD_LETTER_STREAM, {EVENT_FIELD: b"poison"})
    await asyncio.sleep(1)  # for so long the figures are remembered
    told = await _told(client)
    assert told.sum_of("stream_entries") == 5
    assert told.sum_of("stream_pending_entries") == 2
    assert told.sum_of("stream_lag_entries") == 3
    assert told.sum_of("stream_dead_letters") == 1
    assert told.sum_of("stream_consumers") == 1
    assert told.sum_of("stream_oldest_pending_seconds") >= 1
    assert told.sum_of("redis_memory_bytes") > 500_000


async def test_key_that_is_no_stream_is_told_as_no_stream(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """Whatever is wrong with what is watched, watching it goes on."""
    await redis.set(STREAM, "no stream")
    told = await _told(client)
    assert told.sum_of("stream_up") == 0
    assert told.sum_of("database_up") == 1
    assert not told.has(_OF_REDIS)


async def test_lag_is_right_where_redis_itself_does_not_know_it(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """After entries were taken off before anybody read them, its own figure is gone."""
    await create_group(redis)
    await publish(redis, random_events(6, seed=2))
    await read_new(redis, consumer="slow", count=1, block_s=0.1)
    entries = await redis.xrange(STREAM)
    assert entries
    unread = entries[3][0]
    await redis.xdel(STREAM, unread or b"")
    [group] = await redis.xinfo_groups(STREAM)
    assert group["lag"] is None
    assert (await _told(client)).sum_of("stream_lag_entries") == 4


async def test_limits_are_told_where_there_are_any(
    client: httpx.AsyncClient, redis: Redis, settings: HistorySettings
) -> None:
    """Without a limit there is no figure: 0 would look like a server with no memory at all."""
    assert not (await _told(client)).has({"redis_max_memory_bytes", "database_budget_bytes"})
    await redis.config_set("maxmemory", "256mb")
    try:
        budgeted = settings.model_copy(update={"database_budget_bytes": 10**9})
        async with served(create_app(budgeted)) as other:
            told = await _told(other)
    finally:
        await redis.config_set("maxmemory", "0")
    assert told.sum_of("redis_max_memory_bytes") == 256 * 2**20
    assert told.sum_of("database_budget_bytes") == 10**9


async def test_database_is_told_with_its_size_and_connections(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """The size is PostgreSQL's own, and the connections are those of the service's pool."""
    async with engine.connect() as connection:
        query = text("SELECT pg_database_size(current_database())")
        size = (await connection.execute(query)).scalar_one()
    await client.get("/statistics")
    told = await _told(client)
    assert told.sum_of("database_up") == 1
    assert told.sum_of("database_size_bytes") == pytest.approx(size, rel=0.1)
    assert told.sum_of("database_pool_connections", state="idle") >= 1
    assert told.sum_of("database_pool_connections", state="in_use") == 0


async def test_cache_is_told_by_hits_and_misses_and_so_is_its_rate(
    client: httpx.AsyncClient,
) -> None:
    """As X-Cache told each of the callers."""
    assert (await client.get("/performance")).json()["cache_hit_rate"] is None
    said = [(await client.get("/statistics")).headers["x-cache"] for _ in range(4)]
    assert said == ["MISS", "HIT", "HIT", "HIT"]
    told = await _told(client)
    assert told.sum_of("cache_misses_total") == 1
    assert told.sum_of("cache_hits_total") == 3
    assert told.sum_of("cache_failures_total") == 0
    performance = (await client.get("/performance")).json()
    assert performance["cache_hit_rate"] == 0.75
    asked = {route["route"]: route["requests"] for route in performance["routes"]}
    assert (asked["/statistics"], asked["/performance"]) == (4, 1)


@pytest.mark.parametrize("how", ["killed", "wedged"])
async def test_redis_that_is_away_is_told_without_old_figures(
    own_redis: Server, database_url: str, how: str
) -> None:
    """And nobody waits for it longer than the deadline; once it is back it is told again."""
    settings = quick_settings(database_url=database_url, redis_url=own_redis.url)
    async with served(create_app(settings)) as client:
        assert (await _told(client)).has(_OF_REDIS) == _OF_REDIS
        own_redis.process.kill() if how == "killed" else own_redis.process.pause()
        await client.get("/statistics", headers=keys.HEADERS)
        await client.get("/")  # counted against a limit, which the processes cannot share now

        async def is_degraded() -> bool:
            return (await _told(client)).sum_of("rate_limit_degraded") == 1

        await eventually(is_degraded)
        await asyncio.sleep(1)  # for so long the figures are remembered
        async with asyncio.timeout(3):
            told = await _told(client)
        assert told.sum_of("stream_up") == 0
        assert told.sum_of("database_up") == 1
        assert told.sum_of("cache_failures_total") >= 1
        assert not told.has(_OF_REDIS)
        own_redis.process.start() if how == "killed" else own_redis.process.resume()

        async def is_back() -> bool:
            return (await _told(client)).sum_of("stream_up") == 1

        await eventually(is_back)


@pytest.mark.parametrize("how", ["killed", "wedged"])
async def test_database_that_is_away_is_told_without_old_figures(
    own_postgres: Server, redis_url: str, how: str
) -> None:
    """The same of PostgreSQL."""
    settings = quick_settings(database_url=own_postgres.url, redis_url=redis_url)
    async with served(create_app(settings)) as client:
        process = own_postgres.process
        if how == "killed":
            assert (await _told(client)).sum_of("database_size_bytes") > 0
            process.kill()
            await asyncio.sleep(1)  # for so long the figures are remembered
        else:
            # Frozen, it lets nobody in; whoever is in already would still be served.
            process.pause()
        async with asyncio.timeout(3):
            told = await _told(client)
        assert told.sum_of("database_up") == 0
        assert told.sum_of("stream_up") == 1
        assert not told.has({"database_size_bytes"})
        await asyncio.to_thread(process.start) if how == "killed" else process.resume()

        async def is_back() -> bool:
            return (await _told(client)).sum_of("database_up") == 1

        await eventually(is_back)


async def test_servers_are_asked_once_a_second_however_many_ask(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """Whoever watches the service must not be a load on what it watches."""
    await redis.config_resetstat()
    await asyncio.gather(*(client.get("/metrics") for _ in range(30)))
    calls = await redis.info("commandstats")
    assert calls["cmdstat_xpending"]["calls"] <= 2


async def test_consumer_counts_what_it_stores(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """Each decision once, however often it comes; each transaction with its size and its time."""
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
    told = _of(consumer)
    assert told.sum_of("consumer_rows_total") == 31
    assert told.sum_of("consumer_batch_rows_sum") >= 31
    commits = told.sum_of("consumer_batch_rows_count")
    assert told.sum_of("consumer_commit_seconds_count") == commits >= 2
    took_s = time.time() - began_s
    assert 0 < told.sum_of("consumer_commit_seconds_sum") < took_s * CONCURRENT_BATCHES
    assert began_s <= told.sum_of("consumer_last_commit_timestamp_seconds") <= time.time()
    assert told.sum_of("consumer_database_failures_total") == 0


async def test_consumer_counts_what_it_took_over_and_put_aside(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """Entries of a consumer that is gone; and events, each once, that nobody can store."""
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
    """A server that refuses for want of space is told apart from one that refuses the values."""
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
            told = _of(consumer)
            return told.sum_of("consumer_database_failures_total", reason="connections") >= 2

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
    """For those that a server cannot be made to give at a test's wish."""
    assert reason_of(DBAPIError(None, None, error)) == reason


def test_consumer_answers_at_its_port_and_ends_in_peace(database_url: str, redis_url: str) -> None:
    """A scrape that is asked of the process itself; nothing listens where no port is set."""
    port = free_port()
    settings = _environment(database_url, redis_url, METRICS_PORT=str(port))
    with subprocess.Popen([sys.executable, "-m", "services.history.consumer"], env=settings) as one:
        try:
            told = _scraped(port)
            assert told.sum_of("build_info", service="consumer") == 1
            assert told.sum_of("consumer_rows_total") == 0
        finally:
            one.terminate()
        assert one.wait(timeout=20) == 0


def test_port_that_is_taken_is_one_sentence(database_url: str, redis_url: str) -> None:
    """With the variable that changes it, and no traceback."""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "services.history.consumer"],
            env=_environment(database_url, redis_url, METRICS_PORT=str(port)),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"Port {port} on {HOST} cannot be used (Address already in use):"
        " choose another with METRICS_PORT, or another address with METRICS_HOST."
    )
    assert "Traceback" not in done.stderr


def _environment(database_url: str, redis_url: str, **settings: str) -> dict[str, str]:
    return os.environ | {"DATABASE_URL": database_url, "REDIS_URL": redis_url, **settings}


def _scraped(port: int) -> Exposition:
    """What the consumer says, once it has begun to listen."""

    def listens() -> bool:
        with socket.socket() as connection:
            return connection.connect_ex((HOST, port)) == 0

    until(listens)
    return Exposition(httpx.get(f"http://{HOST}:{port}/metrics").text)

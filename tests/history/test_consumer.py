"""The consumer: every decision ends up stored exactly once, whatever dies meanwhile."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.settings import CACHE_PREFIX, HistorySettings
from services.local import components
from services.local.processes import Process
from services.local.servers import Server
from shared.contract.events import CONSUMER_GROUP, DEAD_LETTER_STREAM, EVENT_FIELD, STREAM
from shared.redis import connect
from tests.harness import HOST, free_port
from tests.history.conftest import consuming, engine_of, quick_settings
from tests.history.events import body_of, random_events
from tests.history.storage import (
    assert_rollups_equal_a_recount,
    assert_stream_is_finished,
    ids_of,
    publish,
    stored,
    stored_ids,
)
from tests.waiting import eventually_said as eventually


@pytest.mark.parametrize("group", [1, 7, 64])
async def test_every_event_is_stored_once_and_taken_off_the_stream(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis, group: int
) -> None:
    """Events added before the group existed are stored too, however many an entry holds."""
    events = random_events(1200, seed=1)
    await publish(redis, events, group=group)
    async with consuming(settings):
        await eventually(stored(engine, 1200))
    assert await stored_ids(engine) == ids_of(events)
    await assert_stream_is_finished(redis)
    await assert_rollups_equal_a_recount(engine)


async def test_event_that_comes_twice_is_counted_once(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """A repeated event changes neither the rows nor the roll-ups, in one batch or in two."""
    events = random_events(50, seed=2)
    await publish(redis, [*events, *events[:25]])
    async with consuming(settings):
        await eventually(stored(engine, 50))
        await publish(redis, events)
        await eventually(lambda: _is_finished(redis))
    assert await stored_ids(engine) == ids_of(events)
    await assert_rollups_equal_a_recount(engine)


async def test_entries_of_a_dead_consumer_are_taken_over(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """What another consumer was given and never acknowledged is stored all the same."""
    events = random_events(700, seed=3)
    await publish(redis, events)
    await redis.xgroup_create(STREAM, CONSUMER_GROUP, id="0")
    await redis.xreadgroup(CONSUMER_GROUP, "gone", {STREAM: ">"}, count=600)
    async with consuming(settings):
        await eventually(stored(engine, 700))
    assert await stored_ids(engine) == ids_of(events)
    await assert_stream_is_finished(redis)


@pytest.mark.no_cover
async def test_several_consumers_share_the_work_and_the_counts(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """Consumers that update the same roll-up rows at the same time lose no count."""
    events = random_events(6000, seed=4)
    small = settings.model_copy(update={"consumer_batch_size": 100})
    await publish(redis, events)
    async with (
        consuming(small.model_copy(update={"consumer_name": "one"})),
        consuming(small.model_copy(update={"consumer_name": "two"})),
        consuming(small.model_copy(update={"consumer_name": "three"})),
    ):
        await eventually(stored(engine, 6000))
    assert await stored_ids(engine) == ids_of(events)
    await assert_stream_is_finished(redis)
    await assert_rollups_equal_a_recount(engine)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({EVENT_FIELD: b"{"}, id="no JSON"),
        pytest.param({EVENT_FIELD: b'{"type": "PredictionRecorded", "version": 2}'}, id="newer"),
        pytest.param({"something": b"else"}, id="no event"),
    ],
)
async def test_repeatedly_failed_entry_is_moved_to_dead_letter_stream(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis, fields: dict[str, bytes]
) -> None:
    """A poison entry is put aside as it came, with the reason, and delays no other entry."""
    events = random_events(20, seed=5)
    await publish(redis, events[:10])
    written: dict[Any, Any] = dict(fields)
    poison = await redis.xadd(STREAM, written)
    await publish(redis, events[10:])
    async with consuming(settings):
        await eventually(stored(engine, 20))
        assert await redis.xlen(DEAD_LETTER_STREAM) == 0, "put aside before its last delivery"
        await eventually(lambda: _has_dead_letters(redis, 1))
    [dead] = await _dead_letters(redis)
    for name, value in fields.items():
        assert dead[name.encode()] == value
    assert dead[b"entry_id"] == poison
    assert int(dead[b"deliveries"]) == settings.consumer_max_deliveries
    assert dead[b"error"]
    assert await stored_ids(engine) == ids_of(events)
    await assert_stream_is_finished(redis)


async def test_rows_that_the_database_refuses_never_block_their_batch(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """Rows with a NUL, which PostgreSQL cannot store, are singled out of a batch and put aside."""
    events = random_events(100, seed=6)
    refused = (17, 18, 71)
    for number in refused:
        application = events[number].decision.input_data
        object.__setattr__(application, "Loan_ID", "LP\0001")
    await publish(redis, events)
    async with consuming(settings):
        await eventually(lambda: _has_dead_letters(redis, len(refused)))
    kept = [event for number, event in enumerate(events) if number not in refused]
    assert await stored_ids(engine) == ids_of(kept)
    dead = {fields[EVENT_FIELD.encode()] for fields in await _dead_letters(redis)}
    assert dead == {body_of(events[number]) for number in refused}
    await assert_stream_is_finished(redis)
    await assert_rollups_equal_a_recount(engine)


async def test_unusable_events_of_an_entry_are_put_aside_without_the_others(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """Of a group that was handed over together, only what cannot be stored is a dead letter."""
    events = random_events(30, seed=16)
    object.__setattr__(events[4].decision.input_data, "Loan_ID", "LP\0001")
    bodies = [body_of(event) for event in events]
    bodies[12] = b'{"no": "event"}'
    await publish(redis, random_events(5, seed=17))
    mixed = await redis.xadd(STREAM, {EVENT_FIELD: b"\n".join(bodies)})
    async with consuming(settings):
        await eventually(lambda: _has_dead_letters(redis, 2))
    letters = await _dead_letters(redis)
    assert {letter[EVENT_FIELD.encode()] for letter in letters} == {bodies[4], bodies[12]}
    assert {letter[b"entry_id"] for letter in letters} == {mixed}
    assert all(letter[b"error"] for letter in letters)
    kept = [event for number, event in enumerate(events) if number not in (4, 12)]
    assert set(ids_of(kept)) < set(await stored_ids(engine))
    assert len(await stored_ids(engine)) == 33
    await assert_stream_is_finished(redis)
    await assert_rollups_equal_a_recount(engine)


async def test_deliveries_are_counted_across_restarts(
    settings: HistorySettings, redis: Redis
) -> None:
    """Redis counts the deliveries, so consumers that die young do not keep poison alive."""
    await redis.xadd(STREAM, {EVENT_FIELD: b"poison"})
    for run in range(1, settings.consumer_max_deliveries):
        async with consuming(settings):
            await eventually(lambda: _was_delivered(redis, times=run))  # noqa: B023 - awaited here
    async with consuming(settings):
        await eventually(lambda: _has_dead_letters(redis, 1))
    [dead] = await _dead_letters(redis)
    assert int(dead[b"deliveries"]) == settings.consumer_max_deliveries


async def test_erroring_handler_does_not_ack(own_postgres: Server, redis_url: str) -> None:
    """While the database is down nothing is acknowledged; once it is back everything is stored."""
    settings = quick_settings(database_url=own_postgres.url, redis_url=redis_url)
    engine, redis = engine_of(settings), connect(redis_url)
    events = random_events(800, seed=7)
    own_postgres.process.kill()
    await publish(redis, events)
    async with consuming(settings):
        await eventually(lambda: _is_in_hand(redis))
        await asyncio.sleep(0.5)
        assert await redis.xlen(STREAM) == 800
        assert await redis.xlen(DEAD_LETTER_STREAM) == 0
        own_postgres.process.start()
        await eventually(stored(engine, 800))
    assert await stored_ids(engine) == ids_of(events)
    await assert_stream_is_finished(redis)
    await assert_rollups_equal_a_recount(engine)
    await redis.aclose()
    await engine.dispose()


async def test_database_restart_under_load_loses_and_doubles_nothing(
    own_postgres: Server, redis_url: str
) -> None:
    """A batch whose commit was cut off may or may not be stored; it ends up stored once."""
    settings = quick_settings(database_url=own_postgres.url, redis_url=redis_url)
    engine, redis = engine_of(settings), connect(redis_url)
    events = random_events(4000, seed=8)
    small = settings.model_copy(update={"consumer_batch_size": 50})
    await publish(redis, events)
    async with consuming(small):
        await eventually(stored(engine, 100))
        await asyncio.to_thread(own_postgres.process.kill)
        await asyncio.to_thread(own_postgres.process.start)
        await eventually(lambda: _is_finished(redis), timeout_s=60)
    assert await stored_ids(engine) == ids_of(events)
    await assert_rollups_equal_a_recount(engine)
    await redis.aclose()
    await engine.dispose()


async def test_stop_while_the_database_is_down_leaves_the_batch_on_the_stream(
    own_postgres: Server, redis_url: str
) -> None:
    """A consumer that cannot finish gives up within its pause and acknowledges nothing."""
    settings = quick_settings(database_url=own_postgres.url, redis_url=redis_url)
    redis = connect(redis_url)
    own_postgres.process.kill()
    await publish(redis, random_events(10, seed=9))
    async with asyncio.timeout(5), consuming(settings):
        await eventually(lambda: _is_in_hand(redis))
    assert await redis.xlen(STREAM) == 10
    await redis.aclose()


async def test_consumer_recovers_when_redis_restarts(own_redis: Server, database_url: str) -> None:
    """A consumer outlives Redis, and stores what was added before and after the restart."""
    settings = quick_settings(database_url=database_url, redis_url=own_redis.url)
    engine, redis = engine_of(settings), connect(own_redis.url)
    events = random_events(60, seed=10)
    async with consuming(settings):
        await publish(redis, events[:20])
        await eventually(stored(engine, 20))
        await asyncio.to_thread(own_redis.process.stop)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(own_redis.process.start)
        await publish(redis, events[20:])
        await eventually(stored(engine, 60))
        await eventually(lambda: _is_finished(redis))
    assert await stored_ids(engine) == ids_of(events)
    await assert_rollups_equal_a_recount(engine)
    await redis.aclose()
    await engine.dispose()


async def test_consumer_waits_for_a_wedged_redis(own_redis: Server, database_url: str) -> None:
    """A Redis that answers nothing for a while costs time and nothing else."""
    settings = quick_settings(database_url=database_url, redis_url=own_redis.url)
    engine, redis = engine_of(settings), connect(own_redis.url)
    events = random_events(40, seed=11)
    async with consuming(settings):
        await publish(redis, events[:20])
        await eventually(stored(engine, 20))
        own_redis.process.pause()
        await asyncio.sleep(1.5)
        own_redis.process.resume()
        await publish(redis, events[20:])
        await eventually(stored(engine, 40))
        await eventually(lambda: _is_finished(redis))
    assert await stored_ids(engine) == ids_of(events)
    await redis.aclose()
    await engine.dispose()


async def test_consumer_makes_the_group_again_after_redis_lost_its_data(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """Without its stream and group the consumer makes both again and goes on."""
    events = random_events(20, seed=12)
    async with consuming(settings):
        await publish(redis, events[:10])
        await eventually(stored(engine, 10))
        await redis.flushall()
        await publish(redis, events[10:])
        await eventually(stored(engine, 20))


async def test_commit_invalidates_the_caches_at_most_once_a_second(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """Many small commits end the cached answers' life once; the last commit is never forgotten."""
    events = random_events(60, seed=13)
    async with consuming(settings):
        for event in events:
            await publish(redis, [event])
            await asyncio.sleep(0.01)
        await eventually(stored(engine, 60))
    # The commits took little more than half a second; the last one is followed up on the way out.
    assert await redis.get(f"{CACHE_PREFIX}:generation") in (b"1", b"2", b"3")


async def test_trickle_of_events_costs_few_transactions(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """Events that arrive one by one gather for a moment and are stored together."""
    gather_s = 0.1
    gathering = settings.model_copy(update={"consumer_gather_s": gather_s})
    events = random_events(100, seed=18)
    began_s = time.monotonic()
    async with consuming(gathering):
        for event in events:
            await publish(redis, [event])
            await asyncio.sleep(0.005)
        await eventually(stored(engine, 100))
        took_s = time.monotonic() - began_s
    assert await _transactions(engine) <= took_s / gather_s + 1
    assert await stored_ids(engine) == ids_of(events)


async def test_first_event_and_backlog_are_not_held_back(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """Events gather only after a read that found some, but less than a batch."""
    gathering = settings.model_copy(update={"consumer_gather_s": 1, "consumer_batch_size": 20})
    events = random_events(1000, seed=19)
    async with consuming(gathering):
        await asyncio.sleep(0.2)  # some reads have found nothing by now
        began_s = time.monotonic()
        await publish(redis, events[:1])
        await eventually(stored(engine, 1))
        assert time.monotonic() - began_s < 0.9
        await publish(redis, events[1:])
        await eventually(stored(engine, 1000))
    assert time.monotonic() - began_s < 15, "fifty batches were each held back"
    assert await stored_ids(engine) == ids_of(events)


async def test_stop_does_not_wait_until_events_have_gathered(
    settings: HistorySettings, engine: AsyncEngine, redis: Redis
) -> None:
    """What is left on the stream is for the next consumer."""
    gathering = settings.model_copy(update={"consumer_gather_s": 1})
    async with consuming(gathering):
        await publish(redis, random_events(1, seed=20))
        await eventually(stored(engine, 1))
        stopped_s = time.monotonic()
    assert time.monotonic() - stopped_s < 0.9


@pytest.mark.no_cover
async def test_kill_9_mid_batch_leaves_nothing_missing_or_doubled(
    database_url: str, redis_url: str, engine: AsyncEngine, redis: Redis, tmp_path: Path
) -> None:
    """Whatever a killed consumer had in hand, the next one stores exactly once."""
    events = random_events(5000, seed=14)
    consumer = _consumer_process(database_url, redis_url, tmp_path)
    await publish(redis, events)
    for reached in (500, 2500):
        consumer.spawn()
        await eventually(stored(engine, reached))
        consumer.kill()
    consumer.spawn()
    await eventually(lambda: _is_finished(redis))
    await asyncio.to_thread(consumer.stop)
    assert await stored_ids(engine) == ids_of(events)
    await assert_rollups_equal_a_recount(engine)


async def test_sigterm_finishes_the_batch_and_exits_0(
    database_url: str, redis_url: str, engine: AsyncEngine, redis: Redis, tmp_path: Path
) -> None:
    """Asked to end under load, the consumer stores and acknowledges what it has read."""
    events = random_events(4000, seed=15)
    consumer = _consumer_process(database_url, redis_url, tmp_path)
    await publish(redis, events)
    consumer.spawn()
    await eventually(stored(engine, 500))
    consumer.send(signal.SIGTERM)
    await eventually(lambda: _has_ended(consumer))
    assert consumer.exit_code == 0
    remaining = await redis.xlen(STREAM)
    assert len(await stored_ids(engine)) + remaining == 4000
    assert (await redis.xpending(STREAM, CONSUMER_GROUP))["pending"] == 0
    await assert_rollups_equal_a_recount(engine)


async def _transactions(engine: AsyncEngine) -> int:
    """How many transactions have stored decisions; each has one time of its own."""
    async with engine.connect() as connection:
        found = await connection.execute(
            text("SELECT count(DISTINCT recorded_at) FROM predictions")
        )
        return int(found.scalar_one())


def _consumer_process(database_url: str, redis_url: str, logs: Path) -> Process:
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "CONSUMER_RECLAIM_IDLE_S": "0.3",
    }
    return components.consumer(environment, host=HOST, metrics_port=free_port(), logs=logs)


async def _has_ended(process: Process) -> bool:
    return not process.running


async def _is_finished(redis: Redis) -> bool:
    return int(await redis.xlen(STREAM)) == 0


async def _is_in_hand(redis: Redis) -> bool:
    groups = await redis.xinfo_groups(STREAM)
    return bool(groups and groups[0]["pending"])


async def _has_dead_letters(redis: Redis, count: int) -> bool:
    return int(await redis.xlen(DEAD_LETTER_STREAM)) >= count


async def _dead_letters(redis: Redis) -> list[dict[bytes, bytes]]:
    entries: Any = await redis.xrange(DEAD_LETTER_STREAM)
    return [fields for _, fields in entries]


async def _was_delivered(redis: Redis, *, times: int) -> bool:
    if not await redis.xinfo_groups(STREAM):
        return False
    pending = await redis.xpending_range(STREAM, CONSUMER_GROUP, min="-", max="+", count=1)
    return bool(pending) and int(pending[0]["times_delivered"]) >= times

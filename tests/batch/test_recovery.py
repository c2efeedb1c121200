"""What a batch survives: every good row is recorded exactly once, and every faulty one is named."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import asyncpg
import httpx
import pytest

from services.batch.main import create_app
from services.batch.settings import BatchSettings
from services.local import components
from services.local.processes import Process
from services.local.servers import Server
from shared.access.api_keys import parse_keys
from tests import keys
from tests.batch.files import applications, as_csv, begin, ended, lines
from tests.harness import HOST, events_in, free_port
from tests.serving import served
from tests.waiting import eventually_said

pytestmark = pytest.mark.system

_ROWS = 5000
_STREAM_ENTRIES = 24
_ROWS_ON_STREAM = 2000
"""Decided before the stream, from which nobody reads, has more entries than that."""
_LEASE_S = 1.0


class _Workers:
    """Workers on one environment, each with a log of its own."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._started: list[Process] = []

    async def start(self) -> Process:
        folder = self._folder / str(len(self._started))
        worker = components.batch_worker(
            self._environment, host=HOST, metrics_port=free_port(), logs=folder
        )
        self._started.append(worker)
        await asyncio.to_thread(worker.start)
        return worker

    def close(self) -> None:
        for worker in self._started:
            if worker.running:
                worker.resume()
                worker.kill()
            print(worker.log_tail())


@pytest.fixture
def environment(own_postgres: Server, redis_url: str) -> dict[str, str]:
    return components.environment(
        host=HOST,
        database_url=own_postgres.url,
        redis_url=redis_url,
        inference_url=f"http://{HOST}:{free_port()}",
        history_url=f"http://{HOST}:{free_port()}",
        api_key=keys.SECRET,
    ) | {
        "BATCH_LEASE_S": str(_LEASE_S),
        "BATCH_POLL_S": "0.1",
        "BATCH_CONCURRENCY": "1",
        "BATCH_STREAM_ENTRIES": str(_STREAM_ENTRIES),
    }


@pytest.fixture
def consumer(environment: dict[str, str], tmp_path: Path) -> Iterator[Process]:
    consumer = components.consumer(environment, host=HOST, metrics_port=free_port(), logs=tmp_path)
    consumer.start()
    yield consumer
    consumer.resume()
    consumer.stop()
    print(consumer.log_tail())


@asynccontextmanager
async def _connected(server: Server) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.url)
    yield connection
    await connection.close()


async def _pause(worker: Process, server: Server) -> None:
    """Pause it between two transactions: during one PostgreSQL keeps the batch locked for it."""
    async with _connected(server) as connection:
        while True:
            worker.pause()
            try:
                await connection.execute("SELECT FROM batch.batches FOR UPDATE NOWAIT")
            except asyncpg.LockNotAvailableError:
                worker.resume()
                await asyncio.sleep(0.01)
            else:
                return


async def _taken(server: Server, times: int) -> None:
    """Return once the batch was taken so often."""

    async def asked() -> bool:
        async with _connected(server) as connection:
            return bool(await connection.fetchval("SELECT fence FROM batch.batches") >= times)

    await eventually_said(asked)


async def test_good_rows_are_recorded_once_whatever_happens_to_workers_and_the_database(
    environment: dict[str, str],
    own_postgres: Server,
    redis_url: str,
    consumer: Process,
    tmp_path: Path,
) -> None:
    """Workers are killed twice and paused past the lease; PostgreSQL restarts; SIGTERM is obeyed.

    While the consumer is paused, the stream is full, and the worker waits with a chunk that is
    decided and not published.
    """
    rows = applications(_ROWS)
    faulty = {*range(50, _ROWS, 100)}
    for number in faulty:
        rows[number]["ApplicantIncome"] = "unknown"
    settings = BatchSettings(
        database_url=own_postgres.url, redis_url=redis_url, api_keys=parse_keys(keys.ENTRY)
    )
    consumer.pause()
    with closing(_Workers(environment, tmp_path)) as workers:
        async with served(create_app(settings), headers=keys.HEADERS) as client:
            path = await begin(client, as_csv(rows))
            first = await workers.start()
            await _decided(client, path, _ROWS_ON_STREAM - 20)
            first.kill()
            takes = 1 + await _fence(own_postgres)
            second = await workers.start()
            await _taken(own_postgres, takes)
            await asyncio.to_thread(own_postgres.process.stop)
            await asyncio.to_thread(own_postgres.process.start)
            await _renewed(own_postgres)
            second.kill()
            # It may have taken the batch again after the restart.
            takes = 1 + await _fence(own_postgres)
            paused = await workers.start()
            await _taken(own_postgres, takes)
            await _pause(paused, own_postgres)
            last = await workers.start()
            await _taken(own_postgres, takes + 1)
            consumer.resume()
            paused.resume()
            done = await ended(client, path)
            assert (done["state"], done["rows"]) == ("done", _ROWS)
            assert (done["faulty"], done["decided"]) == (len(faulty), _ROWS - len(faulty))
            named = await lines(client, f"{path}/faults")
            assert [row["line"] for row in named] == [number + 2 for number in sorted(faulty)]
            decisions = await lines(client, f"{path}/results", format="ndjson")
        last.stop()
        assert last.exit_code == 0

        async def lost() -> bool:
            return any(event["event"] == "batch lost" for event in events_in(paused))

        await eventually_said(lost)

    assert [each["line"] for each in decisions] == [
        number + 2 for number in range(_ROWS) if number not in faulty
    ]
    async with _connected(own_postgres) as connection:

        async def stored() -> bool:
            count = await connection.fetchval("SELECT count(*) FROM predictions")
            return bool(count >= len(decisions))

        await eventually_said(stored)
        records = await connection.fetch("SELECT * FROM predictions")
        counted = await connection.fetchval(
            "SELECT sum(predictions) FROM prediction_rollup WHERE period = 'all'"
        )
    assert counted in (None, len(decisions))
    recorded = {
        (
            str(r["derived_id"]),
            r["loan_id"],
            r["request_id"],
            r["client"],
            r["confidence"],
            r["decided_at"].isoformat().replace("+00:00", "Z"),
        )
        for r in records
    }
    identifier = path.removeprefix("/batches/")
    assert len(records) == len(decisions)
    assert recorded == {
        (
            d["prediction_id"],
            d["input_data"]["Loan_ID"],
            f"batch/{identifier}/{d['line']}",
            "tests",
            d["confidence"],
            d["timestamp"],
        )
        for d in decisions
    }


async def _renewed(server: Server) -> None:
    """Return once the batch's worker has renewed its lease."""
    statement = "SELECT leased_until FROM batch.batches"
    async with _connected(server) as connection:
        before = await connection.fetchval(statement)

        async def asked() -> bool:
            return bool(await connection.fetchval(statement) > before)

        await eventually_said(asked)


async def _decided(client: httpx.AsyncClient, path: str, count: int) -> None:
    async def asked() -> bool:
        return bool((await client.get(path)).json()["decided"] == count)

    await eventually_said(asked)


async def _fence(server: Server) -> int:
    async with _connected(server) as connection:
        return int(await connection.fetchval("SELECT fence FROM batch.batches"))

"""A backup made under load, restored after everything was lost.

Comes before what is tested in ``stack.py``, which so runs on a database that was restored.
"""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from tests.compose.engine import Stack
from tests.compose.load import (
    Ledger,
    drained,
    hold_against,
    loaded,
    now,
    records_since,
)

pytestmark = pytest.mark.system

_LOAD_S = 4.0
_STORED_WITHIN_S = 30.0
_BACKUP = "services/postgres/backup.sh"
_RESTORE = "services/postgres/restore.sh"


async def test_backup_brings_back_decisions_and_audit_log_and_the_stream_adds_to_them(
    stack: Stack, http: httpx.AsyncClient, tmp_path: Path, notes: list[str]
) -> None:
    """Backed up under load; every container and volume removed; decided without a database.

    What was stored when the backup began, and what was decided while there was none, is there
    exactly once.
    """
    since = now()
    dump = tmp_path / "loan.dump"
    before = Ledger(prefix=f"before-{time.time_ns()}")
    async with loaded(http, before):
        await asyncio.sleep(_LOAD_S)
        erased, *_ = settled = set(before.answered.values())
        await _stored(http, since, settled)
        assert (await http.delete(f"/history/{erased}")).status_code == 200
        took_s = await _timed(stack, _BACKUP, str(dump))
    notes.append(f"backup under load: {dump.stat().st_size} bytes in {took_s:.1f} s")
    assert dump.stat().st_mode & 0o077 == 0

    await asyncio.to_thread(stack.destroy)
    await asyncio.to_thread(
        stack.compose, "up", "--detach", "--no-deps", "redis", "inference", "gateway"
    )
    await asyncio.to_thread(stack.wait_healthy)
    meanwhile = Ledger(prefix=f"meanwhile-{time.time_ns()}")
    async with loaded(http, meanwhile):
        took_s = await _timed(stack, _RESTORE, str(dump))
    notes.append(f"restored into an empty database, under load, in {took_s:.1f} s")

    await asyncio.to_thread(stack.compose, "up", "--detach")
    await asyncio.to_thread(stack.wait_healthy)
    await drained(http)
    records = await records_since(http, since)
    ids = [record["prediction_id"] for record in records]
    assert len(ids) == len(set(ids))
    assert settled - set(ids) == {erased}
    assert (await http.get(f"/history/{erased}")).status_code == 410
    assert not meanwhile.failures
    verdict = hold_against(meanwhile, records, fault="decided without a database")
    assert (verdict.missing, verdict.doubled, verdict.unanswered) == (0, 0, 0)
    assert verdict.answered > 100
    notes.append(
        f"there again: {len(settled)} decisions that were stored before the backup;"
        f" and from the stream {verdict.stored} of {verdict.answered} decided meanwhile"
    )


async def test_restore_refuses_a_database_that_is_not_empty(
    stack: Stack, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    """It changes nothing, and everything keeps running."""
    before = await http.get("/statistics")
    dump = tmp_path / "loan.dump"
    assert stack.script(_BACKUP, str(dump)).returncode == 0
    again = stack.script(_BACKUP, str(dump))
    assert again.returncode == 1
    assert "is there already" in again.stderr
    done = stack.script(_RESTORE, str(dump))
    assert done.returncode == 1
    assert "not empty" in done.stderr
    await asyncio.to_thread(stack.wait_healthy)
    after = await http.get("/statistics")
    assert after.json() == before.json()


async def _stored(http: httpx.AsyncClient, since: str, expected: set[str]) -> None:
    """Wait until all of these are in the history."""
    async with asyncio.timeout(_STORED_WITHIN_S):
        while True:
            found = {each["prediction_id"] for each in await records_since(http, since)}
            if expected <= found:
                return
            await asyncio.sleep(0.5)


async def _timed(stack: Stack, script: str, *arguments: str) -> float:
    started_s = time.monotonic()
    done = await asyncio.to_thread(stack.script, script, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - started_s

"""What is done beside the work: erasures reach the chunks, old batches go, webhooks are sent.

Any worker may do it, and several at once: rows are locked, and what is done twice changes nothing.
"""

import base64
import hmac
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import asyncpg
import httpx
from pydantic_core import from_json

from services.batch.checking import checked_rows, faulty_rows, packed_rows
from services.batch.database import Connection, Pool, transaction
from services.batch.jobs import Job
from services.batch.results import ErasedIds, decisions_of, packed_decisions
from services.batch.schemas import Batch
from services.batch.settings import BatchSettings
from shared.observability.logs import get_logger

WEBHOOK_ATTEMPTS: Final = 10
"""The last one is about nine hours after the first."""
_FIRST_PAUSE_S: Final = 60
_WEBHOOK_TIMEOUT_S: Final = 10.0
_log = get_logger(__name__)


# --- Erasure --------------------------------------------------------------------------------------

_NOTES: Final = """
SELECT id, noted_at, prediction_id, loan_id FROM batch.erasures ORDER BY id LIMIT 100
FOR UPDATE SKIP LOCKED
"""
_BY_DECISION: Final = """
SELECT chunk.* FROM batch.chunks AS chunk JOIN batch.batches AS batch ON batch.id = batch_id
WHERE $1 BETWEEN batch.first_id AND batch.last_id
    AND $2 BETWEEN chunk.first_line AND chunk.last_line
FOR UPDATE OF chunk
"""
_BEFORE: Final = """
SELECT id, state FROM batch.batches WHERE created_at < $1 ORDER BY id FOR UPDATE
"""
_CHUNK: Final = "SELECT * FROM batch.chunks WHERE batch_id = $1 AND number = $2 FOR UPDATE"
_NUMBERS: Final = "SELECT number FROM batch.chunks WHERE batch_id = $1 ORDER BY number"
_REWRITE: Final = """
UPDATE batch.chunks SET content = $3, faults = $4, version = version + 1
WHERE batch_id = $1 AND number = $2
"""


async def erase_noted(pool: Pool) -> int:
    """Take out of the chunks what the history has erased; return how many notes are done.

    The notes of an application wait for files that are not read yet. Until a note is done, the API
    hides what it names.
    """
    async with transaction(pool) as connection:
        notes = await connection.fetch(_NOTES)
        done = [note["id"] for note in notes if await _is_erased(connection, note)]
        await connection.execute("DELETE FROM batch.erasures WHERE id = ANY($1)", done)
    return len(done)


async def _is_erased(connection: Connection, note: asyncpg.Record) -> bool:
    prediction_id, loan_id = note["prediction_id"], note["loan_id"]
    if prediction_id is not None:
        erased = ErasedIds(frozenset({str(prediction_id)}), frozenset())
        line = prediction_id.int & 0xFFFF_FFFF
        for chunk in await connection.fetch(_BY_DECISION, prediction_id, line):
            await _rewrite(connection, chunk, erased)
        return True
    erased = ErasedIds(frozenset(), frozenset({loan_id}))
    batches = await connection.fetch(_BEFORE, note["noted_at"])
    if any(batch["state"] in ("queued", "checking") for batch in batches):
        return False
    for batch in batches:
        for row in await connection.fetch(_NUMBERS, batch["id"]):
            # One at a time: all chunks of a batch together may be large.
            [chunk] = await connection.fetch(_CHUNK, batch["id"], row["number"])
            await _rewrite(connection, chunk, erased)
    return True


async def _rewrite(connection: Connection, chunk: asyncpg.Record, erased: ErasedIds) -> None:
    content, faults = _without(chunk, erased)
    if (content, faults) != (chunk["content"], chunk["faults"]):
        await connection.execute(_REWRITE, chunk["batch_id"], chunk["number"], content, faults)


def _without(chunk: asyncpg.Record, erased: ErasedIds) -> tuple[bytes, bytes]:
    """The content and the faults of the chunk without what is erased."""
    content, faults = chunk["content"], chunk["faults"]
    faulty = faulty_rows(faults)
    left_faulty = [row for row in faulty if row.loan_id not in erased.loan_ids]
    if len(left_faulty) < len(faulty):
        faults = packed_rows(left_faulty)
    if chunk["state"] == "checked":
        rows = checked_rows(content)
        left = [row for row in rows if row.application["Loan_ID"] not in erased.loan_ids]
        return (packed_rows(left) if len(left) < len(rows) else content), faults
    lines = decisions_of(content)
    kept = [line for line in lines if not erased.hides(from_json(line.body))]
    return (packed_decisions(kept) if len(kept) < len(lines) else content), faults


# --- Age ------------------------------------------------------------------------------------------


async def delete_old(pool: Pool, *, retention_days: float) -> int:
    """Delete batches that ended so long ago; return how many."""
    async with transaction(pool) as connection:
        deleted = await connection.fetch(
            "DELETE FROM batch.batches WHERE finished_at < now() - make_interval(secs => $1)"
            " RETURNING id",
            retention_days * 86_400,
        )
    return len(deleted)


# --- Webhooks -------------------------------------------------------------------------------------

_DUE: Final = """
UPDATE batch.batches SET
    webhook_attempts = webhook_attempts + 1,
    webhook_due = now() + make_interval(secs => $1 * power(2, webhook_attempts))
WHERE id = (
    SELECT id FROM batch.batches WHERE webhook_due <= now() ORDER BY webhook_due LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING *
"""


async def send_webhook(
    pool: Pool, client: httpx.AsyncClient, settings: BatchSettings
) -> bool | None:
    """Report the end of one batch that is due, and whether that succeeded; None if none is due.

    A failed attempt is repeated after a minute, then after twice as long each time.
    """
    async with transaction(pool) as connection:
        row = await connection.fetchrow(_DUE, _FIRST_PAUSE_S)
    if row is None:
        return None
    job = Job.of(row)
    delivered = await _deliver(client, job, settings)
    if delivered or job.webhook_attempts >= WEBHOOK_ATTEMPTS:
        async with transaction(pool) as connection:
            await connection.execute(
                "UPDATE batch.batches SET webhook_due = NULL WHERE id = $1", job.id
            )
    return delivered


async def _deliver(client: httpx.AsyncClient, job: Job, settings: BatchSettings) -> bool:
    batch = Batch.of(job, retention_days=settings.batch_retention_days)
    body = b'{"type":"batch.%b","data":%b}' % (
        job.state.encode(),
        batch.model_dump_json().encode(),
    )
    try:
        response = await client.post(
            job.webhook or "",
            content=body,
            headers=signed(body, str(job.id), settings),
            timeout=_WEBHOOK_TIMEOUT_S,
            follow_redirects=False,
        )
        delivered, outcome = response.is_success, str(response.status_code)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        delivered, outcome = False, type(error).__name__
    log = _log.info if delivered else _log.warning
    log("webhook sent", batch=str(job.id), attempt=job.webhook_attempts, outcome=outcome)
    return delivered


def signed(body: bytes, message_id: str, settings: BatchSettings) -> dict[str, str]:
    """The headers of a webhook. Source: the specification of Standard Webhooks, version 1."""
    secret = settings.batch_webhook_secret
    timestamp = str(int(datetime.now(UTC).timestamp()))
    text = f"{message_id}.{timestamp}.".encode() + body
    key = secret.get_secret_value().encode() if secret else b""
    signature = base64.b64encode(hmac.digest(key, text, sha256)).decode()
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
    }

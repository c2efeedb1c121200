"""A batch as it is stored, and how a worker has it for itself.

A worker takes a batch for as long as its lease, which it renews. Each time a batch is taken its
fence is counted up, and everything that a worker writes names the number that it got: what a worker
writes that has lost the batch meanwhile (it was paused, or cut off) is refused as ``Lost``.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Final, Literal, Self
from uuid import UUID

import asyncpg

from services.batch.database import Connection, Pool, transaction
from shared.contract.errors import IdempotencyKeyReused
from shared.contract.ids import uuid8
from shared.contract.rollout import Candidate, Rollout

State = Literal["queued", "checking", "running", "done", "failed", "cancelled"]
Kind = Literal["csv", "ndjson", "parquet", "xlsx"]
FaultyRows = Literal["skip", "stop"]
UnknownColumns = Literal["stop", "skip"]

MAX_ATTEMPTS: Final = 10
"""Takes in a row without any progress, after which a batch has failed."""
_LINE_BITS: Final = 32
PIECE_BYTES: Final = 1024 * 1024
"""Of a file as it is stored."""


class Lost(Exception):
    """This worker has the batch no longer: another took it, or it was cancelled or deleted."""


@dataclass(frozen=True)
class Order:
    """What a caller wants done with a file."""

    id: UUID
    client: str
    key_digest: bytes | None
    request_digest: bytes
    kind: Kind
    model: str
    bundle_version: str
    by_rollout: bool
    """Whether no model was named: then the roll-out in force when it is begun decides."""
    record: bool
    faulty_rows: FaultyRows
    spellings: Sequence[str]
    webhook: str | None


@dataclass(frozen=True)
class Job(Order):
    """A batch as it was when it was read."""

    rollout: str | None
    """The roll-out that decides, as JSON."""
    state: State
    problem: str | None
    remarks: Sequence[str]
    rows: int
    faulty: int
    decided: int
    approved: int
    with_warnings: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    fence: int
    attempts: int
    webhook_attempts: int

    @property
    def candidate(self) -> Candidate | None:
        """What decides a share of the rows; a what-if meets the default alone."""
        if not self.record or self.rollout is None:
            return None
        return Rollout.model_validate_json(self.rollout).candidate

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """The batch in a row of ``batch.batches``."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows of a batch.

    ``content`` holds its applications once it is ``checked``, then its decisions; they are
    published until it is ``done``.
    """

    number: int
    state: Literal["checked", "decided", "done"]
    version: int
    content: bytes
    faults: bytes


_ORDER: Final = tuple(Order.__dataclass_fields__)


def decision_id(batch: UUID, line: int) -> UUID:
    """The id of the decision on a line of a batch: the same however often it is decided.

    Those of one batch lie between those of line 0 and of ``LAST_LINE``, and of no other batch.
    """
    prefix = sha256(batch.bytes).digest()[: 16 - _LINE_BITS // 8]
    return uuid8(prefix + line.to_bytes(_LINE_BITS // 8, "big"))


def decision_ids(batch: UUID, lines: Iterable[int]) -> list[str]:
    """The text of each line's ``decision_id``."""
    first = str(decision_id(batch, 0))
    digits = _LINE_BITS // 4
    return [f"{first[:-digits]}{line:0{digits}x}" for line in lines]


LAST_LINE: Final = (1 << _LINE_BITS) - 1


# --- What callers do ------------------------------------------------------------------------------


_CREATE: Final = """
INSERT INTO batch.batches (
    id, client, key_digest, request_digest, kind, model, bundle_version, by_rollout, record,
    faulty_rows, spellings, webhook, first_id, last_id
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (client, key_digest) DO NOTHING
RETURNING *
"""


async def create(pool: Pool, order: Order, pieces: Iterable[bytes]) -> tuple[Job, bool]:
    """Keep the order with its file, all or nothing; the batch, and whether it was there before.

    It was if the client sent the same order under the same key. Raises ``IdempotencyKeyReused``
    if the key names another one.
    """
    ids = decision_id(order.id, 0), decision_id(order.id, LAST_LINE)
    async with transaction(pool) as connection:
        row = await connection.fetchrow(_CREATE, *(getattr(order, name) for name in _ORDER), *ids)
        if row is None:
            row = await connection.fetchrow(
                "SELECT * FROM batch.batches WHERE client = $1 AND key_digest = $2",
                order.client,
                order.key_digest,
            )
            if row is None or row["request_digest"] != order.request_digest:
                raise IdempotencyKeyReused
            return Job.of(row), True
        for number, piece in enumerate(pieces):
            await connection.execute(
                "INSERT INTO batch.uploads VALUES ($1, $2, $3)", order.id, number, piece
            )
        return Job.of(row), False


async def find(pool: Pool, batch: UUID, client: str) -> Job | None:
    """The client's batch of this id."""
    async with transaction(pool) as connection:
        row = await connection.fetchrow(
            "SELECT * FROM batch.batches WHERE id = $1 AND client = $2", batch, client
        )
    return None if row is None else Job.of(row)


async def page(pool: Pool, client: str, *, before: UUID | None, limit: int) -> list[Job]:
    """The client's batches, the newest first."""
    async with transaction(pool) as connection:
        rows = await connection.fetch(
            "SELECT * FROM batch.batches WHERE client = $1 AND ($2::uuid IS NULL OR id < $2)"
            " ORDER BY id DESC LIMIT $3",
            client,
            before,
            limit,
        )
    return [Job.of(row) for row in rows]


async def cancel(pool: Pool, batch: UUID, client: str) -> Job | None:
    """The client's batch, which ends unless it has ended before."""
    async with transaction(pool) as connection:
        await connection.execute(
            "WITH cancelled AS (UPDATE batch.batches SET state = 'cancelled', finished_at = now(),"
            " webhook_due = CASE WHEN webhook IS NOT NULL THEN now() END"
            " WHERE id = $1 AND client = $2 AND active RETURNING id)"
            " DELETE FROM batch.uploads WHERE batch_id IN (SELECT id FROM cancelled)",
            batch,
            client,
        )
        row = await connection.fetchrow(
            "SELECT * FROM batch.batches WHERE id = $1 AND client = $2", batch, client
        )
    return None if row is None else Job.of(row)


# --- What a worker does ---------------------------------------------------------------------------

_TAKE: Final = """
UPDATE batch.batches SET
    fence = fence + 1,
    attempts = attempts + 1,
    leased_until = now() + make_interval(secs => $1),
    served_at = clock_timestamp(),
    state = CASE state WHEN 'queued' THEN 'checking' ELSE state END
WHERE id = (
    SELECT id FROM batch.batches AS candidate
    WHERE active AND (leased_until IS NULL OR leased_until < now())
    ORDER BY
        (
            SELECT max(served_at) FROM batch.batches AS other
            WHERE other.client = candidate.client AND other.active
        ) NULLS FIRST,
        served_at NULLS FIRST,
        id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING *
"""


async def take(pool: Pool, *, lease_s: float) -> Job | None:
    """A batch to work on: of the client, and then the one, that has waited for its turn longest."""
    async with transaction(pool) as connection:
        row = await connection.fetchrow(_TAKE, lease_s)
    return None if row is None else Job.of(row)


async def renew(pool: Pool, job: Job, *, lease_s: float) -> None:
    """Have the batch for another ``lease_s``; raises ``Lost``."""
    async with transaction(pool) as connection:
        done = await connection.execute(
            "UPDATE batch.batches SET leased_until = now() + make_interval(secs => $3)"
            " WHERE id = $1 AND fence = $2",
            job.id,
            job.fence,
            lease_s,
        )
    if done == "UPDATE 0":
        raise Lost


async def release(pool: Pool, job: Job, *, blameless: bool) -> None:
    """Let another worker take the batch; does nothing if it is lost.

    ``blameless`` if it has made progress, or what stopped it is no fault of its own.
    """
    async with transaction(pool) as connection:
        await connection.execute(
            "UPDATE batch.batches SET leased_until = NULL,"
            " attempts = CASE WHEN $3 THEN 0 ELSE attempts END WHERE id = $1 AND fence = $2",
            job.id,
            job.fence,
            blameless,
        )


@asynccontextmanager
async def holding(
    pool: Pool, job: Job, *, ended: bool = False, durable: bool = True
) -> AsyncIterator[Connection]:
    """A transaction in which the batch is this worker's and goes on; raises ``Lost``.

    With ``ended`` it may have been cancelled meanwhile. ``durable`` is that of ``transaction``.
    """
    async with transaction(pool, durable=durable) as connection:
        row = await connection.fetchrow(
            "SELECT active FROM batch.batches WHERE id = $1 AND fence = $2 FOR UPDATE",
            job.id,
            job.fence,
        )
        if row is None or not (row["active"] or ended):
            raise Lost
        yield connection


async def confirm(pool: Pool, job: Job) -> None:
    """Return if the batch is this worker's and goes on; raises ``Lost``."""
    async with holding(pool, job):
        pass


async def fix_rollout(pool: Pool, job: Job, rollout: Rollout) -> Job:
    """The batch, which ``rollout`` decides from its first row to its last; raises ``Lost``."""
    content = rollout.model_dump_json()
    model, bundle = rollout.default.model, rollout.default.bundle
    async with holding(pool, job) as connection:
        await connection.execute(
            "UPDATE batch.batches SET rollout = $2, model = $3, bundle_version = $4 WHERE id = $1",
            *(job.id, content, model, bundle),
        )
    return replace(job, rollout=content, model=model, bundle_version=bundle)


async def read_upload(pool: Pool, job: Job) -> bytes:
    """The whole file."""
    async with transaction(pool) as connection:
        rows = await connection.fetch(
            "SELECT content FROM batch.uploads WHERE batch_id = $1 ORDER BY number", job.id
        )
    return b"".join(row["content"] for row in rows)


async def forget_check(pool: Pool, job: Job) -> None:
    """Delete what an earlier check that was cut off has left."""
    async with holding(pool, job) as connection:
        await connection.execute("DELETE FROM batch.chunks WHERE batch_id = $1", job.id)
        await connection.execute(
            "UPDATE batch.batches SET rows = 0, faulty = 0 WHERE id = $1", job.id
        )


async def add_chunk(
    pool: Pool,
    job: Job,
    number: int,
    *,
    lines: tuple[int, int],
    content: bytes,
    faults: bytes,
    rows: int,
    faulty: int,
) -> None:
    """Keep checked rows, ``lines`` being the first and the last of them; raises ``Lost``."""
    # The end of the check makes it durable: a check that is cut off begins anew.
    async with holding(pool, job, durable=False) as connection:
        await connection.execute(
            "WITH counted AS ("
            "UPDATE batch.batches SET rows = rows + $7, faulty = faulty + $8 WHERE id = $1)"
            " INSERT INTO batch.chunks"
            " (batch_id, number, state, first_line, last_line, content, faults)"
            " VALUES ($1, $2, 'checked', $3, $4, $5, $6)",
            *(job.id, number, *lines, content, faults, rows, faulty),
        )


async def end_check(pool: Pool, job: Job, remarks: Sequence[str]) -> None:
    """All rows are checked: begin deciding, and delete the file; raises ``Lost``."""
    async with holding(pool, job) as connection:
        await connection.execute(
            "UPDATE batch.batches SET state = 'running', started_at = now(), remarks = $2,"
            " attempts = 0 WHERE id = $1",
            job.id,
            list(remarks),
        )
        await connection.execute("DELETE FROM batch.uploads WHERE batch_id = $1", job.id)


async def next_chunk(pool: Pool, job: Job) -> Chunk | None:
    """The first chunk that is not done; None if all are. Raises ``Lost``."""
    async with holding(pool, job, durable=False) as connection:
        row = await connection.fetchrow(
            "SELECT number, state, version, content, faults FROM batch.chunks"
            " WHERE batch_id = $1 AND state <> 'done' ORDER BY number LIMIT 1",
            job.id,
        )
    return None if row is None else Chunk(**row)


async def keep_decisions(pool: Pool, job: Job, chunk: Chunk, content: bytes) -> bool:
    """Keep the decisions before they are published, so that no later attempt makes others.

    False if a row was erased meanwhile; then nothing is kept. Raises ``Lost``.
    """
    async with holding(pool, job) as connection:
        done = await connection.execute(
            "UPDATE batch.chunks SET state = 'decided', content = $4"
            " WHERE batch_id = $1 AND number = $2 AND version = $3 AND state = 'checked'",
            job.id,
            chunk.number,
            chunk.version,
            content,
        )
    return done == "UPDATE 1"


# One statement: each that is sent by itself takes two exchanges with the server.
_END_CHUNK: Final = """
WITH ended AS (
    UPDATE batch.chunks SET state = 'done' WHERE batch_id = $1 AND number = $2
),
counted AS (
    UPDATE batch.batches SET decided = decided + $3, approved = approved + $4,
        with_warnings = with_warnings + $5, attempts = 0
    WHERE id = $1
)
SELECT number, state, version, content, faults FROM batch.chunks
WHERE batch_id = $1 AND number > $2 AND state <> 'done'
    AND (SELECT active FROM batch.batches WHERE id = $1)
ORDER BY number LIMIT 1
"""


async def end_chunk(
    pool: Pool, job: Job, chunk: Chunk, *, decided: int, approved: int, with_warnings: int
) -> Chunk | None:
    """Show and count the decisions of a chunk, which are recorded now; raises ``Lost``.

    They are shown even if the batch was cancelled meanwhile. Returns the next unfinished chunk;
    None after the last one, or once the batch has ended.
    """
    # Undone by a crash, it is done again: the same decisions are published once more.
    async with holding(pool, job, ended=True, durable=False) as connection:
        row = await connection.fetchrow(
            _END_CHUNK, job.id, chunk.number, decided, approved, with_warnings
        )
    return None if row is None else Chunk(**row)


async def end(
    pool: Pool,
    job: Job,
    state: State,
    problem: str | None = None,
    *,
    remarks: Sequence[str] | None = None,
) -> None:
    """End the batch, also instead of ``end_check``; raises ``Lost``."""
    async with holding(pool, job) as connection:
        await connection.execute(
            "UPDATE batch.batches SET state = $2, problem = $3, finished_at = now(),"
            " remarks = coalesce($4, remarks),"
            " webhook_due = CASE WHEN webhook IS NOT NULL THEN now() END"
            " WHERE id = $1",
            job.id,
            state,
            problem,
            None if remarks is None else list(remarks),
        )
        await connection.execute("DELETE FROM batch.uploads WHERE batch_id = $1", job.id)

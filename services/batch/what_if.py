"""What-ifs: another rule on the decisions of a period, a piece at a time.

A worker has a what-if for a lease, which each piece renews. What a piece adds and how far it comes
are written in one statement that names the fence: one that has lost the what-if changes nothing.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

import asyncpg
import numpy as np

from services.batch.database import DATABASE_ERRORS, Pool, transaction
from services.batch.jobs import MAX_ATTEMPTS, Lost
from services.batch.population import (
    DECISION,
    OUTCOME,
    Rows,
    counted,
    find_bundle,
    read,
    scored,
    unscored,
)
from services.scoring.manifest import BundleError
from services.scoring.registry import Bundle
from services.scoring.replay import Bundles
from shared.contract.swaps import ReferBand, Tally, WhatIf, read_tally, tally_json

PIECE_ROWS: Final = 65_536

_TAKE: Final = """
UPDATE what_ifs SET
    fence = fence + 1,
    attempts = attempts + 1,
    leased_until = now() + make_interval(secs => $1),
    state = 'running',
    started_at = coalesce(started_at, now())
WHERE id = (
    SELECT id FROM what_ifs
    WHERE state IN ('queued', 'running') AND (leased_until IS NULL OR leased_until < now())
    ORDER BY id LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING *
"""
_SAVE: Final = """
UPDATE what_ifs SET
    read_to = $3, rows_read = rows_read + $4, tally = $5, attempts = 0,
    leased_until = now() + make_interval(secs => $6)
WHERE id = $1 AND fence = $2
"""
_END: Final = """
UPDATE what_ifs SET state = $3, problem = $4, finished_at = now(), leased_until = NULL
WHERE id = $1 AND fence = $2
"""
_RELEASE: Final = "UPDATE what_ifs SET leased_until = NULL WHERE id = $1 AND fence = $2"
_PIECE: Final = f"""
SELECT {DECISION}, {OUTCOME}, ({{counts}})::int4::int2
FROM predictions LEFT JOIN (
    SELECT decision, outcome FROM current_outcomes WHERE decision >= $1 AND decision < $2
) AS known ON decision = id
WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3
"""  # noqa: S608 - the product's own columns
_COUNTS: Final = "erased_at IS NULL"
_COUNTS_BY: Final = f"{_COUNTS} AND bundle_version = $4 AND model = $5"


@dataclass(frozen=True)
class Taken:
    """A what-if as a worker took it."""

    id: UUID
    order: WhatIf
    fence: int
    attempts: int
    read_to: UUID
    end: UUID
    tally: Tally

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """The what-if in a row of ``what_ifs``."""
        return cls(
            id=row["id"],
            order=WhatIf.model_validate_json(row["content"]),
            fence=row["fence"],
            attempts=row["attempts"],
            read_to=row["read_to"],
            end=row["read_until"],
            tally=read_tally(row["tally"]),
        )


@dataclass(frozen=True)
class WhatIfs:
    """Works what-ifs off, one at a time."""

    pool: Pool
    bundles: Bundles
    lease_s: float
    stopping: asyncio.Event
    count: Callable[[int], None]
    """Called with how many decisions were read."""
    piece_rows: int = PIECE_ROWS

    async def work(self) -> bool:
        """Work on one what-if until its end or ``stopping``; false if there was none.

        Raises ``Lost`` and ``DATABASE_ERRORS``; then another attempt goes on after the last piece.
        """
        async with transaction(self.pool) as connection:
            row = await connection.fetchrow(_TAKE, self.lease_s)
        if row is None:
            return False
        taken = Taken.of(row)
        try:
            if taken.attempts > MAX_ATTEMPTS:
                problem = f"It was given up after {MAX_ATTEMPTS} attempts without progress."
                await self._write(_END, taken, "failed", problem)
            else:
                await self._work(taken)
        except BundleError as error:
            await self._write(_END, taken, "failed", str(error))
        finally:
            # Otherwise the lease expires.
            with suppress(Lost, *DATABASE_ERRORS):
                await self._write(_RELEASE, taken)
        return True

    async def _work(self, taken: Taken) -> None:
        """Read piece after piece, the next one while one is scored."""
        order, tally, read_to = taken.order, taken.tally, taken.read_to
        bundle = await find_bundle(self.bundles, order.arm) if order.arm else None
        reading = asyncio.create_task(self._read(taken, read_to))
        try:
            while len(rows := await reading) and not self.stopping.is_set():
                read_to = UUID(bytes=rows[-1]["id"].tobytes())
                reading = asyncio.create_task(self._read(taken, read_to))
                tally = tally + await asyncio.to_thread(compared, rows, order, bundle)
                await self._write(_SAVE, taken, read_to, len(rows), tally_json(tally), self.lease_s)
                self.count(len(rows))
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError, *DATABASE_ERRORS):
                await reading
        if not len(rows):
            await self._write(_END, taken, "done", None)

    async def _read(self, taken: Taken, read_to: UUID) -> Rows:
        by = taken.order.decided_by
        counts, names = (_COUNTS_BY, (by.bundle, by.model)) if by else (_COUNTS, ())
        async with transaction(self.pool) as connection:
            query = _PIECE.format(counts=counts)
            return await read(connection, query, read_to, taken.end, self.piece_rows, *names)

    async def _write(self, statement: str, taken: Taken, *values: object) -> None:
        async with transaction(self.pool) as connection:
            done = await connection.execute(statement, taken.id, taken.fence, *values)
        if done == "UPDATE 0":
            raise Lost


def compared(rows: Rows, order: WhatIf, bundle: Bundle | None) -> Tally:
    """The counts of those of ``rows`` that count, by the order's rule.

    ``bundle`` is that of the order's model, if it names one.
    """
    rows = rows[rows["counts"] == 1]
    threshold: ReferBand | float | None = order.threshold
    if order.refer is not None:
        threshold = order.refer
    if order.arm is None or bundle is None:
        approved, takes = rows["probability"].astype(np.float64), np.ones(len(rows), np.bool_)
    else:
        approved, takes = scored(rows, bundle, order.arm.model)
        if threshold is None:
            threshold = bundle.models[order.arm.model].threshold
    if threshold is None:
        raise ValueError("an order names a model, a threshold or a band")
    return counted(rows[takes], approved, threshold) + unscored(rows[~takes])

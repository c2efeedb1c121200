"""The audit log: an append-only hash chain, so that a later change shows.

Each row holds a SHA-256 over the previous row's hash (32 zero bytes before the first) and its own
values; see ``digest``. A row that is altered, removed or moved breaks every later hash. Whoever
can rewrite the whole table can also recompute all hashes, except a head that was noted elsewhere:
``python -m services.history.audit [HEAD]`` verifies the chain against such a head.
"""

import asyncio
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.history.database import DATABASE_ERRORS, AdvisoryLock, open_engine, transaction
from services.history.errors import StoreUnavailable
from services.history.settings import HistorySettings
from services.history.tables import AnyRow, audit_log
from shared.observability.logs import take_over_output
from shared.settings import read_settings_or_exit

_HASHED: Final = ("id", "occurred_at", "actor", "action", "subject", "details")


class Broken(Exception):
    """The chain is broken; the message names the first row at fault."""


class Head(NamedTuple):
    """The newest row of the log; noted elsewhere, the chain can be verified against it later."""

    id: int
    hash: bytes

    def __str__(self) -> str:
        """The form that ``parse_head`` reads."""
        return f"{self.id}:{self.hash.hex()}"


_BEFORE_THE_FIRST: Final = Head(0, bytes(32))


def parse_head(text: str) -> Head:
    """The head written as ``text``; raises ``ValueError`` with the expected form."""
    if not re.fullmatch(r"\d{1,18}:[0-9a-f]{64}", text):
        raise ValueError("A head looks like 12:9f86d0…: a row number, a colon, 64 hex digits.")
    number, _, digits = text.partition(":")
    return Head(int(number), bytes.fromhex(digits))


class Turn(NamedTuple):
    """The right to append the next row, until the transaction ends.

    ``occurred_at`` is read from the database's clock: the rows' times run backwards only if that
    clock does.
    """

    head: Head
    occurred_at: datetime


async def take_turn(connection: AsyncConnection) -> Turn:
    """Wait until no other transaction is appending.

    A transaction that takes its turn first runs after all others of its kind, so they cannot
    deadlock.
    """
    await connection.execute(select(func.pg_advisory_xact_lock(AdvisoryLock.AUDIT_LOG)))
    newest = select(audit_log.c.id, audit_log.c.hash).order_by(audit_log.c.id.desc()).limit(1)
    row = (await connection.execute(newest)).one_or_none()
    head = _BEFORE_THE_FIRST if row is None else Head(row.id, row.hash)
    return Turn(head, (await connection.execute(select(func.clock_timestamp()))).scalar_one())


async def append(
    connection: AsyncConnection,
    turn: Turn,
    *,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, object],
) -> Head:
    """Append one row in the transaction of ``connection``; return the new head.

    The id is one more than the head's, not a sequence's next, so a failed transaction leaves no
    gap.
    """
    values = (turn.head.id + 1, turn.occurred_at, actor, action, subject, json.dumps(details))
    head = Head(values[0], digest(turn.head.hash, values))
    row = dict(zip(_HASHED, values, strict=True))
    await connection.execute(
        insert(audit_log).values(**row, previous_hash=turn.head.hash, hash=head.hash)
    )
    return head


def digest(previous_hash: bytes, values: Sequence[object]) -> bytes:
    """SHA-256 over the previous hash, then id, time, actor, action, subject and details as JSON.

    The JSON is an ASCII array without white space; the time is ISO 8601 in UTC, to the
    microsecond.
    """
    encoded = json.dumps(list(values), separators=(",", ":"), default=_iso)
    return hashlib.sha256(previous_hash + encoded.encode("ascii")).digest()


def _iso(value: Any) -> str:
    moment: datetime = value
    return moment.isoformat(timespec="microseconds")


async def verify(engine: AsyncEngine, noted: Head | None = None) -> Head:
    """Verify the whole chain in constant memory; return its head or raise ``Broken``.

    Rows removed from the end are detected only with ``noted``, a head as old as or newer than they
    are.
    """
    head = _BEFORE_THE_FIRST
    async with (
        transaction(engine) as connection,
        connection.stream(select(audit_log).order_by(audit_log.c.id)) as rows,
    ):
        async for row in rows:
            head = _next(head, row)
            if noted is not None and noted.id == head.id and noted != head:
                raise Broken(f"row {head.id} is not the one that was noted")
    if noted is not None and noted.id > head.id:
        raise Broken(f"it ends at row {head.id}, but row {noted.id} was noted")
    return head


def _next(head: Head, row: AnyRow) -> Head:
    if row.id > head.id + 1:
        raise Broken(f"row {head.id + 1} is missing")
    if row.id <= head.id:
        raise Broken(f"row {row.id} is a duplicate or out of place")
    if row.hash != digest(row.previous_hash or b"", [getattr(row, name) for name in _HASHED]):
        raise Broken(f"row {row.id} was altered")
    if row.previous_hash != head.hash:
        raise Broken(f"row {row.id} does not follow the row before it; one of them was replaced")
    return Head(row.id, row.hash)


async def _verify(settings: HistorySettings, noted: Head | None) -> Head:
    engine = open_engine(settings, name="history-audit", pool_size=1)
    try:
        return await verify(engine, noted)
    finally:
        await engine.dispose()


def main(arguments: Sequence[str]) -> int:
    """Verify; exit code 0 if the chain is intact, else 1 with the reason on one line."""
    take_over_output()
    settings = read_settings_or_exit(HistorySettings)
    try:
        noted = parse_head(arguments[0]) if arguments else None
        head = asyncio.run(_verify(settings, noted))
    except Broken as error:
        print(f"The audit log is not intact: {error}.", file=sys.stderr)
    except ValueError as error:
        print(error, file=sys.stderr)
    except (*DATABASE_ERRORS, StoreUnavailable) as error:
        reason = getattr(error, "orig", error)  # without the SQL statement
        print(f"Cannot read the audit log of {settings.database_url!r}: {reason}", file=sys.stderr)
    else:
        found = "" if noted is None else ", and the noted one is among them"
        print(f"The audit log is intact: {head.id} rows{found}.\nIts head is {head}")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

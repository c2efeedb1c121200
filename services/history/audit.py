"""The audit log: rows that are only ever added, in a chain that shows any later change.

Each row holds a SHA-256 over the hash of the row before it (32 zero bytes before the first) and
its own values; see ``digest``. So a row cannot be altered, removed or moved without every later
hash being wrong. Who may rewrite the whole table could make all of them right again, except the
ones that somebody noted elsewhere: ``python -m services.history.audit [HEAD]`` goes along the
chain and holds it against such a note.
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

from services.history.database import DATABASE_ERRORS, open_engine, transaction
from services.history.errors import StoreUnavailable
from services.history.settings import HistorySettings
from services.history.tables import AnyRow, audit_log
from shared.observability.logs import take_over_output
from shared.settings import read_settings_or_exit

_LOCK_KEY: Final = 0x10A2_A0D1
"""Names the lock that whoever appends holds; see ``migrate`` for the other of its kind."""

_HASHED: Final = ("id", "occurred_at", "actor", "action", "subject", "details")


class Broken(Exception):
    """The chain does not hold; the message names the first row at fault."""


class Head(NamedTuple):
    """A row of the log, as a note that the chain can be held against later."""

    id: int
    hash: bytes

    def __str__(self) -> str:
        """The form in which it is printed and read."""
        return f"{self.id}:{self.hash.hex()}"


_BEFORE_THE_FIRST: Final = Head(0, bytes(32))


def parse_head(text: str) -> Head:
    """The head that ``text`` notes; raises ``ValueError`` saying what it should look like."""
    if not re.fullmatch(r"\d{1,18}:[0-9a-f]{64}", text):
        raise ValueError("A head looks like 12:9f86d0…, as it is printed: a number, 64 hex digits.")
    number, _, digits = text.partition(":")
    return Head(int(number), bytes.fromhex(digits))


class Turn(NamedTuple):
    """The right to append the next row, until the transaction ends; and the time, the database's.

    The times of the rows never run backwards unless that clock does.
    """

    head: Head
    occurred_at: datetime


async def take_turn(connection: AsyncConnection) -> Turn:
    """Wait until nobody else is appending.

    Taken first in a transaction, it also puts all those transactions in a row, so that they never
    wait for each other's locks in a ring.
    """
    await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_KEY)))
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
    """Append one row in the transaction of ``connection``; the new head.

    The id is the head's and one, not a sequence's next, so a transaction that fails leaves no gap.
    """
    values = (turn.head.id + 1, turn.occurred_at, actor, action, subject, json.dumps(details))
    head = Head(values[0], digest(turn.head.hash, values))
    row = dict(zip(_HASHED, values, strict=True))
    await connection.execute(
        insert(audit_log).values(**row, previous_hash=turn.head.hash, hash=head.hash)
    )
    return head


def digest(previous_hash: bytes, values: Sequence[object]) -> bytes:
    """SHA-256 over the hash before, and id, time, actor, action, subject and details as JSON.

    The JSON is an array without white space, in ASCII; the time is ISO 8601 in UTC to the
    microsecond.
    """
    encoded = json.dumps(list(values), separators=(",", ":"), default=_iso)
    return hashlib.sha256(previous_hash + encoded.encode("ascii")).digest()


def _iso(value: Any) -> str:
    moment: datetime = value
    return moment.isoformat(timespec="microseconds")


async def verify(engine: AsyncEngine, noted: Head | None = None) -> Head:
    """The head of the chain, having gone along all of it in constant memory; raises ``Broken``.

    Rows that were taken off the end are missed only if their like stands in ``noted``, a head of
    any earlier time.
    """
    head = _BEFORE_THE_FIRST
    async with (
        transaction(engine) as connection,
        connection.stream(select(audit_log).order_by(audit_log.c.id)) as rows,
    ):
        async for row in rows:
            head = _next(head, row)
            if noted is not None and noted.id == head.id and noted != head:
                raise Broken(f"row {head.id} is another one than was noted")
    if noted is not None and noted.id > head.id:
        raise Broken(f"row {head.id + 1} is missing, and all up to {noted.id}, which was noted")
    return head


def _next(head: Head, row: AnyRow) -> Head:
    if row.id > head.id + 1:
        raise Broken(f"row {head.id + 1} is missing")
    if row.id <= head.id:
        raise Broken(f"row {row.id} is there twice, or should not be there")
    if row.hash != digest(row.previous_hash or b"", [getattr(row, name) for name in _HASHED]):
        raise Broken(f"row {row.id} was altered")
    if row.previous_hash != head.hash:
        raise Broken(f"row {row.id} does not follow the row before it: one of them was replaced")
    return Head(row.id, row.hash)


async def _verify(settings: HistorySettings, noted: Head | None) -> Head:
    engine = open_engine(
        settings.database_url,
        name="history-audit",
        pool_size=1,
        connect_timeout_s=settings.database_connect_timeout_s,
        command_timeout_s=settings.database_command_timeout_s,
    )
    try:
        return await verify(engine, noted)
    finally:
        await engine.dispose()


def main(arguments: Sequence[str]) -> int:
    """Verify; the exit code is 0 if the chain holds, else 1 with one line saying why not."""
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
        said = getattr(error, "orig", error)  # without the statement around it
        print(f"Cannot read the audit log of {settings.database_url!r}: {said}", file=sys.stderr)
    else:
        held = "" if noted is None else ", and the noted one is among them"
        print(f"The audit log is intact: {head.id} rows{held}.\nIts head is {head}")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

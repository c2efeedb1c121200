"""The connection to PostgreSQL. Every statement is part of a transaction.

A pooler that gives each transaction another session keeps a statement and its preparation together
only there; nothing else of a session is relied on.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from services.batch.settings import BatchSettings
from shared.contract.errors import TryAgain

DATABASE_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
"""What a statement may raise. A refused connection and a timeout are plain ``OSError``; a COMMIT
raises the third if the server has just ended the session."""

IDLE_S: Final = 10
"""How long a transaction may send nothing before PostgreSQL ends its session: less than a lease, so
that a worker that is frozen in one keeps no batch locked."""

_BEGIN: Final = f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_S}s'"
_OUTAGE_CLASSES: Final = ("08", "25", "40", "53", "55", "57", "58")
"""SQLSTATE classes of a server that is away, read-only, busy, full or shutting down."""

Connection = asyncpg.pool.PoolConnectionProxy
Pool = asyncpg.Pool


class BatchesUnavailable(TryAgain):
    """PostgreSQL does not answer."""

    title = "Batches unavailable"


def open_pool(settings: BatchSettings, *, name: str, size: int) -> Pool:
    """At most ``size`` connections, each opened on first use; ``name`` shows on the server.

    Enter it before use; it connects to nothing yet.
    """
    return asyncpg.create_pool(
        settings.database_url,
        min_size=0,
        max_size=size,
        timeout=settings.database_connect_timeout_s,
        command_timeout=settings.database_command_timeout_s,
        statement_cache_size=0,
        reset=_nothing_to_reset,
        server_settings={"application_name": name},
    )


async def _nothing_to_reset(_connection: object) -> None:
    """Nothing outlives a transaction: to have the server reset its session takes an exchange."""


@asynccontextmanager
async def transaction(pool: Pool, *, durable: bool = True) -> AsyncIterator[Connection]:
    """A connection in a transaction that is committed unless the block raises.

    Unless it is ``durable``, a crash of the server in the next moments may undo it, and all that
    came after it; the next durable one makes it durable, too. Raises ``DATABASE_ERRORS``.
    """
    begin = _BEGIN if durable else f"{_BEGIN}; SET LOCAL synchronous_commit = off"
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(begin)
        yield connection


@asynccontextmanager
async def reporting_outages() -> AsyncIterator[None]:
    """Turn an outage of the database into ``BatchesUnavailable``."""
    try:
        yield
    except DATABASE_ERRORS as error:
        if not is_outage(error):
            raise
        raise BatchesUnavailable("The database does not answer; try again shortly.") from error


def is_outage(error: BaseException) -> bool:
    """Whether the same statement may succeed later; false for a defect of the statement."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_OUTAGE_CLASSES)
    return isinstance(error, DATABASE_ERRORS)


async def ping(pool: Pool) -> str:
    """The schema's revision; raises if the database is away or not migrated."""
    async with transaction(pool) as connection:
        revision: str = await connection.fetchval("SELECT version_num FROM alembic_version")
        await connection.execute("SELECT FROM batch.batches LIMIT 0")
    return f"schema {revision}"

"""The connection to PostgreSQL, and what its failures mean."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

from sqlalchemy import URL, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services.history.errors import StoreUnavailable

DATABASE_ERRORS: Final = (DBAPIError, PoolTimeout, OSError)
"""Whatever a statement may raise; a refused connection is a plain ``OSError``, and so is a
timeout."""

_DATA_CLASSES: Final = ("22", "23", "54")
"""SQLSTATE classes that the values themselves cause: data exception, integrity violation and
program limit exceeded (a value too large to index)."""

_OUTAGE_CLASSES: Final = ("08", "25", "40", "53", "55", "57", "58")
"""SQLSTATE classes of a server that is away, read-only, busy, full or shutting down."""


_DISK_FULL: Final = "53100"
_TOO_MANY_CONNECTIONS: Final = "53300"
_CONNECTION_CLASSES: Final = ("08", "57P")
"""Beginnings of the SQLSTATE of a connection that is refused or that the server ended."""

FailureReason = Literal["disk_full", "connections", "refused", "other"]


def open_engine(
    url: URL,
    *,
    name: str,
    pool_size: int,
    connect_timeout_s: float,
    command_timeout_s: float,
    ping_first: bool = True,
) -> AsyncEngine:
    """An engine of at most ``pool_size`` connections; nothing is dialled before the first use.

    Each statement is a transaction of its own: no caller here needs two to agree, and BEGIN and
    COMMIT would cost a round trip each. ``name`` shows in ``pg_stat_activity``. With
    ``ping_first`` a connection that the server closed is replaced before it is used, so a
    restarted server is found again without an error; who repeats failed statements can save it.
    """
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=connect_timeout_s,
        pool_pre_ping=ping_first,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,  # they are people's incomes and do not belong in a log
        connect_args={
            "timeout": connect_timeout_s,
            "command_timeout": command_timeout_s,
            "server_settings": {
                "application_name": name,
                # The filters' values differ in selectivity by orders of magnitude, so each is
                # planned for itself; compiling plans costs more than these short queries.
                "plan_cache_mode": "force_custom_plan",
                "jit": "off",
            },
        },
    )


def is_data_error(error: Exception) -> bool:
    """Whether the server refused the values themselves, so that repeating cannot help."""
    return _sqlstate(error)[:2] in _DATA_CLASSES


def is_outage(error: Exception) -> bool:
    """Whether the same statement may well succeed later; false for a defect of ours."""
    if isinstance(error, DBAPIError) and not error.connection_invalidated:
        # Without a SQLSTATE the driver itself failed: the connection broke.
        sqlstate = _sqlstate(error)
        return not sqlstate or sqlstate[:2] in _OUTAGE_CLASSES
    return isinstance(error, DATABASE_ERRORS)


def reason_of(error: Exception) -> FailureReason:
    """What a statement failed for: no space, no (lasting) connection, its values, or else."""
    sqlstate = _sqlstate(error)
    if is_data_error(error):
        return "refused"
    if sqlstate == _DISK_FULL:
        return "disk_full"
    # Without a SQLSTATE nothing came back from the server.
    if sqlstate in ("", _TOO_MANY_CONNECTIONS) or sqlstate.startswith(_CONNECTION_CLASSES):
        return "connections"
    return "other"


@asynccontextmanager
async def connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection for reading; raises ``StoreUnavailable`` when there is none to be had."""
    try:
        async with engine.connect() as opened:
            yield opened
    except DATABASE_ERRORS as error:
        if not is_outage(error):
            raise
        raise StoreUnavailable("The database does not answer; try again shortly.") from error


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction, which is committed at the end unless something is raised.

    Raises ``StoreUnavailable`` when there is none to be had; it may be committed all the same if
    the connection broke at the very end.
    """
    async with connection(engine) as opened:
        await opened.execution_options(isolation_level="READ COMMITTED")
        async with opened.begin():
            yield opened


@asynccontextmanager
async def alone(engine: AsyncEngine, lock_key: int) -> AsyncIterator[bool]:
    """Whether no other session holds the lock ``lock_key``; if so, this one holds it to the end.

    Raises ``DATABASE_ERRORS``.
    """
    async with engine.connect() as opened:
        try:
            yield (await opened.execute(select(func.pg_try_advisory_lock(lock_key)))).scalar_one()
        finally:
            # The lock ends with the session, in whatever state that is.
            await opened.invalidate()


async def ping(engine: AsyncEngine) -> str:
    """The schema's revision; raises when the database is away or was never migrated."""
    async with engine.connect() as opened:
        revision: str = (
            await opened.execute(text("SELECT version_num FROM alembic_version"))
        ).scalar_one()
    return f"schema {revision}"


def _sqlstate(error: Exception) -> str:
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""

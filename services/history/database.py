"""The connection to PostgreSQL, and what its failures mean."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from enum import IntEnum
from typing import Any, Final, Literal

import asyncpg
from sqlalchemy import Dialect, Select, Table, column, event, func, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services.history.errors import StoreUnavailable
from services.history.settings import HistorySettings
from shared.observability.logs import get_logger

DATABASE_ERRORS: Final = (DBAPIError, PoolTimeout, OSError)
"""What a statement may raise; a refused connection and a timeout are plain ``OSError``."""

_DATA_CLASSES: Final = ("22", "23", "54")
"""SQLSTATE classes that the values cause: data exception, integrity violation, and program limit
exceeded (a value too large to index)."""

_OUTAGE_CLASSES: Final = ("08", "25", "40", "53", "55", "57", "58")
"""SQLSTATE classes of a server that is away, read-only, busy, full or shutting down."""

_DISK_FULL: Final = "53100"
_TOO_MANY_CONNECTIONS: Final = "53300"
_CONNECTION_CLASSES: Final = ("08", "57P")
"""Prefixes of the SQLSTATE of a connection that the server refused or closed."""

FailureReason = Literal["disk_full", "connections", "refused", "other"]


_UNPREPARED: Final[dict[str, Any]] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
}

# The selectivity of a filter depends on its value by orders of magnitude, so each query is planned
# with its values. Compiling these short queries does not pay.
_SESSION: Final = "SET plan_cache_mode = force_custom_plan; SET jit = off"

_log = get_logger(__name__)


class Unstorable(Exception):
    """The values themselves are refused, so a retry cannot help; the message says why."""


class AdvisoryLock(IntEnum):
    """Keys of PostgreSQL's advisory locks, which every version of the product must share."""

    MIGRATION = 0x10A2_5EED
    """One process migrates the schema; others wait, then find it up to date."""
    AUDIT_LOG = 0x10A2_A0D1
    """One transaction at a time appends to the audit log; others wait."""
    RETENTION = 0x10A2_0A6E
    """One process erases what is too old; others leave the work to it."""
    ROLLOUT_GUARD = 0x10A2_69A5
    """One process guards the roll-out."""


def open_engine(
    settings: HistorySettings, *, name: str, pool_size: int, ping_first: bool = True
) -> AsyncEngine:
    """An engine of at most ``pool_size`` connections, each opened on first use.

    Each statement is a transaction of its own: BEGIN and COMMIT would cost a round trip each.
    ``name`` shows in ``pg_stat_activity``. With ``ping_first`` a connection that the server has
    closed is replaced before it is used, so that a restart of the server causes no error; a
    caller that repeats failed statements can do without the ping.
    """
    connect_timeout_s = settings.database_connect_timeout_s
    engine = create_async_engine(
        settings.database_url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=connect_timeout_s,
        pool_pre_ping=ping_first,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,  # they are people's incomes and do not belong in a log
        connect_args={
            "timeout": connect_timeout_s,
            "command_timeout": settings.database_command_timeout_s,
            "server_settings": {"application_name": name},
        },
    )
    adapt_to_poolers(engine)
    return engine


def adapt_to_poolers(engine: AsyncEngine) -> None:
    """Make ``engine`` work behind a pooler that gives each transaction another session.

    A prepared statement belongs to one session, and a pooler refuses most parameters at the start
    of a connection. So each new connection finds out whether it is one to the server itself: the
    process that answers is then the one that accepted it. If so, statements are prepared once and
    the session gets its parameters; otherwise each statement is prepared anew, without a name, in
    the same transaction as it is executed, which poolers keep together.
    """
    pooled = False

    def connect(
        dialect: Dialect, _record: object, arguments: list[Any], options: dict[str, Any]
    ) -> Any:
        nonlocal pooled
        if not pooled:
            opened: Any = dialect.connect(*arguments, **options)
            try:
                pooled = not opened.run_async(_set_up_session)
            except BaseException as error:
                opened.terminate()
                if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
                    raise dialect.loaded_dbapi.OperationalError(str(error)) from error
                raise
            if not pooled:
                return opened
            opened.close()
            _log.info("the database is behind a pooler: statements are not kept prepared")
        return dialect.connect(*arguments, **options, **_UNPREPARED)

    event.listen(engine.sync_engine, "do_connect", connect)


async def _set_up_session(driver: asyncpg.Connection) -> bool:
    """Set the session's parameters, and return True; False if a pooler lends out sessions."""
    process = await (await driver.prepare("SELECT pg_backend_pid()", name="")).fetchval()
    if process != driver.get_server_pid():
        return False
    await driver.execute(_SESSION)
    return True


def is_data_error(error: BaseException) -> bool:
    """Whether the server refused the values themselves, so that a retry cannot help."""
    return _sqlstate(error)[:2] in _DATA_CLASSES


def is_outage(error: Exception) -> bool:
    """Whether the same statement may succeed later; false for a defect of the statement."""
    if isinstance(error, DBAPIError) and not error.connection_invalidated:
        # Without a SQLSTATE the driver itself failed: the connection broke.
        sqlstate = _sqlstate(error)
        return not sqlstate or sqlstate[:2] in _OUTAGE_CLASSES
    return isinstance(error, DATABASE_ERRORS)


def reason_of(error: Exception) -> FailureReason:
    """Why a statement failed, as the label of a metric."""
    sqlstate = _sqlstate(error)
    if isinstance(error, Unstorable):
        return "refused"
    if sqlstate == _DISK_FULL:
        return "disk_full"
    # Without a SQLSTATE nothing came back from the server.
    if sqlstate in ("", _TOO_MANY_CONNECTIONS) or sqlstate.startswith(_CONNECTION_CLASSES):
        return "connections"
    return "other"


@contextmanager
def reporting_outages() -> Iterator[None]:
    """Turn an outage of the database into ``StoreUnavailable``."""
    try:
        yield
    except DATABASE_ERRORS as error:
        if not is_outage(error):
            raise
        raise StoreUnavailable("The database does not answer; try again shortly.") from error


@asynccontextmanager
async def connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection for reading; raises ``StoreUnavailable``."""
    with reporting_outages():
        async with engine.connect() as opened:
            yield opened


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction that is committed unless the block raises.

    Raises ``StoreUnavailable``; if the connection broke during the commit, the transaction may be
    committed all the same.
    """
    with reporting_outages():
        async with _begin(engine) as opened:
            yield opened


def rows_as_select(
    table: Table, names: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Select[*tuple[Any, ...]]:
    """A query that gives ``rows``, in order, with the types of these columns of ``table``.

    One statement of one parameter per column; a statement per row takes ten times as long.
    """
    columns = [table.c[name] for name in names]
    arrays = [
        literal([row[place] for row in rows], ARRAY(each.type))
        for place, each in enumerate(columns)
    ]
    given = (
        func.unnest(*arrays)
        .table_valued(*(column(each.name, each.type) for each in columns), with_ordinality="place")
        .render_derived("given")
    )
    return select(*(given.c[name] for name in names)).order_by(given.c.place)


@asynccontextmanager
async def try_lock(engine: AsyncEngine, lock: AdvisoryLock) -> AsyncIterator[bool]:
    """Whether this process holds ``lock`` during the block; false if another one does.

    The lock belongs to an open transaction, not to the session, so that it also works behind a
    pooler that gives each transaction another session. Raises ``DATABASE_ERRORS``.
    """
    async with _begin(engine) as opened:
        yield (await opened.execute(select(func.pg_try_advisory_xact_lock(lock)))).scalar_one()


@asynccontextmanager
async def _begin(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as opened:
        await opened.execution_options(isolation_level="READ COMMITTED")
        async with opened.begin():
            yield opened


async def ping(engine: AsyncEngine) -> str:
    """The schema's revision; raises if the database is away or not migrated."""
    async with engine.connect() as opened:
        revision: str = (
            await opened.execute(text("SELECT version_num FROM alembic_version"))
        ).scalar_one()
    return f"schema {revision}"


def _sqlstate(error: BaseException) -> str:
    return getattr(getattr(error, "orig", error), "sqlstate", None) or ""

"""Bring the database to the newest schema: ``python -m services.history.migrate``."""

import asyncio
import sys
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, NullPool, func, select
from sqlalchemy.ext.asyncio import create_async_engine

from services.history.database import DATABASE_ERRORS, AdvisoryLock, adapt_to_poolers
from services.history.settings import HistorySettings
from shared.observability.logs import get_logger, take_over_output
from shared.settings import read_settings_or_exit

_SCRIPTS: Final = Path(__file__).parent / "migrations"
_log = get_logger("services.history.migrate")


async def migrate(url: URL) -> None:
    """Upgrade the database at ``url`` to the newest revision, in one transaction.

    Safe to run from several processes at once: one works, the others wait and find it done.
    Raises whatever the database or the driver raises; nothing is changed then.
    """
    engine = create_async_engine(url, poolclass=NullPool)
    adapt_to_poolers(engine)
    try:
        async with engine.begin() as connection:
            await connection.execute(select(func.pg_advisory_xact_lock(AdvisoryLock.MIGRATION)))
            await connection.run_sync(upgrade)
    finally:
        await engine.dispose()


def upgrade(connection: Connection) -> None:
    """Bring the database behind ``connection`` to the newest revision, in its transaction."""
    command.upgrade(config_for(connection), "head")


def config_for(connection: Connection) -> Config:
    """What Alembic needs to know to work on ``connection``."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def main() -> int:
    """Migrate; the exit code is 0 when the schema is up to date, 1 with one line when not."""
    take_over_output()
    settings = read_settings_or_exit(HistorySettings)
    try:
        asyncio.run(migrate(settings.database_url))
    except DATABASE_ERRORS as error:
        _log.critical("cannot migrate", database=repr(settings.database_url), error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

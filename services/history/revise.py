"""Write the migration to the tables as they are defined: ``python -m services.history.revise``.

Its argument is the name of the migration, such as ``"Record the age"``.
"""

import asyncio
import re
import sys
from collections.abc import Sequence
from typing import Any

from alembic import command
from alembic.autogenerate import comparators, compare_metadata
from alembic.autogenerate.api import AutogenContext
from alembic.migration import MigrationContext
from alembic.operations.ops import CreateCheckConstraintOp, DropConstraintOp, ModifyTableOps
from alembic.script import ScriptDirectory
from sqlalchemy import URL, CheckConstraint, Connection, NullPool, Table
from sqlalchemy.ext.asyncio import create_async_engine

from services.history.migrate import config_for, upgrade
from services.history.settings import HistorySettings
from services.history.tables import metadata
from shared.settings import read_settings_or_exit


@comparators.dispatch_for("table")
def compare_checks(
    _context: AutogenContext,
    operations: ModifyTableOps,
    _schema: str | None,
    _table: str,
    there: Table | None,
    defined: Table | None,
) -> None:
    """Renew each check constraint whose text has changed: Alembic compares none by itself."""
    if there is None or defined is None:
        return
    old, new = _checks(there), _checks(defined)
    for text in old.keys() - new.keys():
        operations.ops.append(DropConstraintOp.from_constraint(old[text]))
    for text in new.keys() - old.keys():
        operations.ops.append(CreateCheckConstraintOp.from_constraint(new[text]))


def _checks(table: Table) -> dict[str, CheckConstraint]:
    # PostgreSQL keeps the meaning of a condition, and writes its own brackets and line breaks.
    return {
        re.sub(r"[\s()]", "", str(constraint.sqltext)): constraint
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }


async def revise(url: URL, name: str) -> bool:
    """Write the migration from the newest revision to the tables; false if they agree already.

    The database at ``url`` is asked what the migrations lead to, and left as it was.
    """
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection, connection.begin() as transaction:
            written = await connection.run_sync(_write, name)
            await transaction.rollback()
            return written
    finally:
        await engine.dispose()


def _write(connection: Connection, name: str) -> bool:
    upgrade(connection)
    if not differences(connection):
        return False
    config = config_for(connection)
    head = ScriptDirectory.from_config(config).get_current_head()
    command.revision(config, name, autogenerate=True, rev_id=f"{int(head or 0) + 1:04}")
    return True


def differences(connection: Connection) -> list[Any]:
    """What would have to change in the database to make its tables those that are defined."""
    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    return list(compare_metadata(context, metadata))


def main(arguments: Sequence[str]) -> int:
    """Write a migration; the exit code is 1 if there is nothing to migrate."""
    settings = read_settings_or_exit(HistorySettings)
    if asyncio.run(revise(settings.database_url, " ".join(arguments))):
        return 0
    print("The migrations lead to the tables already; nothing was written.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

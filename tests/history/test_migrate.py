"""The migrations: they lead to the tables, from anywhere, at the same time too."""

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from services.history import migrate as migrating
from services.history.database import ping
from services.history.migrate import migrate
from services.history.settings import HistorySettings
from services.history.tables import metadata
from tests.harness import HOST, free_port
from tests.history.conftest import engine_of


async def test_migrations_lead_to_the_tables_even_when_run_at_once(
    empty_database_url: str,
) -> None:
    """Four migrations at once, and one more, leave exactly the tables that the code names."""
    settings = HistorySettings(database_url=empty_database_url)
    await asyncio.gather(*(migrate(settings.database_url) for _ in range(4)))
    await migrate(settings.database_url)

    engine = engine_of(settings)
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    assert await ping(engine) == "schema 0002"
    await engine.dispose()


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True}
    )
    return list(compare_metadata(context, metadata))


def test_migrating_without_a_database_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unreachable database ends the command with 1 and says which one it was."""
    url = f"postgresql://me:hunter2@{HOST}:{free_port()}/loans"
    monkeypatch.setenv("DATABASE_URL", url)
    assert migrating.main() == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "cannot migrate" in said
    assert HOST in said
    assert "hunter2" not in said

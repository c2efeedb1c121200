"""The migrations lead to the tables, from any revision, also when run concurrently."""

import asyncio

import pytest
from alembic import command
from sqlalchemy import Connection, column, insert, inspect, table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import migrate as migrating
from services.history.database import is_outage, ping, transaction
from services.history.migrate import config_for, migrate
from services.history.queries import read_one
from services.history.recorder import decode, store
from services.history.records import COLUMNS, record_of
from services.history.revise import differences
from services.history.settings import HistorySettings
from services.history.tables import PERSONAL, AnyRow, predictions
from tests.harness import HOST, free_port
from tests.history.conftest import engine_of
from tests.history.events import body_of, random_events, row_of
from tests.history.recount import recount_by_day
from tests.history.storage import NEWEST_REVISION
from tests.history.test_daily import BUNDLE, EDGES, MANIFEST, changed


async def test_migrations_lead_to_the_tables_even_when_run_at_once(
    empty_database_url: str,
) -> None:
    """Four migrations at once, and one more, leave exactly the tables that the code names."""
    settings = HistorySettings(database_url=empty_database_url)
    await asyncio.gather(*(migrate(settings.database_url) for _ in range(4)))
    await migrate(settings.database_url)

    engine = engine_of(settings)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    assert await ping(engine) == f"schema {NEWEST_REVISION}"
    await engine.dispose()


async def test_upgrade_keeps_the_rows_that_are_there(empty_database_url: str) -> None:
    """Rows of the first schema are the same records after the last migration, and can be erased."""
    settings = HistorySettings(database_url=empty_database_url)
    engine = engine_of(settings)
    events = random_events(50, seed=91, reasons=None, reasons_basis=None)
    events[::2] = [changed(event) for event in events[::2]]
    async with transaction(engine) as connection:
        await connection.run_sync(_upgrade_to, "0001")
        there = await connection.run_sync(lambda sync: inspect(sync).get_columns(predictions.name))
        names = {column["name"] for column in there} & set(COLUMNS)
        # The first schema has no null for an empty list.
        no_texts: dict[str, list[str]] = {"imputed": [], "warnings": []}
        rows = [
            {name: no_texts.get(name) if value is None else value for name, value in row}
            for row in (zip(COLUMNS, decode(body_of(event)), strict=True) for event in events)
        ]
        await connection.execute(
            insert(table(predictions.name, *map(column, names))),
            [{name: row[name] for name in names} for row in rows],
        )
        await connection.run_sync(_upgrade_to, "0007")
        register = text("INSERT INTO bundles (version, manifest) VALUES (:version, :manifest)")
        await connection.execute(register, {"version": BUNDLE, "manifest": MANIFEST})
    await migrate(settings.database_url)

    async with engine.connect() as connection:
        for edges, version in ((EDGES, "="), ({}, "<>")):
            of_bundle = f"SELECT * FROM ({{}}) AS rollup WHERE bundle_version {version} '{BUNDLE}'"  # noqa: S608 - the product's own version
            kept = await connection.execute(text(of_bundle.format("TABLE daily_rollup")))
            counted = await connection.execute(text(of_bundle.format(recount_by_day(edges))))
            assert sorted(map(_rounded, kept)) == sorted(map(_rounded, counted))
        for event in events:
            row = await read_one(connection, event.decision.prediction_id)
            assert row is not None
            assert (row.derived_id, row.erased_at) == (None, None)
            record = record_of(row).model_dump()
            assert event.decision.model_dump().items() <= record.items()
        erase = "UPDATE predictions SET erased_at = now(), {} = NULL"
        blank = " = NULL, ".join(PERSONAL)
        await connection.execute(text(erase.format(blank)))
        assert await connection.run_sync(differences) == []
    assert await store(engine, [row_of(event) for event in events]) == 0
    await engine.dispose()


async def test_consumer_that_counts_days_elsewhere_waits_as_in_an_outage(
    engine: AsyncEngine,
) -> None:
    """One of the version before would count decisions in one roll-up only; it loses none."""
    count_a_day = text(
        "INSERT INTO prediction_rollup"
        " VALUES ('day', now(), 'any', 'b-00000001', 'Approved', 1, 0, 0.9, ARRAY[1])"
    )
    with pytest.raises(DBAPIError) as refused:
        async with engine.connect() as connection:
            await connection.execute(count_a_day)
    assert is_outage(refused.value)


def _rounded(row: AnyRow) -> tuple[object, ...]:
    """The row with a sum that does not depend on the order of what is added up."""
    return tuple(round(value, 9) if isinstance(value, float) else value for value in row)


def _upgrade_to(connection: Connection, revision: str) -> None:
    command.upgrade(config_for(connection), revision)


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

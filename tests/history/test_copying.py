"""What COPY is given is what the driver would have given it."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import asyncpg

from services.history.copying import copy_data
from services.history.recorder import decode
from services.history.records import COLUMNS
from services.history.tables import predictions
from shared.contract.events import Application
from tests.history.events import body_of, derived_id, random_events, row_of


async def test_rows_are_stored_as_the_driver_stores_them(database_url: str) -> None:
    """Every column holds the same, whichever of its values is missing, empty or out of the way."""
    events = [
        *random_events(200, seed=41),
        *random_events(1, seed=42, input_data=Application(ApplicantIncome=0.0)),
        *random_events(1, seed=43, prediction_id=derived_id("copied")),
        *random_events(
            1, seed=44, imputed=[], warnings=["", "{}", 'a "b", \\c', "Zürich \U0001f3e0"]
        ),
        *random_events(1, seed=45, timestamp=datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC)),
        *random_events(
            1, seed=46, timestamp=datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-11)))
        ),
    ]
    connection = await asyncpg.connect(database_url)
    try:
        for table in ("ours", "theirs"):
            await connection.execute(f"CREATE TABLE {table} (LIKE {predictions.name})")
            await connection.execute(f"ALTER TABLE {table} ALTER recorded_at DROP NOT NULL")
        ours: Any = copy_data(map(row_of, events))
        await connection.copy_to_table("ours", source=ours, columns=COLUMNS, format="binary")
        await connection.copy_records_to_table(
            "theirs", records=[decode(body_of(event)) for event in events], columns=COLUMNS
        )
        stored = [
            await connection.fetch(f"SELECT row_to_json({table}) FROM {table} ORDER BY id")  # noqa: S608 - two names of this test
            for table in ("ours", "theirs")
        ]
    finally:
        await connection.close()
    assert len(stored[0]) == len(events)
    assert stored[0] == stored[1]


def test_no_rows_make_an_empty_copy() -> None:
    """There is always a head and an end, so that nothing is stored rather than half a row."""
    assert len(copy_data([])) == 19 + 2

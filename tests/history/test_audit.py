"""The audit log: no change goes unnoticed, not even a superuser's."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import audit
from services.history.audit import Broken, Head, append, digest, parse_head, take_turn, verify
from services.history.database import transaction
from services.history.tables import audit_log
from tests.harness import HOST, free_port

ROWS = 8
_COLUMNS = ("id", "occurred_at", "actor", "action", "subject", "details")


async def append_one(engine: AsyncEngine, subject: str = "LP1") -> Head:
    """Append one row, as an erasure does."""
    async with transaction(engine) as connection:
        turn = await take_turn(connection)
        return await append(
            connection, turn, actor="tests", action="erase loan", subject=subject, details={"n": 1}
        )


async def filled(engine: AsyncEngine) -> Head:
    """The head of a log of ``ROWS`` rows."""
    return [await append_one(engine, f"subject {number} é") for number in range(ROWS)][-1]


async def as_superuser(engine: AsyncEngine, *statements: str) -> None:
    """Run the statements with the trigger switched off."""
    async with transaction(engine) as connection:
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            await connection.execute(text(statement))


async def test_untouched_chain_holds_against_any_head_noted_before(engine: AsyncEngine) -> None:
    """Empty, with rows, and after more were appended."""
    assert await verify(engine) == Head(0, bytes(32))
    heads = [await append_one(engine) for _ in range(ROWS)]
    assert [head.id for head in heads] == list(range(1, ROWS + 1))
    for noted in (None, Head(0, bytes(32)), *heads):
        assert await verify(engine, noted) == heads[-1]


async def test_appends_at_once_make_one_chain_without_a_gap(engine: AsyncEngine) -> None:
    """Writers wait for each other; one that fails leaves no hole."""

    async def fail() -> None:
        async with transaction(engine) as connection:
            turn = await take_turn(connection)
            await append(connection, turn, actor="a", action="b", subject="c", details={})
            raise LookupError

    results = await asyncio.gather(
        *(append_one(engine) for _ in range(20)),
        *(fail() for _ in range(5)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Head) for result in results) == 20
    assert (await verify(engine)).id == 20


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET details = '{}'",
        "UPDATE audit_log SET details = '{}' WHERE id = 0",
        "DELETE FROM audit_log WHERE id = 3",
        "TRUNCATE audit_log",
        "INSERT INTO audit_log SELECT * FROM audit_log ON CONFLICT (id) DO UPDATE SET actor = 'x'",
    ],
)
async def test_database_refuses_to_change_a_row(engine: AsyncEngine, statement: str) -> None:
    """Rows can only be added, by any role, as long as the trigger is there."""
    head = await filled(engine)
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError, match="only ever added"):
            await connection.execute(text(statement))
    assert await verify(engine) == head


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        *(
            ([f"UPDATE audit_log SET {change} WHERE id = 5"], "row 5 was altered")  # noqa: S608 - below
            for change in (
                "details = '{\"n\": 2}'",
                "actor = 'nobody'",
                "action = 'read'",
                "subject = subject || ' '",
                "occurred_at = occurred_at + interval '1 microsecond'",
                "occurred_at = 'infinity'",
                "previous_hash = sha256('')",
                "hash = sha256('')",
            )
        ),
        (
            [
                "ALTER TABLE audit_log ALTER actor DROP NOT NULL, ALTER occurred_at DROP NOT NULL",
                "ALTER TABLE audit_log ALTER previous_hash DROP NOT NULL",
                "UPDATE audit_log SET actor = NULL, occurred_at = NULL WHERE id = 2",
                "UPDATE audit_log SET previous_hash = NULL WHERE id = 2",
            ],
            "row 2 was altered",
        ),
        (["DELETE FROM audit_log WHERE id = 1"], "row 1 is missing"),
        (["DELETE FROM audit_log WHERE id IN (4, 6)"], "row 4 is missing"),
        (
            ["DELETE FROM audit_log WHERE id = 4", "UPDATE audit_log SET id = id - 1 WHERE id > 4"],
            "row 4 was altered",
        ),
        (
            [
                "UPDATE audit_log SET id = 99 WHERE id = 3",
                "UPDATE audit_log SET id = 3 WHERE id = 4",
                "UPDATE audit_log SET id = 4 WHERE id = 99",
            ],
            "row 3 was altered",
        ),
        (
            [
                "ALTER TABLE audit_log DROP CONSTRAINT audit_log_pkey",
                "INSERT INTO audit_log SELECT * FROM audit_log WHERE id = 6",
            ],
            "row 6 is a duplicate",
        ),
        (["UPDATE audit_log SET id = 0 WHERE id = 1"], "row 0 is a duplicate or out of place"),
    ],
)
async def test_what_a_superuser_changes_is_found_and_the_first_row_named(
    engine: AsyncEngine, statements: Sequence[str], says: str
) -> None:
    """Altered, removed, moved or doubled, with the trigger switched off."""
    await filled(engine)
    await as_superuser(engine, *statements)
    with pytest.raises(Broken, match=says):
        await verify(engine)


async def rewrite(engine: AsyncEngine, first: int, last: int) -> None:
    """Falsify row ``first`` and make all hashes up to ``last`` right again."""
    async with engine.connect() as connection:
        rows = (await connection.execute(select(audit_log).order_by(audit_log.c.id))).all()
    previous = rows[first - 1].previous_hash
    for row in rows[first - 1 : last]:
        values = [getattr(row, name) for name in _COLUMNS]
        if row.id == first:
            values[4] = "somebody else"
        forged = digest(previous, values)
        hashes = f"previous_hash = '\\x{previous.hex()}', hash = '\\x{forged.hex()}'"
        await as_superuser(
            engine,
            f"UPDATE audit_log SET subject = '{values[4]}', {hashes} WHERE id = {row.id}",  # noqa: S608 - the test's own values
        )
        previous = forged


async def test_row_with_its_hash_made_right_again_no_longer_fits_the_next(
    engine: AsyncEngine,
) -> None:
    """One would have to go on to the very end."""
    await filled(engine)
    await rewrite(engine, 3, 5)
    with pytest.raises(Broken, match="row 6 does not follow the row before it"):
        await verify(engine)


@pytest.mark.parametrize("noted_at", [4, ROWS])
async def test_chain_rewritten_to_its_end_is_found_by_a_noted_head(
    engine: AsyncEngine, noted_at: int
) -> None:
    """It looks intact by itself; only a head noted after the changed row proves the change."""
    heads = [await append_one(engine) for _ in range(ROWS)]
    await rewrite(engine, 3, ROWS)
    assert (await verify(engine)).id == ROWS
    assert (await verify(engine, heads[1])).id == ROWS
    with pytest.raises(Broken, match=f"row {noted_at} is not the one that was noted"):
        await verify(engine, heads[noted_at - 1])


async def test_rows_taken_off_the_end_are_found_by_a_noted_head(engine: AsyncEngine) -> None:
    """What is left is a chain, only a shorter one than there was."""
    head = await filled(engine)
    await as_superuser(engine, "DELETE FROM audit_log WHERE id > 5")
    assert (await verify(engine)).id == 5
    with pytest.raises(Broken, match="it ends at row 5, but row 8 was noted"):
        await verify(engine, head)


async def test_long_chain_is_read_to_its_end(engine: AsyncEngine) -> None:
    """Many times more rows than are read at once."""
    rows, previous = [], bytes(32)
    for number in range(1, 6001):
        values = (number, datetime.now(UTC), "retention", "erase", "old", "{}")
        row = dict(zip(_COLUMNS, values, strict=True), previous_hash=previous)
        previous = row["hash"] = digest(previous, values)
        rows.append(row)
    async with transaction(engine) as connection:
        await connection.execute(insert(audit_log), rows)
    assert await verify(engine) == Head(6000, previous)
    await as_superuser(engine, "DELETE FROM audit_log WHERE id = 5432")
    with pytest.raises(Broken, match="row 5432 is missing"):
        await verify(engine)


@pytest.mark.system
def test_digest_is_the_one_that_is_documented() -> None:
    """It can be computed from the documentation, without this program."""
    moment = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    values = (1, moment, "bank", "erase loan", "sha256:é", '{"erased": 2}')
    encoded = (
        '[1,"2026-03-01T12:00:00.000000+00:00","bank","erase loan","sha256:\\u00e9",'
        '"{\\"erased\\": 2}"]'
    )
    program = (
        "import sys, hashlib; print(hashlib.sha256(bytes(32) + sys.argv[1].encode()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", program, encoded], capture_output=True, check=True)
    assert digest(bytes(32), values).hex() == done.stdout.decode().strip()


@pytest.mark.parametrize("text_", ["", "x", "1", "1:ab", f"x:{'a' * 64}", f"1:{'A' * 64}", "-1:"])
def test_malformed_head_is_refused(text_: str) -> None:
    """A typing error must not look like a proof."""
    with pytest.raises(ValueError, match="A head looks like"):
        parse_head(text_)


Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database_url: str
) -> Command:
    """The command on the test's database: its exit code, and what it said."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    async def run(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(audit.main, arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


async def test_command_prints_the_head_and_takes_it_back(
    engine: AsyncEngine, command: Command
) -> None:
    """0 and the head to note; later 0 with that note, or 1 and the row at fault in one line."""
    await filled(engine)
    code, said, _ = await command()
    assert code == 0
    assert f"{ROWS} rows" in said
    noted = said.split()[-1]
    await append_one(engine)
    code, said, _ = await command(noted)
    assert code == 0
    assert f"{ROWS + 1} rows, and the noted one is among them" in said
    await as_superuser(engine, "DELETE FROM audit_log WHERE id >= 8")
    assert (await command())[0] == 0
    code, said, complaint = await command(noted)
    assert (code, said) == (1, "")
    assert complaint == ("The audit log is not intact: it ends at row 7, but row 8 was noted.\n")
    code, _, complaint = await command("latest")
    assert code == 1
    assert complaint.startswith("A head looks like")


@pytest.mark.parametrize("reachable", [False, True])
async def test_command_without_a_log_to_read_is_one_clear_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, empty_database_url: str, reachable: bool
) -> None:
    """A database that is away, and one that was never migrated; no password is shown."""
    away = f"postgresql://me:hunter2@{HOST}:{free_port()}/loans"
    monkeypatch.setitem(os.environ, "DATABASE_URL", empty_database_url if reachable else away)
    code, said, complaint = await command()
    assert (code, said) == (1, "")
    assert complaint.count("\n") == 1
    assert complaint.startswith("Cannot read the audit log of ")
    assert "hunter2" not in complaint

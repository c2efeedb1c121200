"""Connections straight to the server; tests/e2e/test_pgbouncer.py has those through a pooler."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine


async def test_session_of_the_server_itself_keeps_statements_prepared(engine: AsyncEngine) -> None:
    """And has the parameters that its queries are planned best with."""
    async with engine.connect() as connection:
        for name, value in (("plan_cache_mode", "force_custom_plan"), ("jit", "off")):
            assert (await connection.execute(text(f"SHOW {name}"))).scalar_one() == value
        prepared = text("SELECT statement FROM pg_prepared_statements")
        assert "SHOW jit" in (await connection.execute(prepared)).scalars().all()

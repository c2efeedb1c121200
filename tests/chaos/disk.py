"""A full disk under the decisions: a real one where mounting is allowed, else a simulated one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from services.local import servers
from tests.chaos.faults import NoEffect
from tests.chaos.stage import Stage

REAL: Final = "a real full disk: tmpfs as tablespace"
SIMULATED: Final = "simulated: a trigger raises disk_full"
_SIZE: Final = "48m"
_MESSAGE: Final = "No space left on device"
_MET_WITHIN_S: Final = 30.0
_POLL_S: Final = 0.1
_BLOCK: Final = b"\0" * 65536
_TRIGGER: Final = f"""
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION '{_MESSAGE}' USING ERRCODE = 'disk_full';
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON predictions EXECUTE FUNCTION refuse()
"""


@contextmanager
def disk_full(stage: Stage) -> Iterator[str]:
    """Leave no room for another row; raises ``NoEffect`` unless PostgreSQL runs into it."""
    before = _times_logged(stage)
    with ExitStack() as stack:
        disk = _mounted(stage, stack)
        if disk is None:
            _refuse(stage, stack)
        else:
            _fill(disk, stage, stack)
        yield SIMULATED if disk is None else REAL
        _wait_until_met(stage, logged=before)


def _mounted(stage: Stage, stack: ExitStack) -> Path | None:
    """Mount a small file system for PostgreSQL; None where the system or the user cannot mount."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return None
    disk = stage.folder / "small-disk"
    disk.mkdir(exist_ok=True)
    owner = (stage.folder / "postgres").stat()
    options = f"size={_SIZE},mode=700,uid={owner.st_uid},gid={owner.st_gid}"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        return None
    stack.callback(subprocess.run, ["umount", str(disk)], check=True)
    return disk


def _fill(disk: Path, stage: Stage, stack: ExitStack) -> None:
    """Move the decisions to the disk and fill it; ``stack`` undoes it in reverse order."""
    url = stage.postgres.url
    servers.run_sql(url, f"CREATE TABLESPACE small LOCATION '{disk}'")
    stack.callback(servers.run_sql, url, "DROP TABLESPACE small")
    servers.run_sql(url, "ALTER TABLE predictions SET TABLESPACE small")
    stack.callback(servers.run_sql, url, "ALTER TABLE predictions SET TABLESPACE pg_default")
    ballast = disk / "ballast"
    stack.callback(ballast.unlink)
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(_BLOCK)
        except OSError:
            return


def _refuse(stage: Stage, stack: ExitStack) -> None:
    servers.run_sql(stage.postgres.url, _TRIGGER)
    stack.callback(servers.run_sql, stage.postgres.url, "DROP FUNCTION refuse() CASCADE")


def _wait_until_met(stage: Stage, *, logged: int) -> None:
    deadline = time.monotonic() + _MET_WITHIN_S
    while _times_logged(stage) == logged:
        if time.monotonic() > deadline:
            raise NoEffect("the database needed no space while its disk was full")
        time.sleep(_POLL_S)


def _times_logged(stage: Stage) -> int:
    return stage.postgres.process.log.read_text(errors="replace").count(_MESSAGE)

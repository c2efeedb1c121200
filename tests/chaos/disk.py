"""A full disk under the decisions: a real one where this may be mounted, else a refusal in kind."""

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
_SAID: Final = "No space left on device"
_MET_WITHIN_S: Final = 30.0
_POLL_S: Final = 0.1
_BLOCK: Final = b"\0" * 65536
_TRIGGER: Final = f"""
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION '{_SAID}' USING ERRCODE = 'disk_full';
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON predictions EXECUTE FUNCTION refuse()
"""


@contextmanager
def disk_full(stage: Stage) -> Iterator[str]:
    """No room for another row, until PostgreSQL met with it; raises ``NoEffect`` if it does not."""
    before = _times_said(stage)
    with ExitStack() as stack:
        disk = _mounted(stage, stack)
        if disk is None:
            _refuse(stage, stack)
        else:
            _fill(disk, stage, stack)
        yield SIMULATED if disk is None else REAL
        _wait_until_met(stage, said=before)


def _mounted(stage: Stage, stack: ExitStack) -> Path | None:
    """A small file system for PostgreSQL; None where this system, or this user, cannot mount."""
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
    """Move the decisions to the disk and fill it up; undone in the opposite order."""
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


def _wait_until_met(stage: Stage, *, said: int) -> None:
    deadline = time.monotonic() + _MET_WITHIN_S
    while _times_said(stage) == said:
        if time.monotonic() > deadline:
            raise NoEffect("the database wanted no room while its disk was full")
        time.sleep(_POLL_S)


def _times_said(stage: Stage) -> int:
    return stage.postgres.process.log.read_text(errors="replace").count(_SAID)

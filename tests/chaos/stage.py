"""The whole system on servers of its own, for one fault after another."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis import Redis

from services.local import components, servers
from services.local.processes import Process
from services.local.servers import Server
from shared.contract.events import DEAD_LETTER_STREAM
from tests.harness import System, running_system
from tests.load.stack import baseline

_EMPTY: Final = "TRUNCATE predictions, prediction_rollup, applicant_rollup, daily_rollup"


@dataclass(frozen=True)
class Stage:
    """Both servers, durable, and the shipped processes on them; their logs are in ``folder``.

    ``idle_url`` is an idle service without dependencies: where it is slow too, the machine is slow.
    """

    folder: Path
    postgres: Server
    redis: Server
    system: System
    idle_url: str

    @property
    def processes(self) -> tuple[Process, ...]:
        """Every process that should be running."""
        system = self.system
        return (
            *(self.postgres.process, self.redis.process),
            *(system.history, system.consumer, system.inference),
        )

    def clear(self) -> None:
        """Delete every decision, so that the next fault begins with an empty history."""
        servers.run_sql(self.postgres.url, _EMPTY)
        with Redis.from_url(self.redis.url) as redis:
            redis.delete(DEAD_LETTER_STREAM)


@contextmanager
def open_stage(
    folder: Path,
    *,
    settings: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[Stage]:
    """Open a stage in ``folder``, which is emptied first; see ``running_system`` for the rest."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o711, parents=True)
    with (
        closing(servers.postgres(folder / "postgres", logs=folder)) as postgres,
        closing(servers.redis(folder / "redis", logs=folder)) as redis,
    ):
        for server in (postgres, redis):
            server.process.start()
        components.migrate(os.environ | {"DATABASE_URL": postgres.url})
        with (
            running_system(
                database_url=postgres.url,
                redis_url=redis.url,
                logs=folder,
                settings=settings,
                say=say,
            ) as system,
            baseline("empty", folder) as idle,
        ):
            yield Stage(folder, postgres, redis, system, f"{idle.url}/")

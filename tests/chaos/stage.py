"""The whole system on servers of its own, to be broken by one fault after another."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis import Redis

from services.local import components as services
from services.local import servers
from services.local.processes import Process
from services.local.servers import Server
from shared.contract.events import DEAD_LETTER_STREAM
from tests.harness import System, running_system
from tests.load.stack import baseline

_EMPTY: Final = "TRUNCATE predictions, prediction_rollup, applicant_rollup"


@dataclass(frozen=True)
class Stage:
    """Both servers, durable, and the shipped processes on them; their logs are in ``folder``.

    ``idle_url`` is a service beside them that depends on nothing and has nothing to do: where it is
    slow too, the machine is.
    """

    folder: Path
    postgres: Server
    redis: Server
    system: System
    idle_url: str

    @property
    def processes(self) -> tuple[Process, ...]:
        """Everything that should run."""
        system = self.system
        return (
            *(self.postgres.process, self.redis.process),
            *(system.history, system.consumer, system.inference),
        )

    def clear(self) -> None:
        """Forget every decision, so that the next fault begins with an empty history."""
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
    """A stage in ``folder``, which is emptied before; the rest as ``running_system`` has it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o711, parents=True)
    with (
        closing(servers.postgres(folder / "postgres", logs=folder)) as postgres,
        closing(servers.redis(folder / "redis", logs=folder)) as redis,
    ):
        for server in (postgres, redis):
            server.process.start()
        services.migrate(os.environ | {"DATABASE_URL": postgres.url})
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

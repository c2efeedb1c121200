"""Every fault that the system must survive."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.chaos import clocks, faults
from tests.chaos.disk import disk_full
from tests.chaos.poison import poisoned
from tests.chaos.scenario import Scenario
from tests.chaos.stage import Stage

_A_MINUTE_S: Final = 60.0
_PAST_BOTH_DEADLINES_S: Final = 3.5


@contextmanager
def _nothing(_: Stage) -> Iterator[str]:
    yield ""


SCENARIOS: Final[dict[str, Scenario]] = {
    "redis-killed": Scenario(
        "Redis killed (-9)", lambda stage: faults.killed(stage.redis.process), refuses=True
    ),
    "redis-restarted": Scenario(
        "Redis restarted", lambda stage: faults.restarted(stage.redis.process), refuses=True
    ),
    "redis-paused": Scenario(
        "Redis paused", lambda stage: faults.paused(stage.redis.process), refuses=True
    ),
    "postgres-killed": Scenario(
        "PostgreSQL killed (-9)", lambda stage: faults.killed(stage.postgres.process)
    ),
    "postgres-restarted": Scenario(
        "PostgreSQL restarted", lambda stage: faults.restarted(stage.postgres.process)
    ),
    "postgres-paused": Scenario(
        "PostgreSQL paused", lambda stage: faults.paused(stage.postgres.process)
    ),
    "postgres-connections": Scenario("PostgreSQL out of connections", faults.out_of_connections),
    "disk-full": Scenario("Disk of the database full", disk_full),
    "consumer-killed": Scenario(
        "Consumer killed (-9)", lambda stage: faults.killed(stage.system.consumer)
    ),
    "inference-killed": Scenario(
        "Inference killed (-9)", lambda stage: faults.killed(stage.system.inference), cuts_off=True
    ),
    "history-killed": Scenario(
        "History service killed (-9), a minute",
        lambda stage: faults.killed(stage.system.history),
        away_s=_A_MINUTE_S,
    ),
    "both-sinks": Scenario(
        "Redis and history killed (-9)",
        lambda stage: faults.killed(stage.redis.process, stage.system.history),
        refuses=None,
    ),
    "both-paused": Scenario(
        "Redis and history paused",
        lambda stage: faults.paused(stage.redis.process, stage.system.history),
        refuses=None,
        least_s=_PAST_BOTH_DEADLINES_S,
    ),
    "clocks": Scenario(
        "Clocks an hour ahead and behind", _nothing, targets=clocks.clocks_off, clocks_agree=False
    ),
    "poison": Scenario("Poison in the stream", poisoned, stored_within_s=3.0),
}
"""By name on the command line."""

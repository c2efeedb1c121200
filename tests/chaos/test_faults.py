"""Every fault in short form: one second of it in the middle of a light load.

After each, every acknowledged decision is stored exactly once, roll-ups equal a recount, and
clients saw only decisions, 503 with Retry-After or, if their server was killed, no answer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from services.local import servers
from tests.chaos import disk
from tests.chaos.scenario import Outcome, Pace, Scenario, run
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.stage import Stage, open_stage

# The product runs in processes of its own; measuring the clients' coverage would slow them.
pytestmark = [pytest.mark.system, pytest.mark.no_cover]

_PACE: Final = Pace(rate=150, processes=1, before_s=0.5, away_s=1.0, after_s=0.7, whole=False)
_SHORT_WAITS: Final = {
    "CONSUMER_RECLAIM_IDLE_S": "0.5",
    "CONSUMER_MAX_DELIVERIES": "3",
    "CONSUMER_RETRY_MAX_S": "0.5",
}


@pytest.fixture(scope="module")
def stage(server_folder: Path) -> Iterator[Stage]:
    """Run one system for all faults; each begins with an empty history."""
    with open_stage(server_folder / "chaos", settings=_SHORT_WAITS) as stage:
        yield stage


def _survive(stage: Stage, name: str) -> Outcome:
    """Run a fault; assert that the record holds after it."""
    outcome = run(SCENARIOS[name], stage, _PACE, show=False)
    assert outcome.complaints == ()
    assert outcome.stored >= outcome.acknowledged > 0
    return outcome


def test_redis_killed(stage: Stage) -> None:
    """Decisions go to the history service meanwhile; those in the stream survive."""
    _survive(stage, "redis-killed")


def test_redis_restarted(stage: Stage) -> None:
    """An orderly restart is an outage like any other."""
    _survive(stage, "redis-restarted")


def test_redis_paused(stage: Stage) -> None:
    """A decision sent to both sinks, because Redis woke up after its deadline, is stored once."""
    _survive(stage, "redis-paused")


def test_postgres_killed(stage: Stage) -> None:
    """Decisions wait in the stream; clients notice nothing."""
    assert _survive(stage, "postgres-killed").refused == 0


def test_postgres_restarted(stage: Stage) -> None:
    """Sessions are ended in the middle of a batch; clients notice nothing."""
    _survive(stage, "postgres-restarted")


def test_postgres_paused(stage: Stage) -> None:
    """The consumer waits with its batch; clients notice nothing."""
    _survive(stage, "postgres-paused")


def test_postgres_out_of_connections(stage: Stage) -> None:
    """The consumer's own connection is ended too, and it cannot get another."""
    _survive(stage, "postgres-connections")


def test_disk_of_the_database_full(stage: Stage) -> None:
    """Refused rows are not malformed: they are stored as soon as there is space."""
    outcome = _survive(stage, "disk-full")
    assert outcome.remark in (disk.REAL, disk.SIMULATED)


def test_consumer_killed(stage: Stage) -> None:
    """The batch it held is taken over and stored once."""
    _survive(stage, "consumer-killed")


def test_inference_killed(stage: Stage) -> None:
    """Requests are cut off, and may be stored unanswered; none is answered and lost."""
    _survive(stage, "inference-killed")


def test_history_killed(stage: Stage) -> None:
    """Decisions need it only when Redis is away; clients notice nothing."""
    _survive(stage, "history-killed")


def test_redis_and_history_killed(stage: Stage) -> None:
    """Decisions that cannot be recorded are refused with 503 and Retry-After."""
    assert _survive(stage, "both-sinks").refused > 0


def test_redis_and_history_paused(stage: Stage) -> None:
    """Neither refuses, so the deadlines decide; what is stored although refused is stored once."""
    assert _survive(stage, "both-paused").refused > 0


def test_clocks_an_hour_apart(stage: Stage) -> None:
    """Decisions of three hosts whose clocks disagree are each listed once and counted by hour."""
    _survive(stage, "clocks")


def test_poison_in_the_stream(stage: Stage) -> None:
    """Malformed entries are dead-lettered unchanged; valid decisions among them are stored."""
    _survive(stage, "poison")


def test_loss_and_doubling_are_found(stage: Stage) -> None:
    """A deleted row and a duplicated row are both noticed."""

    @contextmanager
    def sabotage(stage: Stage) -> Iterator[str]:
        yield ""
        servers.run_sql(
            stage.postgres.url,
            """
            DELETE FROM predictions WHERE id =
                (SELECT id FROM predictions WHERE prediction = 'Approved' ORDER BY id LIMIT 1);
            CREATE TEMPORARY TABLE copy AS
                SELECT * FROM predictions WHERE prediction = 'Rejected' ORDER BY id LIMIT 1;
            UPDATE copy SET id = gen_random_uuid();
            INSERT INTO predictions SELECT * FROM copy
            """,
        )

    outcome = run(Scenario("sabotage", sabotage), stage, _PACE, show=False)
    assert (outcome.lost, outcome.doubled) == (1, 1)
    assert outcome.complaints == (
        "1 acknowledged decisions are lost",
        "1 decisions are doubled",
        "1 rows without a request",
        "roll-ups differ from a recount: prediction_rollup, applicant_rollup, daily_rollup",
    )

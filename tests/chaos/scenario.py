"""One fault under a steady load, and the check of the record after it."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Final

from sqlalchemy import text

from services.history.database import open_engine
from services.history.settings import HistorySettings
from tests.chaos.faults import Fault
from tests.chaos.pulse import Pulse, pulse
from tests.chaos.reader import reading
from tests.chaos.stage import Stage
from tests.history.storage import rollups_and_recounts
from tests.load import proof, sender
from tests.load.proof import Proof
from tests.load.results import Results, percentile
from tests.load.schedule import Schedule
from tests.load.sender import NEVER_SENT, PROCESS_ENDED, REFUSED, Plan

_DRAINED_WITHIN_S: Final = 90.0
_OVERRUN_S: Final = 60.0
_LONGEST_ANSWER_S: Final = 3.0
"""Requests that fall due while another waits this long are still sent in time."""

_EVERY_CLOCK: Final = timedelta(hours=2)
_START_WITHIN_S: Final = 60.0
_MS_PER_S: Final = 1000
_COUNT: Final = """
SELECT count(*), count(DISTINCT loan_id), extract(epoch FROM max(recorded_at - decided_at))
FROM predictions
"""


@contextmanager
def shipped(stage: Stage) -> Iterator[Sequence[str]]:
    """Target the stage's one inference service."""
    yield [stage.system.inference_url]


@dataclass(frozen=True)
class Scenario:
    """A fault, the services under load meanwhile, and what clients may notice.

    ``refuses``: whether decisions may be refused with 503; None: some must be. ``cuts_off``:
    whether requests may end without an answer. ``away_s`` is the fault's duration in a full run
    where that matters, ``least_s`` the shortest that has an effect. ``stored_within_s`` is the
    longest that a decision may wait to be stored, which is unknown unless ``clocks_agree``.
    """

    name: str
    fault: Fault
    targets: Callable[[Stage], AbstractContextManager[Sequence[str]]] = shipped
    refuses: bool | None = False
    cuts_off: bool = False
    away_s: float | None = None
    least_s: float = 0.0
    stored_within_s: float | None = None
    clocks_agree: bool = True


@dataclass(frozen=True)
class Pace:
    """``rate`` requests a second, and how long before, during and after the fault."""

    rate: float
    processes: int
    before_s: float
    away_s: float
    after_s: float
    whole: bool
    """Whether this is a full run, in which some faults last longer."""

    def away_for(self, scenario: Scenario) -> float:
        """Return how long the scenario's fault lasts."""
        if self.whole and scenario.away_s is not None:
            return scenario.away_s
        return max(scenario.least_s, self.away_s)


@dataclass(frozen=True)
class Outcome:
    """The result of a scenario, with ``complaints`` as sentences.

    ``unanswered`` requests were cut off. ``stored_unanswered`` rows belong to requests that were
    refused or cut off, because the outcome was unknown when the client got its answer. Up to
    ``sent_late_ms`` of ``worst_ms`` passed before the request was sent: too many were open, or the
    tool was too slow. ``stored_after_s`` is the longest that a decision waited to be stored.
    ``idle_p99_ms`` is of the idle service and shows how much of ``livez_p99_ms`` is the machine's.
    No complaint concerns times or refusals, since a slow machine can cause both.
    """

    fault: str
    requests: int
    acknowledged: int
    stored: int
    lost: int
    doubled: int
    refused: int
    unanswered: int
    stored_unanswered: int
    worst_ms: float
    sent_late_ms: float
    stored_after_s: float | None
    livez_p99_ms: float
    idle_p99_ms: float
    remark: str
    complaints: tuple[str, ...]


@dataclass(frozen=True)
class _Record:
    """The database after a scenario; ``wrong_rollups`` names tables."""

    rows: int
    applications: int
    stored_after_s: float
    wrong_rollups: tuple[str, ...]


def run(scenario: Scenario, stage: Stage, pace: Pace, *, show: bool) -> Outcome:
    """Load, break, repair, wait until everything is stored, and compare.

    Raises ``NotProved`` if the history does not come back or the stream is not drained, and
    ``NoEffect`` if the fault did nothing.
    """
    stage.clear()
    since = datetime.now(UTC) - _EVERY_CLOCK
    with (
        scenario.targets(stage) as urls,
        pulse([f"{url}/livez" for url in urls]) as beats,
        pulse([stage.idle_url]) as idle,
        reading(stage) as misread,
    ):
        requests, results, remark = _load_and_break(scenario, stage, urls, pace, show=show)
    ended = _start_again(stage)
    proved = proof.prove(
        results.ids,
        history_url=stage.system.history_url,
        key=stage.system.api_key,
        since=since,
        drained_within_s=_DRAINED_WITHIN_S,
    )
    record = asyncio.run(_record(stage.postgres.url))
    results.errors += misread
    return _outcome(scenario, requests, results, proved, record, beats, idle, remark, ended)


def _load_and_break(
    scenario: Scenario, stage: Stage, urls: Sequence[str], pace: Pace, *, show: bool
) -> tuple[int, Results, str]:
    """Return how many requests were due, their results, and the fault's remark."""
    away_s = pace.away_for(scenario)
    duration_s = pace.before_s + away_s + pace.after_s
    began: list[Future[Schedule]] = [Future() for _ in urls]
    with ThreadPoolExecutor(len(urls)) as pool:
        loads = [
            pool.submit(
                sender.run,
                _plan(stage, url, pace, of=len(urls)),
                rate=pace.rate / len(urls),
                duration_s=duration_s,
                show=show and number == 0,
                announce=began[number].set_result,
            )
            for number, url in enumerate(urls)
        ]
        starts_at_s = max(each.result(_START_WITHIN_S).starts_at_s for each in began)
        time.sleep(max(0.0, starts_at_s - time.monotonic()) + pace.before_s)
        with scenario.fault(stage) as remark:
            time.sleep(away_s)
        results = Results()
        for load in loads:
            results.add(load.result()[1])
    return sum(load.result()[0].requests for load in loads), results, remark


def _plan(stage: Stage, url: str, pace: Pace, *, of: int) -> Plan:
    processes = ceil(pace.processes / of)
    return Plan(
        url=f"{url}/predict",
        key=stage.system.api_key,
        processes=processes,
        in_flight=ceil(pace.rate * _LONGEST_ANSWER_S / of / processes),
        overrun_s=_OVERRUN_S,
        wants_ids=True,
        seed=time.time_ns(),
    )


def _start_again(stage: Stage) -> list[str]:
    """Restart processes that ended on their own, for the next fault; complain about each."""
    complaints = []
    for process in stage.processes:
        if not process.running:
            complaints.append(f"{process.name} ended with {process.exit_code}")
            process.start()
    return complaints


async def _record(database_url: str) -> _Record:
    settings = HistorySettings(database_url=database_url, database_command_timeout_s=60)
    engine = open_engine(settings, name="chaos", pool_size=1)
    try:
        async with engine.connect() as connection:
            rows, applications, stored_after_s = (await connection.execute(text(_COUNT))).one()
        rollups = await rollups_and_recounts(engine)
    finally:
        await engine.dispose()
    wrong = tuple(table for table, (kept, counted) in rollups.items() if kept != counted)
    return _Record(rows, applications, float(stored_after_s or 0), wrong)


def _outcome(
    scenario: Scenario,
    requests: int,
    results: Results,
    proved: Proof,
    record: _Record,
    beats: Pulse,
    idle: Pulse,
    remark: str,
    ended: Sequence[str],
) -> Outcome:
    refused = results.errors[REFUSED]
    wrong = {
        kind: count
        for kind, count in results.errors.items()
        if kind in (NEVER_SENT, PROCESS_ENDED)
        or (kind.startswith(("status", "GET")) and kind != REFUSED)
    }
    cut_off = {
        kind: count for kind, count in results.errors.items() if kind not in {REFUSED, *wrong}
    }
    unanswered = sum(cut_off.values())
    lost = len(proved.missing)
    # Each application is sent once, so two rows for one application mean two decisions.
    doubled = len(proved.doubled) + record.rows - record.applications
    stored_unanswered = record.rows - (len(set(results.ids)) - lost)
    checks = {
        f"{lost} acknowledged decisions are lost": lost,
        f"{doubled} decisions are doubled": doubled,
        f"answers that clients must not see: {wrong}": wrong,
        "no decision was refused": not refused and scenario.refuses is None,
        f"requests were cut off: {cut_off}": cut_off and not scenario.cuts_off,
        f"/livez was absent {beats.absences} times": beats.absences and not scenario.cuts_off,
        f"{stored_unanswered} rows without a request": stored_unanswered > refused + unanswered,
        f"roll-ups differ from a recount: {', '.join(record.wrong_rollups)}": record.wrong_rollups,
    }
    return Outcome(
        fault=scenario.name,
        requests=requests,
        acknowledged=len(results.ids),
        stored=record.rows,
        lost=lost,
        doubled=doubled,
        refused=refused,
        unanswered=unanswered,
        stored_unanswered=stored_unanswered,
        worst_ms=_MS_PER_S * max((sample.latency_s for sample in results.samples), default=0.0),
        sent_late_ms=_MS_PER_S * max((sample.late_s for sample in results.samples), default=0.0),
        stored_after_s=record.stored_after_s if scenario.clocks_agree else None,
        livez_p99_ms=_p99_ms(beats),
        idle_p99_ms=_p99_ms(idle),
        remark=remark,
        complaints=(*ended, *(complaint for complaint, found in checks.items() if found)),
    )


def _p99_ms(beats: Pulse) -> float:
    return _MS_PER_S * percentile(sorted(beats.times_s), 99)

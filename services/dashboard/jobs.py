"""Batches at work: each row is checked, then decided, a few at a time.

Kept in this process's memory for the session that brought them, never on disk. A row bears the
same Idempotency-Key however often it has to be tried, so it is decided once.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from loan_predictor_client import CallFailed, InvalidRequest, RetryPolicy
from loan_predictor_client.models import Decision
from services.dashboard import sheet
from services.dashboard.sessions import Session, SignedOut
from services.dashboard.sheet import Row, SheetError
from shared.observability.logs import get_logger

CONCURRENCY: Final = 8
MAX_JOBS: Final = 20
"""Beyond that the oldest is forgotten."""
_RETRY_POLICY: Final = RetryPolicy(attempts=8, total_s=30)
_log = get_logger(__name__)

Phase = Literal["checking", "checked", "deciding", "decided", "unusable"]


@dataclass
class Job:
    """One file on its way to decisions."""

    name: str
    owner: Session
    identifier: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    phase: Phase = "checking"
    problem: str = ""
    """Why the file as a whole, or the last run over it, came to nothing."""
    rows: list[Row] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    """What is wrong with a row, by its line."""
    failures: dict[int, str] = field(default_factory=dict)
    """Why a row that is right has not been decided, by its line."""
    decisions: dict[int, Decision] = field(default_factory=dict)
    """By the row's line."""
    seen: int = 0
    """Rows that the present phase is through with."""

    @property
    def good(self) -> list[Row]:
        """The rows that can be decided."""
        return [row for row in self.rows if row.line not in self.faults]

    @property
    def undecided(self) -> list[Row]:
        """The good rows without a decision."""
        return [row for row in self.good if row.line not in self.decisions]

    @property
    def at_work(self) -> bool:
        """Whether the job goes on by itself."""
        return self.phase in ("checking", "deciding")

    def results(self) -> Iterable[tuple[Row, Decision | None, str | None]]:
        """Each row with its decision, or with what is wrong."""
        for row in self.rows:
            fault = self.faults.get(row.line) or self.failures.get(row.line)
            yield row, self.decisions.get(row.line), fault


class Jobs:
    """All batches of this process."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, name: str, content: bytes, owner: Session) -> Job:
        """Take a file in and begin to check its rows."""
        while len(self._jobs) >= MAX_JOBS:
            del self._jobs[next(iter(self._jobs))]
        job = Job(name, owner)
        self._jobs[job.identifier] = job
        self._run(job, lambda: self._check(job, content))
        return job

    def find(self, identifier: str, owner: Session) -> Job | None:
        """The job, if it is this session's."""
        job = self._jobs.get(identifier)
        return job if job is not None and job.owner is owner else None

    def decide(self, job: Job) -> None:
        """Begin to decide what is good and undecided; nothing happens while it is at work."""
        if not job.at_work:
            job.phase, job.seen, job.problem = "deciding", 0, ""
            job.failures.clear()
            self._run(job, lambda: self._decide(job))

    async def stop(self) -> None:
        """Give up whatever is at work; rows that were decided are recorded."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _run(self, job: Job, work: Callable[[], Awaitable[None]]) -> None:
        async def guarded() -> None:
            try:
                await work()
            except SignedOut:
                job.phase, job.problem = "unusable", "The session that brought this file has ended."
            except SheetError as error:
                job.phase, job.problem = "unusable", str(error)

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(self, job: Job, content: bytes) -> None:
        # In a thread: a large file takes longer than other pages should wait.
        job.rows = await asyncio.to_thread(sheet.read, content)
        job.faults = {row.line: row.fault for row in job.rows if row.fault is not None}
        api = job.owner.api.variant(retry_policy=_RETRY_POLICY)

        async def check(row: Row) -> None:
            report = await api.validate(row.application)
            if not report.valid:
                job.faults[row.line] = "; ".join(
                    f"{fault.field} {fault.message}" for fault in report.validation_errors
                )

        try:
            await self._each(job, job.good, check)
        except CallFailed as error:
            _log.warning("a batch could not be checked", error=str(error))
            raise SheetError("The rows could not be checked, for the service is away.") from error
        job.phase = "checked"

    async def _decide(self, job: Job) -> None:
        async def decide(row: Row) -> None:
            api = job.owner.api.variant(retry_policy=_RETRY_POLICY)
            key = f"{job.identifier}-{row.line}"
            try:
                job.decisions[row.line] = await api.predict(row.application, idempotency_key=key)
            except InvalidRequest as error:
                job.faults[row.line] = str(error)
            except CallFailed as error:
                job.failures[row.line] = f"not decided: {error}"

        await self._each(job, job.undecided, decide)
        job.phase = "decided"

    async def _each(
        self, job: Job, rows: list[Row], work: Callable[[Row], Awaitable[None]]
    ) -> None:
        """Do ``work`` with each row, ``CONCURRENCY`` at a time; the first error ends it."""
        left = iter(rows)
        job.seen = 0

        async def some() -> None:
            for row in left:
                await work(row)
                job.seen += 1

        workers = [asyncio.create_task(some()) for _ in range(CONCURRENCY)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()


def progress(job: Job) -> tuple[int, int]:
    """How many rows the present phase is through with, and how many there are."""
    total = len(job.good) if job.phase == "checking" else job.seen + len(job.undecided)
    return job.seen, max(job.seen, total)

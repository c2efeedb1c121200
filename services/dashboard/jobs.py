"""Batch jobs: a file is read, its rows are checked and then decided, a few at a time.

Jobs are in this process's memory, for the session that uploaded them, and never on disk. A row has
the same Idempotency-Key each time its file is decided, so it is recorded once: after a failed run,
after a restart, and when the same file is uploaded again.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from loan_predictor_client import CallFailed, Decision, InvalidRequest, RetryPolicy
from services.dashboard.sessions import Session, SignedOut
from shared.files.applications import ApplicationFile, Row, read_applications
from shared.files.spellings import Spelling, applied, offered
from shared.files.tables import FileError
from shared.observability.logs import get_logger

MAX_ROWS: Final = 10_000
CONCURRENCY: Final = 8
MAX_JOBS: Final = 20
"""A further one displaces the oldest."""
_RETRY_POLICY: Final = RetryPolicy(attempts=8, total_s=30)
CLOCKS_DIFFER: Final = timedelta(seconds=2)
"""How far the clocks of the dashboard and the services may differ."""
_KEY_REUSED: Final = "IdempotencyKeyReused"
_log = get_logger(__name__)

Phase = Literal["reading", "asking", "checking", "checked", "deciding", "decided", "unusable"]


@dataclass
class Job:
    """One file on its way to decisions."""

    name: str
    owner: Session
    identifier: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    phase: Phase = "reading"
    problem: str = ""
    """Why the file cannot be used."""
    file: ApplicationFile | None = None
    spellings: Sequence[Spelling] = ()
    """The questions that the person answers before the rows are checked."""
    faults: dict[int, str] = field(default_factory=dict)
    """What is wrong with a row, by its line."""
    warnings: dict[str, list[int]] = field(default_factory=dict)
    """The lines of each warning."""
    failures: dict[int, str] = field(default_factory=dict)
    """Why a valid row has not been decided, by its line."""
    decisions: dict[int, Decision] = field(default_factory=dict)
    """By the row's line."""
    deciding_since: datetime | None = None
    """When its first run began."""
    done: int = 0
    """Rows that the present phase has finished."""

    @property
    def batch(self) -> str:
        """The name of the batch, the same for the same file."""
        return self.file.sha256[:8] if self.file else ""

    @property
    def rows(self) -> Sequence[Row]:
        """All rows of the file; none before it is read."""
        return self.file.rows if self.file else ()

    @property
    def good(self) -> list[Row]:
        """The rows that can be decided."""
        return [row for row in self.rows if row.line not in self.faults]

    @property
    def undecided(self) -> list[Row]:
        """The good rows without a decision."""
        return [row for row in self.good if row.line not in self.decisions]

    @property
    def decided_before(self) -> list[Decision]:
        """The decisions that were made before this job, the oldest first."""
        if self.deciding_since is None:
            return []
        before = self.deciding_since - CLOCKS_DIFFER
        earlier = [d for d in self.decisions.values() if d.timestamp < before]
        return sorted(earlier, key=lambda decision: decision.timestamp)

    @property
    def at_work(self) -> bool:
        """Whether the server is working on the job."""
        return self.phase in ("reading", "checking", "deciding")

    def results(self) -> Iterable[tuple[Row, Decision | None, str | None]]:
        """Each row with its decision, or with what is wrong."""
        for row in self.rows:
            fault = self.faults.get(row.line) or self.failures.get(row.line)
            yield row, self.decisions.get(row.line), fault


class Jobs:
    """All jobs of this process."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, name: str, content: bytes, owner: Session) -> Job:
        """Start reading a file; its rows are checked at once if it raises no question."""
        while len(self._jobs) >= MAX_JOBS:
            del self._jobs[next(iter(self._jobs))]
        job = Job(name, owner)
        self._jobs[job.identifier] = job
        self._run(job, lambda: self._read(job, content))
        return job

    def find(self, identifier: str, owner: Session) -> Job | None:
        """The job, if it belongs to ``owner``."""
        job = self._jobs.get(identifier)
        return job if job is not None and job.owner is owner else None

    def check(self, job: Job, spellings: Collection[str]) -> None:
        """Start checking the rows, with the chosen ``spellings`` applied."""
        if job.phase == "asking" and job.file is not None:
            job.file = applied(job.file, spellings)
            job.phase = "checking"
            self._run(job, lambda: self._check(job))

    def decide(self, job: Job) -> None:
        """Start deciding the valid rows that have no decision; does nothing while at work."""
        file = job.file
        if job.phase in ("checked", "decided") and file is not None:
            job.phase, job.done, job.problem = "deciding", 0, ""
            job.deciding_since = job.deciding_since or datetime.now(UTC)
            job.failures.clear()
            self._run(job, lambda: self._decide(job, file))

    async def stop(self) -> None:
        """Cancel all work; rows that were decided are recorded."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _run(self, job: Job, work: Callable[[], Awaitable[None]]) -> None:
        async def guarded() -> None:
            try:
                await work()
            except SignedOut:
                job.phase, job.problem = "unusable", "The session of this file has ended."
            except FileError as error:
                job.phase, job.problem = "unusable", str(error)

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, job: Job, content: bytes) -> None:
        def read() -> tuple[ApplicationFile, Sequence[Spelling]]:
            file = read_applications(content, max_rows=MAX_ROWS)
            return file, offered(file)

        # In a thread: other pages should not wait for a large file.
        file, job.spellings = await asyncio.to_thread(read)
        job.file = file
        job.phase = "asking" if job.spellings or file.unknown else "checking"
        if job.phase == "checking":
            await self._check(job)

    async def _check(self, job: Job) -> None:
        job.faults = {row.line: row.fault for row in job.rows if row.fault is not None}
        api = job.owner.api.variant(retry_policy=_RETRY_POLICY)

        async def check(row: Row) -> None:
            report = await api.validate(row.application)
            if not report.valid:
                job.faults[row.line] = "; ".join(
                    f"{fault.field} {fault.message}" for fault in report.validation_errors
                )
            for warning in report.warnings:
                job.warnings.setdefault(warning, []).append(row.line)

        try:
            await self._each(job, job.good, check)
        except CallFailed as error:
            _log.warning("a batch could not be checked", error=str(error))
            raise FileError("The service does not answer, so no row is checked.") from error
        job.phase = "checked"

    async def _decide(self, job: Job, file: ApplicationFile) -> None:
        async def decide(row: Row) -> None:
            api = job.owner.api.variant(retry_policy=_RETRY_POLICY)
            key = f"{file.sha256}-{row.line}"
            try:
                job.decisions[row.line] = await api.predict(row.application, idempotency_key=key)
            except InvalidRequest as error:
                if error.code == _KEY_REUSED:
                    job.faults[row.line] = "was decided before, with other spellings chosen"
                else:
                    job.faults[row.line] = str(error)
            except CallFailed as error:
                job.failures[row.line] = f"not decided: {error}"

        await self._each(job, job.undecided, decide)
        job.phase = "decided"

    async def _each(
        self, job: Job, rows: list[Row], work: Callable[[Row], Awaitable[None]]
    ) -> None:
        """Do ``work`` for each row, ``CONCURRENCY`` at a time; the first error ends it."""
        left = iter(rows)
        job.done = 0

        async def some() -> None:
            for row in left:
                await work(row)
                job.done += 1

        workers = [asyncio.create_task(some()) for _ in range(CONCURRENCY)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()


def progress(job: Job) -> tuple[int, int]:
    """How many rows the present phase has finished, and how many it has."""
    total = len(job.good) if job.phase == "checking" else job.done + len(job.undecided)
    return job.done, max(job.done, total)

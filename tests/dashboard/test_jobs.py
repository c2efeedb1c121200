"""Batches at work, on services that come and go."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest

from loan_predictor_client import (
    AsyncLoanPredictorClient,
    Filters,
    LoanPredictorClient,
    RetryPolicy,
)
from services.dashboard import jobs as jobs_module
from services.dashboard.formatting import moment
from services.dashboard.jobs import MAX_JOBS, Job, Jobs, progress
from services.dashboard.pages import batch
from services.dashboard.sessions import Session, Sessions
from shared.files.applications import read_applications
from tests.harness import System
from tests.waiting import eventually

_FILE = b"Loan_ID,ApplicantIncome\n" + b"".join(b"J%d,%d\n" % (n, 4000 + n) for n in range(30))


@pytest.fixture
async def client(standing: System) -> AsyncIterator[AsyncLoanPredictorClient]:
    """A client that gives up soon."""
    async with AsyncLoanPredictorClient(
        standing.inference_url, standing.history_url, api_key=standing.api_key
    ) as client:
        yield client


@pytest.fixture
def owner(client: AsyncLoanPredictorClient) -> Session:
    """The session that uploads the files."""
    return Session("somebody", client)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage shows at once."""
    monkeypatch.setattr(jobs_module, "_RETRY_POLICY", RetryPolicy(attempts=1))


@pytest.fixture
def api(standing: System) -> Iterator[LoanPredictorClient]:
    """The APIs themselves."""
    with LoanPredictorClient(
        standing.inference_url, standing.history_url, api_key=standing.api_key
    ) as api:
        yield api


async def _rest(job: Job) -> None:
    await eventually(lambda: not job.at_work)


async def test_failed_rows_are_tried_again_and_none_is_decided_twice(
    owner: Session, standing: System, api: LoanPredictorClient
) -> None:
    """The page says how many are left and why."""
    jobs = Jobs()
    job = jobs.begin("loans.csv", _FILE, owner)
    assert "Reading loans.csv" in batch.state(job, "")
    await _rest(job)
    assert (job.phase, len(job.good)) == ("checked", 30)
    standing.inference.kill()
    jobs.decide(job)
    jobs.decide(job)
    await _rest(job)
    assert len(job.failures) == 30
    assert "30 could not be decided" in batch.state(job, "")
    standing.inference.start()
    jobs.decide(job)
    await _rest(job)
    assert progress(job) == (30, 30)
    assert not job.failures
    assert "Download decisions" in batch.state(job, "")
    await eventually(lambda: len(list(api.records())) == 30)
    recorded = [record.prediction_id for record in api.records()]
    assert sorted(recorded) == sorted(decision.prediction_id for decision in job.decisions.values())
    assert len(api.history(Filters(loan_id="J7")).items) == 1


async def test_file_is_not_checked_during_an_outage(owner: Session, standing: System) -> None:
    """It has to be uploaded again."""
    standing.inference.kill()
    job = Jobs().begin("loans.csv", _FILE, owner)
    await _rest(job)
    standing.inference.start()
    assert job.phase == "unusable"
    assert "The service does not answer, so no row is checked" in batch.state(job, "")


async def test_job_ends_with_its_session(
    client: AsyncLoanPredictorClient,
) -> None:
    """No other session finds it."""
    sessions, jobs = Sessions(), Jobs()
    owner = sessions.find(sessions.begin("somebody", client))
    assert owner is not None
    job = jobs.begin("loans.csv", _FILE, owner)
    await _rest(job)
    assert jobs.find(job.identifier, owner) is job
    assert jobs.find(job.identifier, Session("another", client)) is None
    sessions.end(owner)
    jobs.decide(job)
    await _rest(job)
    assert job.phase == "unusable"
    assert job.decisions == {}


async def test_oldest_job_is_displaced_and_stopping_ends_all(owner: Session) -> None:
    """Memory is bounded, and nothing keeps the process from ending."""
    jobs = Jobs()
    first = jobs.begin("first.csv", _FILE, owner)
    for _ in range(MAX_JOBS):
        jobs.begin("next.csv", _FILE, owner)
    assert jobs.find(first.identifier, owner) is None
    await jobs.stop()


async def test_same_file_decided_again_is_recorded_once(
    owner: Session, api: LoanPredictorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a restart; the page says when it was decided, and as which batch."""
    monkeypatch.setattr(jobs_module, "CLOCKS_DIFFER", timedelta())
    content = b"Loan_ID,ApplicantIncome\nAGAIN1,5000\nAGAIN2,6000\n"

    async def decided() -> Job:
        jobs = Jobs()
        job = jobs.begin("loans.csv", content, owner)
        await _rest(job)
        jobs.decide(job)
        await _rest(job)
        return job

    before, job = await decided(), await decided()
    for line, decision in before.decisions.items():
        assert job.decisions[line].prediction_id == decision.prediction_id
    assert "were decided then" not in batch.state(before, "")
    shown = batch.state(job, "")
    first = min(decision.timestamp for decision in job.decisions.values())
    assert f"Decided on {moment(first)} as batch {job.batch}" in shown
    assert "2 of these rows were decided then" in shown
    await eventually(lambda: len(api.history(Filters(loan_id="AGAIN1")).items) == 1)
    other = Jobs().begin("other.csv", content + b"AGAIN1,5000\n", owner)
    await _rest(other)
    assert other.batch != job.batch


async def test_questions_come_before_anything_is_checked(owner: Session) -> None:
    """A spelling is applied only if it is chosen."""
    jobs = Jobs()
    content = b"ApplicantIncome,Married,Foo\n5000,Y,1\n6000,N,2\n"
    job = jobs.begin("loans.csv", content, owner)
    await _rest(job)
    assert job.phase == "asking"
    jobs.decide(job)
    assert job.phase == "asking"
    jobs.check(job, [])
    await _rest(job)
    assert (job.phase, len(job.faults)) == ("checked", 2)
    job = jobs.begin("loans.csv", content, owner)
    await _rest(job)
    jobs.check(job, [spelling.key for spelling in job.spellings])
    await _rest(job)
    assert job.faults == {}
    assert [row.cells["Married"] for row in job.rows] == ["Yes", "No"]


def test_many_faults_are_counted_and_the_first_are_shown(owner: Session) -> None:
    """The download has all of them."""
    job = Job("loans.csv", owner, phase="checked", file=read_applications(_FILE))
    job.faults = dict.fromkeys(range(2, 302), "ApplicantIncome must be a number")
    shown = batch.state(job, "/app")
    assert shown.count("ApplicantIncome must be a number") == batch.MAX_SHOWN
    assert "and 200 more" in shown
    assert "/app/batch" in shown

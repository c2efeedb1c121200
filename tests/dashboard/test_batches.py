"""The Batch page before the batch service and a worker: what is ordered outlives the dashboard."""

import csv
import io
import re
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from nicegui import ui
from nicegui.testing import User

from loan_predictor_client import (
    AsyncLoanPredictorClient,
    Filters,
    LoanPredictorClient,
    RetryPolicy,
    ServiceUnreachable,
)
from services.batch.main import create_app as create_batch_app
from services.batch.settings import BatchSettings
from services.dashboard import drafts
from services.dashboard.batches import BINS, MAX_SHOWN, Results
from services.dashboard.drafts import MAX_DRAFTS, MAX_ROWS, Drafts, order
from services.dashboard.live import signed_out
from services.dashboard.pages import batch
from services.dashboard.sessions import Session, Sessions, SignedOut
from services.dashboard.uploading import File
from shared.access.api_keys import parse_keys
from tests.batch.conftest import working
from tests.dashboard.conftest import client_of, settings_of, started
from tests.dashboard.test_pages import _csv, _number, _region, _shows
from tests.harness import HOST, System, free_port
from tests.serving import served
from tests.waiting import eventually

_FILE = File(
    "loans.csv",
    b"Loan_ID,ApplicantIncome\n" + b"".join(b"J%d,%d\n" % (n, 4000 + n) for n in range(30)),
)


@pytest.fixture
def batch_settings(standing: System) -> BatchSettings:
    """Settings of the batch service on the system's servers, with every wait made short."""
    return BatchSettings(
        database_url=standing.environment["DATABASE_URL"],
        redis_url=standing.environment["REDIS_URL"],
        history_url=standing.history_url,
        api_keys=parse_keys(standing.environment["API_KEYS"]),
        batch_poll_s=0.02,
    )


@pytest_asyncio.fixture
async def batch_url(batch_settings: BatchSettings) -> AsyncIterator[str]:
    """The address of the batch service, without a worker."""
    async with served(create_batch_app(batch_settings)) as client:
        yield str(client.base_url)


@pytest_asyncio.fixture
async def user(
    standing: System, batch_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[User]:
    """Somebody at this machine, with a page to open."""
    async with (
        started(settings_of(standing, batch_url=batch_url)) as app,
        client_of(app) as http,
    ):
        visitor = User(http)
        monkeypatch.setattr(ui, "navigate", visitor.navigate)
        yield visitor


@pytest.fixture
def api(standing: System) -> Iterator[LoanPredictorClient]:
    """The APIs themselves."""
    with LoanPredictorClient(
        standing.inference_url, standing.history_url, api_key=standing.api_key
    ) as api:
        yield api


@pytest_asyncio.fixture
async def owner(standing: System, batch_url: str) -> AsyncIterator[Session]:
    """The session that uploads the files."""
    async with AsyncLoanPredictorClient(
        standing.inference_url, standing.history_url, batch_url=batch_url, api_key=standing.api_key
    ) as client:
        yield Session("somebody", client)


async def _order(user: User, pressed: str = "decide") -> str:
    """Press the button, and return the batch whose page opens."""
    user.find(marker="batch").trigger("click", pressed)
    await eventually(lambda: "batch=" in user.back_history[-1])
    return user.back_history[-1].partition("batch=")[2]


async def _upload(user: User, *lines: str) -> None:
    answer = await user.http_client.post("/batch/upload", files=_csv(*lines))
    assert answer.status_code == 303
    await user.open(answer.headers["location"])


def _assert_faults(shown: str) -> None:
    lines = re.findall(r'<th scope="row">(\d+)</th>', shown.partition("Rows with faults")[2])
    assert lines == ["3", "5"]
    assert "ApplicantIncome must be greater than 0" in shown
    assert "has 1 cell, the header has 3" in shown


def _assert_second_look(shown: str) -> None:
    assert "Worth a second look" in shown
    assert "income is below 1000 per month (1 row, line 3)" in shown
    assert "Credit history is missing (2 rows, lines 2, 3)" in shown
    assert _number(shown, "warned") == "2"


async def test_batch_is_checked_decided_and_downloaded(
    user: User, api: LoanPredictorClient, batch_settings: BatchSettings
) -> None:
    """Bad rows by line; the good ones are decided once each."""
    await _upload(
        user, "Loan_ID,ApplicantIncome,Loan_Status", "=B1,5000,Y", "B2,0,N", "", "B3", "B4,6000,Y"
    )
    _assert_faults(_region(user, "batch"))
    async with working(batch_settings):
        identifier = await _order(user)
        await _shows(user, "batch", "Download decisions")
    shown = _region(user, "batch")
    assert (_number(shown, "decided"), _number(shown, "bad")) == ("2", "2")
    _assert_faults(shown)
    assert "Probability of approval" in shown
    learnt, counted = shown.partition("Of the applications in training")[2], api.compare().data.rows
    buckets = re.findall(r'data-bucket="[^"]*">([^<]*)<', learnt)
    assert sum(int(each.replace(",", "")) for each in buckets) == counted
    download = await user.http_client.get(f"/batch/{identifier}/decisions.csv")
    rows = list(csv.DictReader(io.StringIO(download.text)))
    assert [(row["line"], row["Loan_ID"]) for row in rows] == [("2", "'=B1"), ("6", "B4")]
    for kind, begin in (("ndjson", b'{"line":2'), ("parquet", b"PAR1")):
        download = await user.http_client.get(f"/batch/{identifier}/decisions.{kind}")
        assert download.content.startswith(begin)
    assert (await user.http_client.get(f"/batch/{identifier}/decisions.xlsx")).status_code == 400
    await eventually(lambda: len(api.history(Filters(loan_id="B4")).items) == 1)
    [record] = api.history(Filters(loan_id="B4")).items
    assert rows[1]["prediction_id"] == str(record.prediction_id)
    assert f"/history/{record.prediction_id}" in shown


async def test_batch_asks_what_is_meant_and_reads_what_is_chosen(
    user: User, api: LoanPredictorClient, batch_settings: BatchSettings
) -> None:
    """Unknown columns, spellings, what counted as missing, repeated numbers and warnings."""
    await _upload(
        user,
        "loan id;ApplicantINCOME;Married;LoanAmount;Educaton",
        "Q1;$4,583;Y;NA;1",
        "Q1;700;N;128;2",
    )
    shown = _region(user, "batch")
    for said in (
        "separated by semicolons",
        "NA counts as a missing value, in 1 cell",
        "Educaton; if it should be Education, rename it in the file",
        "Missing in every row because it has no column: Dependents, Education, ",
        "Q1 (2 rows, lines 2, 3)",
        "$4,583 has a currency sign: read it as 4583? (1 cell)",
        "Married: read Y as Yes (1 cell), N as No (1 cell)?",
    ):
        assert said in shown
    chosen = re.findall(r'type="checkbox" name="([^"]+)"', shown)
    assert len(chosen) == 3
    user.find(marker="batch").trigger("submit", dict.fromkeys(chosen, "on"))
    await _shows(user, "batch", "Decide 2 applications")
    _assert_second_look(_region(user, "batch"))
    async with working(batch_settings):
        await _order(user)
        await _shows(user, "batch", "Download decisions")
    shown = _region(user, "batch")
    _assert_second_look(shown)
    assert "Missing in every row because it has no column: Dependents, Education, " in shown
    identifiers = re.findall(r"/history/([0-9a-f-]{36})", shown)
    await eventually(lambda: len(api.history(Filters(loan_id="Q1")).items) == 2)
    records = {str(r.prediction_id): r for r in api.history(Filters(loan_id="Q1")).items}
    read = [records[identifier].input_data for identifier in identifiers]
    assert [(each.ApplicantIncome, each.Married) for each in read] == [(4583, "Yes"), (700, "No")]


async def test_batch_outlives_the_dashboard_and_can_be_cancelled(
    user: User, standing: System, batch_url: str, batch_settings: BatchSettings
) -> None:
    """Several at once, listed with their progress; what is tried out leaves no record."""
    await _upload(user, "ApplicantIncome", "5000", "6000")
    tried = await _order(user, "try")
    await _shows(user, "batch", "0 of 0 applications")
    await _upload(user, "ApplicantIncome", "7000")
    cancelled = await _order(user)
    await _shows(user, "batch", "Cancel")
    user.find(marker="batch").trigger("click", "cancel")
    await _shows(user, "batch", "cancelled")
    restarted = Session(
        "another", AsyncLoanPredictorClient("", "", batch_url=batch_url, api_key=standing.api_key)
    )
    listed = {str(each.id): each for each in (await restarted.api.batches()).items}
    assert (listed[tried].state, listed[cancelled].state) == ("queued", "cancelled")
    async with working(batch_settings):
        await user.open(f"/batch?batch={tried}")
        await _shows(user, "batch", "Download decisions")
    shown = _region(user, "batch")
    assert "not recorded" in shown
    assert "See the record" not in shown
    await user.open(f"/batch?batch={cancelled}&again")
    await _shows(user, "batch", f"as batch {cancelled}. Nothing is recorded twice.")
    await user.open("/batch")
    await _shows(user, "batches", f"/batch?batch={cancelled}")
    assert "done, not recorded" in _region(user, "batches")
    await restarted.client.aclose()


async def test_same_file_ordered_again_is_the_same_batch(owner: Session) -> None:
    """By any dashboard; tried out, or read in another way, it is another one."""
    made = await order(Drafts().begin(_FILE, owner), record=True)
    assert (await order(Drafts().begin(_FILE, owner), record=True)).id == made.id
    assert (await order(Drafts().begin(_FILE, owner), record=False)).id != made.id


async def test_file_is_not_ordered_during_an_outage_or_after_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drafts, "_RETRY_POLICY", RetryPolicy(attempts=1))
    url = f"http://{HOST}:{free_port()}"
    async with AsyncLoanPredictorClient(url, url, batch_url=url) as client:
        sessions = Sessions()
        owner = sessions.find(sessions.begin("somebody", client))
        assert owner is not None
        draft = Drafts().begin(_FILE, owner)
        shown, again = await batch.draft_with_warnings(draft, "")
        assert again
        assert "this page keeps trying and recovers by itself" in shown
        assert "Decide 30 applications" in shown
        with pytest.raises(ServiceUnreachable):
            await order(draft, record=True)
        sessions.end(owner)
        assert await batch.draft_with_warnings(draft, "") == (signed_out(), False)
        with pytest.raises(SignedOut):
            await order(draft, record=True)


def test_draft_is_its_sessions_own_and_the_oldest_is_displaced() -> None:
    """Memory is bounded."""
    client = AsyncLoanPredictorClient("")
    owner = Session("somebody", client)
    made = Drafts()
    first = made.begin(_FILE, owner)
    assert made.find(first.identifier, owner) is first
    assert made.find(first.identifier, Session("another", client)) is None
    for _ in range(MAX_DRAFTS):
        made.begin(_FILE, owner)
    assert made.find(first.identifier, owner) is None


def test_first_answer_to_the_questions_of_a_file_counts() -> None:
    """What is ordered is what every page shows, however many are open."""
    file = File("loans.csv", b'ApplicantIncome,LoanAmount\n"4,583",128\n5000,"1,100"\n')
    draft = Drafts().begin(file, Session("somebody", AsyncLoanPredictorClient("")))
    [spelling] = draft.spellings
    draft.check([spelling.key])
    assert (len(draft.applications), draft.faults) == (2, {})
    draft.check([])
    assert draft.chosen == [spelling.key]
    assert (len(draft.applications), draft.faults) == (2, {})


def test_file_with_too_many_rows_is_pointed_to_the_service_and_the_command() -> None:
    """Both take larger ones."""
    file = File("loans.csv", b"ApplicantIncome\n" + b"1\n" * (MAX_ROWS + 1))
    draft = Drafts().begin(file, Session("somebody", AsyncLoanPredictorClient("")))
    assert draft.problem.startswith("The file has more than 10,000 rows. ")
    assert "POST /batches" in draft.problem
    assert "loan-predictor score" in draft.problem


def test_many_faults_and_decisions_are_counted_and_the_first_are_shown() -> None:
    """The download has all of them."""
    lines = b"".join(b"%d,many\n" % n for n in range(300))
    file = File("loans.csv", b"ApplicantIncome,LoanAmount\n" + lines)
    draft = Drafts().begin(file, Session("somebody", AsyncLoanPredictorClient("")))
    shown = batch.draft_state(draft, "/app")
    assert shown.count("LoanAmount must be a number") == MAX_SHOWN
    assert "and 200 more" in shown
    assert "/app/batch" in shown
    results = Results()
    for line in range(300):
        probability = {"approved": line / 299}
        results.add({"line": line, "warnings": ["odd"] * (line % 2), "probability": probability})
    assert len(results.decisions) == MAX_SHOWN
    assert len(results.warnings["odd"]) == 150
    assert sum(each.predictions for each in results.bins) == 300
    assert [each.at_least for each in results.bins] == [number / BINS for number in range(BINS)]

"""What each page does, by NiceGUI's simulated user and the shipped services.

How it looks, and that a browser makes of it what is meant, is tested in tests/browser.
"""

import asyncio
import csv
import io
import re
from collections.abc import Iterator
from html import unescape
from uuid import UUID

import pytest
from markupsafe import escape
from nicegui import ui
from nicegui.testing import User

from loan_predictor_client import Arm, Candidate, Filters, LoanPredictorClient
from services.batch.database import open_pool
from services.batch.settings import BatchSettings
from services.batch.what_if import WhatIfs
from services.dashboard import live
from services.dashboard.formatting import points
from services.dashboard.uploading import MAX_BYTES
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.replay import Bundles
from services.scoring.store import BundleStore
from shared.contract.application import EXAMPLE
from shared.pictures.formats import count, model_title, percent, with_titles
from tests.harness import System
from tests.waiting import eventually, until


@pytest.fixture(scope="module")
def api(standing: System) -> Iterator[LoanPredictorClient]:
    """The APIs themselves, with some decisions in them."""
    with LoanPredictorClient(
        standing.inference_url, standing.history_url, api_key=standing.api_key
    ) as client:
        for number in range(25):
            client.predict(EXAMPLE | {"Loan_ID": f"LP{number}", "Credit_History": number % 2})
        until(lambda: client.statistics().total_predictions == 25)
        yield client


_FILLED_IN = {name: str(value) for name, value in EXAMPLE.items()}


def _region(user: User, name: str) -> str:
    [element] = user.find(marker=name).elements
    assert isinstance(element, ui.html)
    return str(element.content)


async def _shows(user: User, name: str, text: str) -> None:
    await eventually(lambda: text in _region(user, name))


def _number(content: str, name: str) -> str:
    found = re.search(rf'data-value="{name}"[^>]*>(?:<[^>]*>)?([^<]*)<', content)
    assert found, f"there is no number {name}"
    return found[1]


async def test_decision_is_shown_as_it_is_recorded(user: User, api: LoanPredictorClient) -> None:
    """With the imputed inputs and the warnings."""
    await user.open("/")
    values = _FILLED_IN | {"ApplicantIncome": "700", "LoanAmount": " ", "CoapplicantIncome": ""}
    values |= {"ask": "one"}
    user.find(marker="application").trigger("submit", values)
    await _shows(user, "result", "See the record")
    shown = _region(user, "result")
    identifier = re.search(r"/history/([0-9a-f-]{36})", shown)
    assert identifier
    await eventually(lambda: str(api.history(limit=1).items[0].prediction_id) == identifier[1])
    record = api.record(identifier[1])
    assert _number(shown, "confidence") == percent(record.confidence)
    assert _number(shown, "prediction") == record.prediction
    assert set(record.imputed) == {"CoapplicantIncome", "LoanAmount"}
    filled_in = shown.partition("filled in by the model")[2].partition("</ul>")[0]
    assert "Loan amount" in filled_in
    assert "income" not in filled_in
    for warning in record.warnings:
        assert escape(with_titles(warning)) in shown


async def test_all_models_are_asked_without_a_record(user: User, api: LoanPredictorClient) -> None:
    """Each by its name, with the consensus."""
    before = api.statistics().total_predictions
    await user.open("/")
    user.find(marker="application").trigger("submit", _FILLED_IN | {"ask": "all"})
    await _shows(user, "result", "models agree")
    shown = _region(user, "result")
    benchmark = api.benchmark(EXAMPLE)
    assert _number(shown, "agree") == str(benchmark.consensus.models_agree)
    for name, result in benchmark.results.items():
        assert f'data-model="{name}"' in shown
        assert percent(result.probability.approved) in shown
    assert api.statistics().total_predictions == before


async def test_faults_come_back_with_what_was_typed(user: User) -> None:
    """Escaped, whatever was typed."""
    await user.open("/")
    values = _FILLED_IN | {"ApplicantIncome": '"><script>alert(1)</script>'}
    user.find(marker="application").trigger("submit", values)
    await _shows(user, "application", "must be a number")
    form = _region(user, "application")
    assert 'id="ApplicantIncome" name="ApplicantIncome" aria-invalid="true"' in form
    assert """<a href="#ApplicantIncome">Applicant&#39;s income</a> must be a number""" in form
    assert "<script>" not in form
    assert "&lt;script&gt;" in form


async def test_form_opens_empty_and_asks_for_the_credit_history(user: User) -> None:
    """The Loan ID comes first; a credit history that is not known is said so, never left out."""
    await user.open("/")
    form = _region(user, "application")
    assert "selected" not in re.sub(r'value="" selected', "", form)
    assert not re.search(r'<input[^>]* value="[^"]', form)
    assert re.search(r'(?:id|name)="(\w+)"', form)[1] == "Loan_ID"  # type: ignore[index]
    values = _FILLED_IN | {"Credit_History": "", "LoanAmount": "-1", "ask": "one"}
    user.find(marker="application").trigger("submit", values)
    await _shows(user, "application", "2 fields to correct")
    form = _region(user, "application")
    assert 'id="Credit_History-fault">must be chosen; not known is a choice, too<' in form
    assert 'id="LoanAmount-fault">must be greater than 0<' in form


async def test_form_takes_grouped_numbers_and_warns_of_a_loan_decided_before(
    user: User, api: LoanPredictorClient
) -> None:
    """A credit history that is not known is recorded as missing."""
    await user.open("/")
    values = _FILLED_IN | {"Loan_ID": "LP-GROUPED", "Credit_History": "not known"}
    values |= {"ApplicantIncome": "12,000", "ask": "one"}
    user.find(marker="application").trigger("change", ["Loan_ID", "LP-GROUPED"])
    user.find(marker="application").trigger("submit", values)
    await _shows(user, "result", "See the record")
    assert _region(user, "decided-before") == ""
    by_loan = Filters(loan_id="LP-GROUPED")
    await eventually(lambda: len(api.history(by_loan).items) == 1)
    [record] = api.history(by_loan).items
    assert record.input_data.ApplicantIncome == 12000
    assert record.imputed == ["Credit_History"]
    user.find(marker="application").trigger("change", ["Loan_ID", " LP-GROUPED "])
    await _shows(user, "decided-before", "LP-GROUPED was decided before")
    assert f"/history/{record.prediction_id}" in _region(user, "decided-before")
    user.find(marker="application").trigger("change", ["Loan_ID", "LP OTHER"])
    await eventually(lambda: _region(user, "decided-before") == "")


async def test_history_shows_pages_filters_and_records(
    user: User, api: LoanPredictorClient
) -> None:
    """What the API gives for the same filters, and each record in full."""
    rejected = api.history(Filters(prediction="Rejected"), limit=20)
    await user.open("/history?prediction=Rejected")
    await _shows(user, "decisions", "Download as CSV")
    listed = _region(user, "decisions")
    assert re.findall(r"/history/([0-9a-f-]{36})", listed) == [
        str(record.prediction_id) for record in rejected.items
    ]
    assert "Filters (1 in use)" in _region(user, "filters")
    assert f'<option value="{rejected.items[0].model_info.name}"' in _region(user, "filters")
    first = api.history(limit=20)
    assert first.next_cursor
    await user.open(f"/history?cursor={first.next_cursor}")
    await _shows(user, "decisions", "Newest")
    record = rejected.items[0]
    await user.open(f"/history/{record.prediction_id}")
    await _shows(user, "record", record.request_id)
    assert _number(_region(user, "record"), "rejected") == percent(record.probability.rejected)
    export = await user.http_client.get("/history-export.csv?prediction=Rejected")
    rows = list(csv.DictReader(io.StringIO(export.text)))
    everything = api.records(Filters(prediction="Rejected"))
    assert [row["id"] for row in rows] == [str(record.prediction_id) for record in everything]


async def test_refusal_shows_its_reasons_and_what_would_change_it(
    user: User, api: LoanPredictorClient
) -> None:
    """At once where the answer has reasons; what counted for any other model when asked."""
    refused = EXAMPLE | {"ApplicantIncome": 2000, "LoanAmount": 200, "Credit_History": 0}
    values = {name: str(value) for name, value in refused.items()}
    await user.open("/")
    user.find(marker="application").trigger("submit", values | {"ask": "one"})
    await _shows(user, "why", "What counted")
    shown = _region(user, "result")
    explanation = api.explain(refused)
    assert explanation.reasons
    assert all(reason.text in shown for reason in explanation.reasons)
    assert "What would change it" in shown
    assert (
        f"{percent(found.probability.approved)}" in shown
        if (found := next(iter(explanation.nearest_changes or ()), None))
        else "would be enough" in shown
    )
    assert f'data-value="score">{points(explanation.score)}<' in _region(user, "why")
    user.find(marker="application").trigger("submit", values | {"ask": "all"})
    await _shows(user, "result", "models agree")
    assert _region(user, "why") == ""
    user.find(marker="result").trigger("click", "support_vector_machine")
    await _shows(user, "why", "a typical applicant")


async def test_record_says_what_counted_and_is_erased_by_a_key_that_may(
    user: User, api: LoanPredictorClient
) -> None:
    """A record without reasons explains itself when asked; an erased one is reported as such."""
    decision = api.predict(EXAMPLE | {"Loan_ID": "LP-ERASED"})
    by_loan = Filters(loan_id="LP-ERASED")
    await eventually(lambda: len(api.history(by_loan).items) == 1)
    await user.open(f"/history/{decision.prediction_id}")
    await _shows(user, "record", "gives the same answer to the recorded application")
    assert 'data-value="contributions"' not in _region(user, "record")
    user.find(marker="record").trigger("click", decision.model_info.name)
    await _shows(user, "record", 'data-value="contributions"')
    assert "LP-ERASED" in _region(user, "record")
    user.find(marker="record").trigger("click", "erase")
    await _shows(user, "record", "The values are erased")
    assert api.history(by_loan).items == []
    await user.open(f"/history/{decision.prediction_id}")
    await _shows(user, "record-notice", "were erased")


async def test_outcome_is_reported_on_the_record_and_shown_there(
    user: User, api: LoanPredictorClient
) -> None:
    """A fault stands at its field, what was typed stays; a later outcome supersedes visibly."""
    [record] = api.history(limit=1).items
    await user.open(f"/history/{record.prediction_id}")
    await _shows(user, "record", "not known yet")
    today = f"{record.timestamp:%Y-%m-%d}"
    values = {"outcome": "", "observed_at": today, "matures_at": ""}
    user.find(marker="record").trigger("submit", values)
    await _shows(user, "notice", "is not recorded")
    assert 'id="outcome-fault"' in _region(user, "record")
    assert f'value="{today}"' in _region(user, "record")
    for outcome, shown in (("late_90", "90 days late"), ("repaid", "Repaid")):
        user.find(marker="record").trigger("submit", values | {"outcome": outcome})
        await _shows(user, "notice", "The outcome is recorded")
        await _shows(user, "record", f'<th scope="row">{shown}</th>')
    assert '<th scope="row">90 days late, superseded</th>' in _region(user, "record")
    await user.open(f"/history?outcome=repaid&loan_id={record.input_data.Loan_ID}")
    await _shows(user, "decisions", str(record.prediction_id))


async def test_file_of_outcomes_is_recorded_and_its_faults_are_named(
    user: User, api: LoanPredictorClient
) -> None:
    """By their line in the file; the same file again changes nothing."""
    records = api.history(limit=3).items[1:]
    lines = [f"{record.prediction_id};default;{record.timestamp:%Y-%m-%d}" for record in records]
    content = "\n".join(["Prediction ID;Outcome;Observed at", *lines, "x;repaid;2026-01-01"])
    for key, recorded in (("accepted", "2"), ("unchanged", "2")):
        files = {"file": ("outcomes.csv", content.encode(), "text/csv")}
        answer = await user.http_client.post("/outcomes/upload", files=files)
        assert answer.status_code == 303
        await user.open(answer.headers["location"])
        await _shows(user, "outcomes", "Another file")
        assert _number(_region(user, "outcomes"), key) == recorded
        assert _number(_region(user, "outcomes"), "faulty") == "1"
    assert '<th scope="row">4</th>' in _region(user, "outcomes")
    assert api.record(records[0].prediction_id).outcomes[0].outcome == "default"
    files = {"file": ("x.csv", b"a,b\n1,2\n", "text/csv")}
    answer = await user.http_client.post("/outcomes/upload", files=files)
    await user.open(answer.headers["location"])
    await _shows(user, "outcomes", "has to name the columns")


async def test_a_candidate_is_promoted_and_rolled_back_with_a_reason(
    user: User, api: LoanPredictorClient
) -> None:
    """The page shows what decides, the arms side by side and the changes, and who made them."""
    await user.open("/rollout")
    await _shows(user, "rollout", "Nothing is rolled out")
    assert _region(user, "change") == ""
    bundle = api.model_info().version
    # The inference service registers it once it has started.
    await eventually(lambda: bundle in {each.version for each in api.bundles().bundles})
    arms = [Arm(bundle=bundle, model=name) for name in ("gradient_boosting", "random_forest")]
    await _shows(user, "rollout", f"its own default, {bundle}")
    await _shows(user, "rollout", "decides now, as a replica")
    candidate = Candidate(**arms[1].model_dump(), share=2500)
    api.change_rollout(epoch=0, reason="a page", default=arms[0], candidate=candidate)
    share = percent(0.25, 2)
    await _shows(user, "rollout", f"{share} meet {model_title(arms[1].model)} of {bundle}")
    await _shows(user, "rollout", "Too few yet")
    await _shows(user, "change", "Promote the candidate")

    user.find(marker="change").trigger(
        "submit", {"epoch": "1", "change": "promote", "reason": "it is better"}
    )
    await _shows(user, "notice", "Roll-out 2 is pending")
    await _shows(user, "rollout", "Roll-out 2 decides")
    await _shows(user, "rollout", "promote by local")
    assert "it is better" in _region(user, "rollout")
    await _shows(user, "change", 'value="2"')
    assert "Promote" not in _region(user, "change")
    for epoch, notice in (("1", "newest roll-out has the epoch 2"), ("2", "Roll-out 3 is pending")):
        user.find(marker="change").trigger(
            "submit", {"epoch": epoch, "change": "roll back", "reason": "it is not"}
        )
        await _shows(user, "notice", notice)
    await eventually(lambda: _is_served(api, arms[0]))


async def test_a_what_if_is_asked_followed_cancelled_and_shown_with_pictures(
    user: User, api: LoanPredictorClient, standing: System
) -> None:
    """Nobody else works on it here, so it waits until the test does."""
    await user.open("/rollout/what-if")
    await _shows(user, "order", "the probabilities on record")
    typed = dict.fromkeys(("arm", "decided_by", "since", "until", "low", "high"), "")
    user.find(marker="order").trigger("submit", typed | {"threshold": "much"})
    await _shows(user, "notice", "Approved from")
    user.find(marker="order").trigger(
        "submit", typed | {"threshold": "40", "low": "1", "high": "2"}
    )
    await _shows(user, "notice", "\u201cApproved from\u201d and \u201cReferred from\u201d exclude")
    for costs in ({}, {"cost-approved_bad": "900"}):
        user.find(marker="order").trigger("submit", typed | {"threshold": "99.9 %"} | costs)
        await eventually(lambda: "queued" in [each.state for each in api.what_ifs(limit=1).items])
        [asked] = api.what_ifs(limit=1).items
        await user.open(f"/rollout/what-if?id={asked.id}")
        await _shows(user, "what-if", "approved from 99.9")
        assert "Cancel" in _region(user, "what-if")
        if not costs:
            user.find(marker="what-if").trigger("click", "cancel")
            await _shows(user, "what-if", "cancelled")
            await user.open("/rollout/what-if")
            await _shows(user, "asked", "cancelled")
    approved = len(list(api.records(Filters(prediction="Approved"))))  # none that were erased
    assert await _work_on_a_what_if(standing)
    await _shows(user, "what-if", "Who would be decided otherwise?")
    shown = _region(user, "what-if")
    assert _number(shown, "newly-refused") == count(approved)
    assert "pic-whisker" in shown.partition("All decisions")[2]


async def _work_on_a_what_if(system: System) -> bool:
    settings = BatchSettings(database_url=system.environment["DATABASE_URL"])
    async with open_pool(settings, name="test", size=3) as pool:
        worker = WhatIfs(
            pool=pool,
            bundles=Bundles(BundleStore(None, shipped=BUNDLE_ROOT), list),
            lease_s=60,
            stopping=asyncio.Event(),
            count=lambda _: None,
        )
        return await worker.work()


def _is_served(api: LoanPredictorClient, arm: Arm) -> bool:
    active = api.rollout().active
    return active is not None and active.epoch == 3 and active.rollout.default == arm


async def test_history_names_what_is_wrong_with_its_address(user: User) -> None:
    """At the field if the API names one, else above; an empty result is not an error."""
    await user.open("/history?since=2026-02-01T00:00&until=2026-01-01T00:00")
    await _shows(user, "decisions-notice", "\u201cDecided since\u201d must be earlier than")
    await user.open("/history?min_confidence=200")
    await _shows(user, "filters", "min_confidence-fault")
    await user.open("/history?min_confidence=half")
    await _shows(user, "filters", "cannot be read")
    assert (await user.http_client.get("/history-export.csv?since=x")).status_code == 400
    assert (await user.http_client.get("/history-export.csv?max_confidence=-1")).status_code == 400
    await user.open("/history?loan_id=none")
    await _shows(user, "decisions", "Nothing matches")
    await user.open("/history/0198c6d0-9711-7b92-8f26-d0c4a1b35e68")
    await _shows(user, "record-notice", "There is nothing here")


async def test_statistics_are_the_apis_and_follow_them(
    user: User, api: LoanPredictorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Totals and groups at once, and again when something was decided."""
    monkeypatch.setattr("services.dashboard.pages.statistics.REFRESH_S", 0.2)
    await user.open("/statistics")
    total = count(api.statistics().total_predictions)
    await _shows(user, "statistics", f'data-value="total">{total}<')
    shown = _region(user, "statistics")
    analytics = api.analytics()
    assert _number(shown, "recent-rate") == percent(analytics.last_24_hours.approval_rate)
    for name, summary in analytics.by_credit_history.items():
        row = shown.partition(f'data-group="{name}"')[2]
        assert _number(row, "rate") == percent(summary.approval_rate)
    before = api.statistics().total_predictions
    api.predict(EXAMPLE)
    await _shows(user, "statistics", f'data-value="total">{count(before + 1)}<')


async def test_models_are_compared_and_the_card_is_shown(
    user: User, api: LoanPredictorClient
) -> None:
    """With the API's verdict, and its pictures through the dashboard's own address."""
    await user.open("/models")
    compared = api.compare()
    await _shows(user, "models", compared.champion_reason)
    shown = _region(user, "models")
    for name, model in compared.models.items():
        assert model_title(name) in shown
        assert percent(model.cross_validation.accuracy.mean) in shown
    [card] = user.find(ui.markdown).elements
    assert "](/pictures/roc.png)" in card.content
    picture = await user.http_client.get("/pictures/roc.png")
    assert picture.content == api.picture("roc.png")
    assert picture.headers["cache-control"] == "no-cache"  # the next roll-out has another one
    assert (await user.http_client.get("/pictures/none.png")).status_code == 404


async def test_models_page_has_the_table_of_points_of_each_additive_model(
    user: User, api: LoanPredictorClient
) -> None:
    """The champion's first: each attribute in words, with its points."""
    await user.open("/models")
    await _shows(user, "models", "Points of Gradient boosting")
    shown = _region(user, "models")
    champions, linear = re.findall(r"Points of [\w ]+</h2>.*?</table>", shown, re.DOTALL)
    assert "Points of Gradient boosting" in champions
    assert "Points of Logistic regression" in linear
    [history] = [
        each
        for each in api.scorecard("gradient_boosting").characteristics
        if each.inputs == ["Credit_History"]
    ]
    for words, attribute in zip(
        ("Did not meet its guidelines", "Met its guidelines", "not given"),
        history.attributes,
        strict=True,
    ):
        assert re.search(rf">{words}</td>\s*<td[^>]*>{re.escape(points(attribute.points))}<", shown)
    assert re.search(r"above 36\.16, up to 36\.68 months of income", champions)


async def test_record_leads_to_the_card_of_its_own_bundle(
    user: User, api: LoanPredictorClient
) -> None:
    """Also where an earlier bundle decided; a bundle that is not there is said to be missing."""
    record = api.history(limit=1).items[0]
    await user.open(f"/history/{record.prediction_id}")
    await _shows(user, "record", f'href="/models/{record.model_info.version}"')
    for version in (record.model_info.version, "b-35e62725"):
        await user.open(f"/models/{version}")
        await _shows(user, "bundle", "The models served now")
        [card] = user.find(ui.markdown).elements
        assert f"bundle {version}" in card.content
        assert f"](/pictures/{version}/roc.png)" in card.content
        picture = await user.http_client.get(f"/pictures/{version}/roc.png")
        assert picture.content == api.picture("roc.png", bundle=version)
    await user.open("/models/b-00000000")
    await _shows(user, "bundle-notice", "There is no bundle")


async def test_monitoring_says_what_is_known_of_the_model_that_decides_most(
    user: User, api: LoanPredictorClient
) -> None:
    """Or of one that is chosen; the report on it can be printed."""
    await user.open("/monitoring")
    [model] = api.live_performance().models
    await _shows(user, "monitoring", model.on_whom)
    shown = _region(user, "monitoring")
    assert model.not_enough
    assert model.not_enough in shown
    for trend in api.vintages().trends:
        assert str(escape(trend.conclusion.text)) in shown
    assert "<p>Too little to say.</p>" in shown
    link = re.search(r'href="(/monitoring/report[^"]*)"', shown)
    assert link
    printed = await user.http_client.get(unescape(link[1]))
    assert printed.headers["content-type"].startswith("text/html")
    assert model.on_whom in printed.text
    await user.open(f"/monitoring?of={model.bundle}/{model.model}&until=2020-01")
    await _shows(user, "monitoring", "Nothing was decided in that time")
    assert (await user.http_client.get("/monitoring/report?since=May")).status_code == 400


async def test_months_that_monitoring_refuses_stay_in_the_form_to_be_corrected(
    user: User, api: LoanPredictorClient
) -> None:
    """With the chosen model and with what is wrong in words."""
    await user.open("/monitoring?since=May")
    await _shows(user, "monitoring", "must be a month")
    assert 'value="May"' in _region(user, "monitoring")
    [model] = api.live_performance().models
    of = f"{model.bundle}/{model.model}"
    await user.open(f"/monitoring?of={of}&since=2026-11&until=2026-11")
    await _shows(user, "monitoring", "“Decided since” 2026-11 and “Decided before” 2026-12")
    shown = _region(user, "monitoring")
    assert shown.count('value="2026-11"') == 2
    assert f'<option value="{of}">' in shown


def _csv(*lines: str) -> dict[str, tuple[str, str, str]]:
    return {"file": ("loans.csv", "\n".join(lines), "text/csv")}


async def test_unusable_file_is_reported(user: User) -> None:
    """So is one that is no longer here."""
    for content, said in (
        ("ApplicantIncom\n1\n", "perhaps it should be ApplicantIncome"),
        ("", "The file is empty"),
    ):
        answer = await user.http_client.post("/batch/upload", files=_csv(content))
        await user.open(answer.headers["location"])
        await _shows(user, "batch", said)
        assert "Check the file" in _region(user, "batch")
    await user.open("/batch?draft=unknown")
    await _shows(user, "batch", "choose it again")
    for batch, status in (("unknown", 404), (UUID(int=1), 503)):
        answer = await user.http_client.get(f"/batch/{batch}/decisions.csv")
        assert answer.status_code == status
    assert (await user.http_client.post("/batch/upload", data={"file": "x"})).status_code == 400
    large = {"file": ("x.csv", b"x" * (MAX_BYTES + 5000), "text/csv")}
    for page, way_out in (("batch", "POST /batches"), ("outcomes", "Send it in parts")):
        answer = await user.http_client.post(f"/{page}/upload", files=large)
        assert answer.status_code == 303
        await user.open(answer.headers["location"])
        await _shows(user, page, "The file cannot be used")
        assert "more than 5 MB" in _region(user, page)
        assert way_out in _region(user, page)


async def test_upload_is_kept_in_memory(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is about people, and a full disk stops nobody."""
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    large = {"file": ("x.csv", b"ApplicantIncome\n" + b"5000\n" * 500_000, "text/csv")}
    assert (await user.http_client.post("/batch/upload", files=large)).status_code == 303


@pytest.mark.parametrize(
    "parameters", ["", "boundary=", "boundary=y", "boundary=x; charset=undefined"]
)
async def test_form_that_cannot_be_read_is_refused(user: User, parameters: str) -> None:
    """Whatever it says of itself."""
    part = b'--x\r\ncontent-disposition: form-data; name="file"; filename="x.csv"\r\n\r\n1\r\n--x--'
    headers = {"content-type": f"multipart/form-data; {parameters}"}
    answer = await user.http_client.post("/batch/upload", content=part, headers=headers)
    assert answer.status_code == 400


async def test_address_without_a_page_is_a_friendly_404(user: User) -> None:
    """With the way back."""
    answer = await user.http_client.get("/nowhere/at-all")
    assert answer.status_code == 404
    assert "There is no such page" in answer.text


async def test_outage_is_shown_and_ends_by_itself(
    user: User, api: LoanPredictorClient, standing: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deciding, a page that is open, one that is opened meanwhile, downloads and a batch."""
    monkeypatch.setattr(live, "RETRY_S", 0.1)
    await user.open("/")
    standing.inference.kill()
    user.find(marker="application").trigger("submit", _FILLED_IN | {"ask": "one"})
    await _shows(user, "result", "does not answer at the moment")
    await _shows(user, "services", "the inference service does not answer")
    assert (await user.http_client.get("/pictures/roc.png")).status_code == 503
    await user.open("/models")
    await _shows(user, "models-notice", "recovers by itself")
    await asyncio.to_thread(standing.inference.start)
    await _shows(user, "models", api.compare().champion_reason)
    await eventually(lambda: _region(user, "models-notice") == "")
    await eventually(lambda: _region(user, "services") == "")
    standing.history.kill()
    assert (await user.http_client.get("/history-export.csv")).status_code == 503
    await asyncio.to_thread(standing.history.start)
    assert (await user.http_client.get("/history-export.csv")).status_code == 200

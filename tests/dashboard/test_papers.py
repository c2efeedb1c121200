"""The papers of one decision, as a browser without scripts gets them."""

import re
from collections.abc import Iterator
from hashlib import sha256

import pytest
from markupsafe import escape
from nicegui.testing import User

from loan_predictor_client import LoanPredictorClient
from loan_predictor_client.models import Record
from services.dashboard.letter import as_text, letter
from services.dashboard.waterfall import bars
from shared.contract.application import EXAMPLE
from shared.pictures.formats import with_titles
from tests.harness import System
from tests.waiting import until

_REFUSED = EXAMPLE | {"ApplicantIncome": 1800, "LoanAmount": 300, "Credit_History": 0}
_CASES = (
    (None, _REFUSED | {"Loan_ID": "LP<1>", "Dependents": None, "CoapplicantIncome": None}),
    ("random_forest", _REFUSED),
    (None, EXAMPLE),
)


@pytest.fixture(scope="module")
def api(standing: System) -> Iterator[LoanPredictorClient]:
    """The APIs themselves."""
    with LoanPredictorClient(
        standing.inference_url, standing.history_url, api_key=standing.api_key
    ) as client:
        yield client


@pytest.fixture(scope="module")
def records(api: LoanPredictorClient) -> list[Record]:
    """A refusal by the champion, one by a model without reasons of its own, and an approval."""
    made = [api.predict(application, model=model) for model, application in _CASES]
    until(lambda: api.statistics().total_predictions == len(made))
    return [api.record(decision.prediction_id) for decision in made]


async def test_dossier_holds_the_whole_record_and_what_can_be_found_of_it(
    user: User, api: LoanPredictorClient, records: list[Record]
) -> None:
    """Inputs as recorded and as read, reasons, contributions, replay, checksums and proof."""
    record = records[0]
    page = await user.http_client.get(f"/history/{record.prediction_id}/dossier")
    assert page.status_code == 200
    assert record.reasons
    for said in (
        *(reason.text for reason in record.reasons),
        *(escape(with_titles(warning)) for warning in record.warnings),
        "LP&lt;1&gt;",
        "filled in by the model",
        ">none declared<",
        ">1,800<",
        "Did not meet its guidelines",
        "the approved applicants nearest to the passing score",
        record.request_id,
        record.model_info.version,
        sha256(record.model_dump_json().encode()).hexdigest(),
        api.model_info().data.sha256,
        "gives the same answer to the recorded application",
        "make verify-audit",
    ):
        assert said in page.text
    explanation = api.explain(record.input_data)
    assert page.text.count("lp-step") == len(explanation.contributions)


async def test_dossier_of_a_model_without_reasons_records_those_it_finds(
    user: User, api: LoanPredictorClient, records: list[Record]
) -> None:
    """Once, marked as later; the decision is decided again as it was answered."""
    record = records[1]
    assert record.reasons is None
    page = await user.http_client.get(f"/history/{record.prediction_id}/dossier")
    found = api.record(record.prediction_id)
    assert found.reasons
    assert found.reasons_basis
    assert found.reasons_basis.later
    assert found.reasons == api.explain(record.input_data, model=record.model_info.name).reasons
    assert api.find_reasons(found).reasons == found.reasons
    assert all(reason.text in page.text for reason in found.reasons)
    assert "Found after the decision was answered" in page.text
    assert api.replay(record.prediction_id).equal
    letter_page = await user.http_client.get(f"/history/{record.prediction_id}/letter")
    assert all(reason.text in letter_page.text for reason in found.reasons)


async def test_letter_names_the_recorded_reasons_to_the_applicant(
    user: User, records: list[Record]
) -> None:
    """As HTML and as plain text, with blanks for what only the lender knows."""
    record = records[0]
    path = f"/history/{record.prediction_id}/letter"
    page = await user.http_client.get(path)
    text = await user.http_client.get(f"{path}?format=txt")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert "LP&lt;1&gt;" in page.text
    assert "application LP<1>" in text.text
    assert record.reasons
    for reason in record.reasons:
        assert reason.text in page.text
        assert f"- {reason.text}" in text.text
        assert str(reason.contribution) not in page.text
    for said in ("for a loan of 300,000", "Equal Credit Opportunity Act", "(creditor: name"):
        assert said in text.text
    assert max(map(len, text.text.splitlines())) <= 76
    notice = (
        "The Federal Equal Credit Opportunity Act prohibits creditors from discriminating against"
        " credit applicants on the basis of race, color, religion, national origin, sex, marital"
        " status, age (provided the applicant has the capacity to enter into a binding contract);"
        " because all or part of the applicant's income derives from any public assistance"
        " program; or because the applicant has in good faith exercised any right under the"
        " Consumer Credit Protection Act. The Federal agency that administers compliance with this"
        " law concerning this creditor is ____"
    )
    assert notice in " ".join(text.text.split())


async def test_letter_without_reasons_leaves_them_blank(records: list[Record]) -> None:
    """None is made up."""
    text = as_text(letter(records[0], ()))
    assert re.search(r"main\s+reasons\s+are:\n\n- _+\n- _+\n", text)


async def test_approval_has_no_letter_and_an_unknown_decision_no_paper(
    user: User, records: list[Record]
) -> None:
    """404, in the dashboard's words or the API's."""
    approved = await user.http_client.get(f"/history/{records[2].prediction_id}/letter")
    assert approved.status_code == 404
    assert "The application was approved" in approved.text
    for paper in ("dossier", "letter"):
        path = f"/history/0198c6d0-9711-7b92-8f26-d0c4a1b35e68/{paper}"
        missing = await user.http_client.get(path)
        assert missing.status_code == 404
        assert "There is nothing here" in missing.text


async def test_bars_lead_from_the_reference_to_the_score(
    api: LoanPredictorClient, records: list[Record]
) -> None:
    """Each begins where the one before ends, and all are within the picture."""
    for record in records:
        explanation = api.explain(record.input_data)
        found = bars(explanation)
        total = explanation.reference.mean + sum(bar.points for bar in found)
        assert total == pytest.approx(explanation.score)
        assert min(bar.left for bar in found) == pytest.approx(0)
        assert max(bar.left + bar.width for bar in found) == pytest.approx(100)
    assert sum(bar.width for bar in bars(api.explain(EXAMPLE))) > 0

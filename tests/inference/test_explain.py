"""POST /explain and the scorecards: documented, limited, and never recorded."""

import json
from math import log
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from services.inference.main import create_app
from services.inference.settings import InferenceSettings
from services.scoring.registry import Bundle
from shared.access.limits import parse_limits
from shared.contract.application import EXAMPLE
from shared.contract.events import STREAM
from shared.contract.reasons import REASON_CODES_VERSION
from tests.inference.record import RECORDED
from tests.serving import served

_REFUSED = EXAMPLE | {"Credit_History": 0, "ApplicantIncome": 800, "LoanAmount": 300}


async def test_refusal_is_answered_with_its_reasons(client: httpx.AsyncClient) -> None:
    """By the champion and by the linear model; the others answer null."""
    for path in ("/predict", "/predict/logistic_regression"):
        decision = (await client.post(path, json=_REFUSED)).json()
        assert decision["prediction"] == "Rejected"
        first = decision["reasons"][0]
        assert first["code"] == "C1"
        assert first["inputs"] == ["Credit_History"]
        assert first["text"] == "Credit history does not meet the guidelines"
        assert decision["reasons_basis"] == {
            "reference": "approved_near_threshold",
            "codes_version": REASON_CODES_VERSION,
            "later": False,
        }
    for path in ("/predict/random_forest", "/predict/support_vector_machine"):
        decision = (await client.post(path, json=_REFUSED)).json()
        assert decision["prediction"] == "Rejected"
        assert (decision["reasons"], decision["reasons_basis"]) == (None, None)


async def test_explanation_agrees_with_the_decision_and_is_not_recorded(
    client: httpx.AsyncClient, redis: Redis, bundle: Bundle
) -> None:
    """The same probability and, where the decision has reasons, the same ones."""
    for name in bundle.models:
        explained = (await client.post(f"/explain/{name}", json=_REFUSED)).json()
        assert await redis.xlen(STREAM) == 0
        decision = (await client.post(f"/predict/{name}", json=_REFUSED)).json()
        await redis.delete(STREAM)
        for member in ("model_info", "prediction", "probability"):
            assert explained[member] == decision[member]
        assert explained["reasons"]
        if decision["reasons"] is not None:
            assert explained["reasons"] == decision["reasons"]


async def test_reference_is_the_one_asked_for(client: httpx.AsyncClient) -> None:
    """By default those approved near the threshold; a model without a scorecard has its own."""

    async def reference(path: str) -> Any:
        return (await client.post(path, json=_REFUSED)).json()["reference"]["id"]

    assert await reference("/explain") == "approved_near_threshold"
    assert await reference("/explain?reference=all_applicants") == "all_applicants"
    assert await reference("/explain/random_forest") == "typical_applicant"


@pytest.mark.parametrize(
    "query", ["reference=everybody", "reference=", "reference=all_applicants&reference=everybody"]
)
async def test_unknown_reference_is_refused(client: httpx.AsyncClient, query: str) -> None:
    """And so is one that is given twice."""
    refused = await client.post(f"/explain?{query}", json=_REFUSED)
    assert refused.status_code == 400
    assert refused.json()["validation_errors"][0]["field"] == "reference"


@pytest.mark.parametrize(
    "recorded",
    [json.loads(path.read_bytes())[0] for path in sorted(RECORDED.glob("*.json"))],
    ids=lambda recorded: recorded["model_info"]["version"],
)
async def test_recorded_decision_is_explained_by_the_bundle_it_names(
    client: httpx.AsyncClient, recorded: dict[str, Any]
) -> None:
    """Every bundle that ever decided: the probability is the record's."""
    info = recorded["model_info"]
    explained = await client.post(
        f"/explain/{info['name']}?bundle={info['version']}", json=recorded["input_data"]
    )
    answer = explained.raise_for_status().json()
    assert answer["model_info"] == {"arm": None, **info}
    assert answer["probability"] == recorded["probability"]
    moved = sum(each["contribution"] for each in answer["contributions"])
    assert moved == pytest.approx(answer["score"] - answer["reference"]["mean"], abs=1e-9)


@pytest.mark.parametrize(("bundle", "status"), [("b-00000000", 404), ("../b-ac6978ad", 400)])
async def test_bundle_that_is_not_here_explains_nothing(
    client: httpx.AsyncClient, bundle: str, status: int
) -> None:
    """It is named in the answer, or refused as no version."""
    refused = await client.post("/explain", params={"bundle": bundle}, json=_REFUSED)
    assert refused.status_code == status
    assert "bundle" in refused.text


async def test_unknown_model_has_neither_explanation_nor_scorecard(
    client: httpx.AsyncClient,
) -> None:
    """404, as for a decision; a model without a scorecard has none either."""
    assert (await client.post("/explain/none", json=_REFUSED)).status_code == 404
    assert (await client.get("/models/none/scorecard")).status_code == 404
    lacking = await client.get("/models/random_forest/scorecard")
    assert lacking.status_code == 404
    assert "/explain/random_forest" in lacking.json()["detail"]


async def test_explanations_have_a_limit_of_their_own(settings: InferenceSettings) -> None:
    """They leave an anonymous caller's decisions alone."""
    limited = settings.model_copy(update={"rate_limit_explain": parse_limits("1/hour")})
    async with served(create_app(limited)) as client:
        assert (await client.post("/explain", json=_REFUSED)).status_code == 200
        assert (await client.post("/explain/random_forest", json=_REFUSED)).status_code == 429
        assert (await client.post("/predict", json=_REFUSED)).status_code == 200


async def test_scorecard_shows_the_points_that_decide(
    client: httpx.AsyncClient, bundle: Bundle
) -> None:
    """An applicant's points, looked up by hand in the document, are the score."""
    table = bundle.champion.scorecard
    assert table is not None
    document = (await client.get(f"/models/{bundle.champion.name}/scorecard")).json()
    assert document["passing_score"] == log(
        bundle.manifest.threshold / (1 - bundle.manifest.threshold)
    )
    ratio = 300 * 1000 / (800 + EXAMPLE["CoapplicantIncome"])  # type: ignore[operator]  # it is a number
    quantities = {"LoanAmount": ratio, "Loan_Amount_Term": EXAMPLE["Loan_Amount_Term"]}
    score = document["base"]
    for characteristic in document["characteristics"]:
        own = characteristic["inputs"][0]
        [found] = [
            each["points"]
            for each in characteristic["attributes"]
            if (
                each["value"] == str(_REFUSED[own])
                if own not in quantities
                else (each["above"] is None or quantities[own] > each["above"])
                and (each["up_to"] is None or quantities[own] <= each["up_to"])
            )
        ]
        score += found
    explained = (await client.post("/explain", json=_REFUSED)).json()
    assert score == pytest.approx(explained["score"], abs=1e-9)


async def test_linear_models_scorecard_has_points_and_coefficients(
    client: httpx.AsyncClient,
) -> None:
    """Points for each value of a category, points per unit of a quantity."""
    document = (await client.get("/models/logistic_regression/scorecard")).json()
    for characteristic in document["characteristics"]:
        assert bool(characteristic["attributes"]) == (characteristic["coefficient"] is None)
    areas = [each for each in document["characteristics"] if each["inputs"] == ["Property_Area"]]
    [[*values]] = [[each["value"] for each in area["attributes"]] for area in areas]
    assert values == ["Urban", "Semiurban", "Rural", "missing"]
    assert set(document["references"]) == {"approved_near_threshold", "all_applicants"}


async def test_reasons_of_a_record_are_answered_only_once_they_are_recorded(
    client: httpx.AsyncClient,
) -> None:
    """Here the history service is away: 503. What needs no reasons is answered as it is."""
    recorded = {
        path: (await client.post(path, json=application)).json()
        for path, application in (
            ("/predict/random_forest", _REFUSED),
            ("/predict", _REFUSED),
            ("/predict/support_vector_machine", EXAMPLE),
        )
    }
    refused = recorded.pop("/predict/random_forest")
    away = await client.post("/reasons", json=refused)
    assert (away.status_code, away.json()["code"]) == (503, "ReasonsNotRecorded")
    assert away.headers["retry-after"] == "1"
    for decision in recorded.values():
        answer = await client.post("/reasons", json=decision)
        assert (answer.status_code, answer.json()) == (200, decision)


async def test_reasons_need_the_records_own_bundle_and_model(client: httpx.AsyncClient) -> None:
    """404 names the one that is not here, or says that its bundle cannot decide on the input."""
    refused = (await client.post("/predict/random_forest", json=_REFUSED)).json()

    async def answer(**changes: Any) -> tuple[int, str]:
        response = await client.post("/reasons", json=refused | changes)
        return response.status_code, response.text

    info = refused["model_info"]
    status, text = await answer(model_info=info | {"version": "b-00000000"})
    assert status == 404
    assert "b-00000000" in text
    status, text = await answer(model_info=info | {"name": "xgboost"})
    assert status == 404
    assert "xgboost" in text
    status, text = await answer(input_data=refused["input_data"] | {"Dependents": "4"})
    assert status == 404
    assert "cannot be explained by its bundle" in text
    assert (await client.post("/reasons", json={"prediction": "Maybe"})).status_code == 400

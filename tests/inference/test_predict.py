"""POST /predict and its siblings, over HTTP, with a real Redis behind them."""

from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from services.scoring.registry import Bundle
from shared.contract.application import EXAMPLE
from shared.contract.events import Decision, PredictionRecorded
from tests.stream import recorded_events

MODELS = ("random_forest", "logistic_regression", "gradient_boosting", "support_vector_machine")


async def _faults(client: httpx.AsyncClient, body: bytes) -> dict[str, str]:
    response = await client.post("/predict", content=body)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["error"] == "Validation failed"
    assert problem["code"] == "InvalidInput"
    return {fault["field"]: fault["message"] for fault in problem["validation_errors"]}


_TEMPLATES: dict[str, str] = {"{model}": "random_forest", "{name}": "roc.png"}


async def test_query_parameter_is_refused_by_its_name_on_every_route(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """``/predict?model=x`` must not be decided by another model than the caller means."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    asked = [
        (method, template)
        for template, operations in paths.items()
        for method, operation in operations.items()
        if operation["tags"] != ["health"]
    ]
    assert len(asked) >= 13
    for method, template in asked:
        path = template
        for name, value in _TEMPLATES.items():
            path = path.replace(name, value)
        body = EXAMPLE if method == "post" else None
        takes = "reference, bundle" if template.startswith("/explain") else "none"
        name = "model"
        if template == "/predict/many":
            name, takes = "threshold", "model"
        answer = await client.request(method, f"{path}?{name}=x", json=body)
        assert answer.status_code == 400, template
        message = f"is not a parameter of this route; it takes {takes}"
        if template.startswith("/v2"):
            assert answer.json() == {"error": f"model {message}"}
        else:
            faults = [{"field": name, "message": message, "value": "x"}]
            assert answer.json()["validation_errors"] == faults, template
    assert await recorded_events(redis) == []


async def test_decision_has_the_documented_form(client: httpx.AsyncClient, bundle: Bundle) -> None:
    """Every member of the contract is there, and the numbers are consistent."""
    response = await client.post("/predict", json=EXAMPLE)
    assert response.status_code == 200
    answer = response.json()
    decision = Decision.model_validate(answer)
    assert set(answer) == set(Decision.model_fields)
    assert decision.prediction_id.version == 7
    assert decision.model_info.name == bundle.manifest.champion
    assert decision.model_info.version == bundle.manifest.version
    assert decision.confidence == max(decision.probability.approved, decision.probability.rejected)
    assert decision.probability.approved + decision.probability.rejected == pytest.approx(1)
    assert decision.prediction_code == (decision.prediction == "Approved")
    assert answer["input_data"] == EXAMPLE
    assert decision.imputed == []


async def test_decision_is_recorded_byte_for_byte_before_it_is_answered(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """The event in the stream holds exactly the bytes that were answered, and who asked."""
    response = await client.post("/predict", json=EXAMPLE, headers={"x-request-id": "order-66"})
    [event] = await recorded_events(redis)
    assert response.content in event
    recorded = PredictionRecorded.model_validate_json(event)
    assert recorded.decision == Decision.model_validate_json(response.content)
    assert recorded.request_id == "order-66"
    assert recorded.client == "anonymous"


@pytest.mark.parametrize("model", MODELS)
async def test_each_model_can_decide_alone(
    client: httpx.AsyncClient, redis: Redis, model: str
) -> None:
    """A model named in the path decides, and its decision is recorded like any other."""
    response = await client.post(f"/predict/{model}", json=EXAMPLE)
    assert response.json()["model_info"]["name"] == model
    assert len(await recorded_events(redis)) == 1


async def test_unknown_model_is_404_and_lists_the_known_ones(client: httpx.AsyncClient) -> None:
    """The answer to a mistyped name lists the right ones."""
    response = await client.post("/predict/xgboost", json=EXAMPLE)
    assert response.status_code == 404
    problem = response.json()
    assert problem["code"] == "UnknownModel"
    assert all(model in problem["detail"] for model in MODELS)


@pytest.mark.parametrize(
    ("field", "sent", "parsed"),
    [
        ("ApplicantIncome", "4583", 4583.0),
        ("LoanAmount", " 128.5 ", 128.5),
        ("Married", True, "Yes"),
        ("Self_Employed", False, "No"),
        ("Self_Employed", "yes", "Yes"),
        ("Dependents", 2, "2"),
        ("Dependents", 3, "3+"),
        ("Dependents", 7, "3+"),
        ("Dependents", "3", "3+"),
        ("Dependents", "12", "3+"),
        ("Education", "not graduate", "Not Graduate"),
        ("Property_Area", "SEMIURBAN", "Semiurban"),
        ("Gender", "fEmale", "Female"),
        ("Credit_History", "1", 1),
        ("Credit_History", 0.0, 0),
        ("Credit_History", True, 1),
        ("Credit_History", None, None),
        ("Loan_ID", "ÅB-17", "ÅB-17"),
    ],
)
async def test_input_is_lenient_in_form(
    client: httpx.AsyncClient, field: str, sent: object, parsed: object
) -> None:
    """A value that can only mean one thing is accepted, and the answer shows its meaning."""
    response = await client.post("/predict", json={**EXAMPLE, field: sent})
    assert response.status_code == 200
    assert response.json()["input_data"][field] == parsed


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (b'{"ApplicantIncome": NaN}', "ApplicantIncome", "must be a finite number"),
        (b'{"ApplicantIncome": -Infinity}', "ApplicantIncome", "must be a finite number"),
        (b'{"ApplicantIncome": "nan"}', "ApplicantIncome", "must be a finite number"),
        (b'{"ApplicantIncome": 0}', "ApplicantIncome", "must be greater than 0"),
        (b'{"ApplicantIncome": 100001}', "ApplicantIncome", "must be at most 100000"),
        (b'{"ApplicantIncome": true}', "ApplicantIncome", "must be a number, not a boolean"),
        (b'{"ApplicantIncome": "a lot"}', "ApplicantIncome", "must be a number"),
        (b"{}", "ApplicantIncome", "is required"),
        (b'{"ApplicantIncome": null}', "ApplicantIncome", "must be a number"),
        (b'{"ApplicantIncome": 1, "CoapplicantIncome": -1}', "CoapplicantIncome", "at least 0"),
        (b'{"ApplicantIncome": 1, "LoanAmount": 0}', "LoanAmount", "must be greater than 0"),
        (b'{"ApplicantIncome": 1, "Loan_Amount_Term": 601}', "Loan_Amount_Term", "at most 600"),
        (b'{"ApplicantIncome": 1, "Credit_History": 2}', "Credit_History", "must be one of: 0, 1"),
        (b'{"ApplicantIncome": 1, "Dependents": true}', "Dependents", "must be one of"),
        (b'{"ApplicantIncome": 1, "Dependents": 3.5}', "Dependents", "must be one of"),
        (b'{"ApplicantIncome": 1, "Dependents": -1}', "Dependents", "must be one of"),
        (b'{"ApplicantIncome": 1, "Married": 1}', "Married", "must be one of: Yes, No"),
        (b'{"ApplicantIncome": 1, "Gender": ["Male"]}', "Gender", "must be one of: Male, Female"),
        (b'{"ApplicantIncome": 1, "Loan_ID": "a b"}', "Loan_ID", "must be visible characters"),
        (b'{"ApplicantIncome": 1, "Loan_ID": "\\u0000"}', "Loan_ID", "must be visible characters"),
        (b'{"ApplicantIncome": 1, "Loan_ID": "\\t"}', "Loan_ID", "must be visible characters"),
        (b'{"ApplicantIncome": 1, "Loan_ID": "' + b"x" * 65 + b'"}', "Loan_ID", "at most 64"),
        (b'{"ApplicantIncome": 1, "Loan_ID": 7}', "Loan_ID", "must be given as text, in quotes"),
        (b'{"ApplicantIncome": 1, "Credit_Histroy": 1}', "Credit_Histroy", "is Credit_History"),
        (b'{"ApplicantIncome": 1, "Loan_ID": "\\ud800"}', "body", "is not valid JSON"),
        (b'{"ApplicantIncome": 1', "body", "is not valid JSON"),
        (b"", "body", "is not valid JSON"),
        (b"\xff\xfe", "body", "is not valid JSON"),
        (b"[1]", "body", "must be a JSON object"),
    ],
)
async def test_input_is_strict_in_meaning(
    client: httpx.AsyncClient, redis: Redis, body: bytes, field: str, message: str
) -> None:
    """What has no meaning is refused with a sentence about its field, and nothing is recorded."""
    faults = await _faults(client, body)
    assert message in faults[field]
    assert await recorded_events(redis) == []


async def test_all_faults_are_listed_at_once_with_the_values_received(
    client: httpx.AsyncClient,
) -> None:
    """A caller mends everything in one go."""
    body = {"ApplicantIncome": -5, "Gender": "X", "Dependents": "many", "Salary": 1}
    response = await client.post("/predict", json=body)
    faults = {f["field"]: f["value"] for f in response.json()["validation_errors"]}
    assert faults == body


async def test_missing_inputs_are_named_as_imputed(client: httpx.AsyncClient) -> None:
    """The answer names the scored inputs it had to do without, and no unscored one."""
    response = await client.post("/predict", json={"ApplicantIncome": 4000})
    assert response.json()["imputed"] == [
        "CoapplicantIncome",
        "LoanAmount",
        "Loan_Amount_Term",
        "Credit_History",
        "Dependents",
        "Education",
        "Self_Employed",
        "Property_Area",
    ]


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"ApplicantIncome": 900}, "below 1000 per month"),
        ({"ApplicantIncome": 0}, "the co-applicant has the only income"),
        ({"LoanAmount": 366}, "more than 5 times the annual income"),
        ({"Credit_History": 0}, "Credit_History is 0"),
        ({"Loan_Amount_Term": 200}, "none of the usual terms"),
        ({"LoanAmount": 10_001}, "unusually high"),
        ({"ApplicantIncome": 99_000}, "outside the range the models were trained on"),
    ],
)
async def test_what_is_worth_a_second_look_is_warned_about(
    client: httpx.AsyncClient, changes: dict[str, object], warning: str
) -> None:
    """A warning stands beside the decision and never stops it."""
    clean = await client.post("/predict", json=EXAMPLE)
    assert clean.json()["warnings"] == []
    response = await client.post("/predict", json={**EXAMPLE, **changes})
    assert response.status_code == 200
    assert any(warning in sentence for sentence in response.json()["warnings"])


@pytest.mark.parametrize("missing", ["Credit_History", "LoanAmount", "Loan_Amount_Term"])
async def test_missing_input_that_weighs_is_warned_about(
    client: httpx.AsyncClient, missing: str
) -> None:
    response = await client.post("/predict", json={**EXAMPLE, missing: None})
    assert response.json()["warnings"] == [f"{missing} is missing"]


async def test_nearly_empty_application_is_never_approved_silently(
    client: httpx.AsyncClient,
) -> None:
    answer = (await client.post("/predict", json={"ApplicantIncome": 4583})).json()
    assert len(answer["imputed"]) == 8
    for field in ("Credit_History", "LoanAmount", "Loan_Amount_Term"):
        assert any(warning.startswith(f"{field} is missing") for warning in answer["warnings"])
    report = await client.post("/validate-loan", json={"ApplicantIncome": 4583})
    assert report.json()["warnings"] == answer["warnings"]


async def test_benchmark_asks_all_models_and_records_nothing(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """All four answer as they would alone, and the consensus counts their votes."""
    answer = (await client.post("/models/benchmark", json=EXAMPLE)).json()
    assert set(answer["results"]) == set(MODELS)
    for model, result in answer["results"].items():
        assert result["prediction_time_ms"] > 0
        alone = (await client.post(f"/predict/{model}", json=EXAMPLE)).json()
        assert {key: alone[key] for key in ("prediction", "confidence", "probability")} == {
            key: result[key] for key in ("prediction", "confidence", "probability")
        }
    consensus = answer["consensus"]
    votes = [result["prediction"] for result in answer["results"].values()]
    assert consensus["total_models"] == 4
    assert consensus["models_agree"] == votes.count(consensus["prediction"]) >= 2
    assert consensus["agreement"] == consensus["models_agree"] / 4
    assert len(await recorded_events(redis)) == 4


async def test_benchmark_of_an_empty_object_is_the_documented_example(
    client: httpx.AsyncClient,
) -> None:
    """A newcomer can try the route without knowing any field."""
    answer = (await client.post("/models/benchmark", content=b" {} ")).json()
    assert answer["input_data"] == EXAMPLE


async def test_validation_reports_errors_and_warnings_without_a_decision(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """The report of a good application has warnings, that of a bad one its faults."""
    good: dict[str, Any] = (
        await client.post("/validate-loan", json={**EXAMPLE, "Credit_History": 0})
    ).json()
    assert good["valid"] is True
    assert len(good["warnings"]) == 1
    assert good["input_data"]["Credit_History"] == 0
    bad = (await client.post("/validate-loan", content=b'{"LoanAmount": NaN}')).json()
    assert bad["valid"] is False
    assert [fault["field"] for fault in bad["validation_errors"]] == [
        "ApplicantIncome",
        "LoanAmount",
    ]
    assert bad["input_data"] is None
    assert await recorded_events(redis) == []


async def test_body_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    """An application is small; what is not is refused before it is read."""
    response = await client.post("/predict", content=b" " * (64 * 1024 + 1))
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"

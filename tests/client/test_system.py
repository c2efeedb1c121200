"""The clients against the shipped services: every method, what it gives and what it raises."""

import asyncio
import csv
import json
from collections.abc import Iterator

import pytest

from loan_predictor_client import (
    AccessDenied,
    AsyncLoanPredictorClient,
    Cohorts,
    Filters,
    InvalidRequest,
    LoanPredictorClient,
    MissingResource,
    RetryPolicy,
    ServiceUnreachable,
    WhatIf,
)
from shared.contract.application import EXAMPLE
from tests.harness import System
from tests.waiting import until

_DECISIONS = 7


@pytest.fixture
def client(system: System) -> Iterator[LoanPredictorClient]:
    """The synchronous client of the system, with its key."""
    with LoanPredictorClient(
        system.inference_url,
        system.history_url,
        api_key=system.api_key,
        retry_policy=RetryPolicy(attempts=40, longest_wait_s=0.5),
    ) as client:
        yield client


def test_what_was_decided_can_be_read_back_in_every_way(client: LoanPredictorClient) -> None:
    """One record, pages, all pages, both exports, statistics and analytics agree; till erased."""
    made = [client.predict(EXAMPLE | {"Loan_ID": f"LP{n}"}) for n in range(_DECISIONS - 1)]
    made.append(client.predict(made[0].input_data, model="random_forest"))
    newest_first = [decision.prediction_id for decision in reversed(made)]
    until(lambda: client.statistics().total_predictions == _DECISIONS)

    record = client.record(made[0].prediction_id)
    assert {name: getattr(record, name) for name in type(made[0]).model_fields} == dict(made[0])
    assert record.client == "local"
    assert client.record(str(made[0].prediction_id)) == record
    assert client.replay(made[0].prediction_id).equal

    page = client.history(limit=3)
    assert [record.prediction_id for record in page.items] == newest_first[:3]
    assert page.next_cursor is not None
    following = client.history(limit=3, cursor=page.next_cursor)
    assert [record.prediction_id for record in following.items] == newest_first[3:6]
    assert [record.prediction_id for record in client.records(page_size=2)] == newest_first

    assert client.shadow_report(since=record.timestamp.date()).comparisons == []
    asked = client.ask_what_if(WhatIf(threshold=0.9, since=record.timestamp.date()))
    assert (asked.state, asked.progress.expected) == ("queued", _DECISIONS)
    assert client.what_if(asked.id).order == asked.order
    assert [each.id for each in client.what_ifs(limit=1).items] == [asked.id]
    assert client.cancel_what_if(asked.id).state == "cancelled"

    of_forest = Filters(model="random_forest", until=record.timestamp.replace(year=2100))
    assert [r.prediction_id for r in client.records(of_forest)] == newest_first[:1]
    assert list(client.records(Filters(had_warnings=True))) == []

    with client.export() as pieces:
        lines = b"".join(pieces).splitlines()
    assert [json.loads(line)["prediction_id"] for line in lines] == list(map(str, newest_first))
    with client.export(of_forest, format="csv") as pieces:
        rows = list(csv.DictReader(b"".join(pieces).decode().splitlines()))
    assert [row["id"] for row in rows] == [str(newest_first[0])]

    analytics = client.analytics()
    assert analytics.overall.total_predictions == _DECISIONS
    assert sum(bucket.predictions for bucket in analytics.confidence_histogram) == _DECISIONS
    assert client.statistics().by_model["random_forest"].total_predictions == 1

    report = {"prediction_id": record.prediction_id, "observed_at": record.timestamp}
    assert client.report_outcomes([report | {"outcome": "repaid"}]).accepted == 1
    [outcome] = client.record(record.prediction_id).outcomes
    assert (outcome.outcome, outcome.observed_at) == ("repaid", record.timestamp)
    assert [r.prediction_id for r in client.records(Filters(outcome="repaid"))] == [
        record.prediction_id
    ]
    until(lambda: all(model.cross_validated for model in client.live_performance().models))
    live = {model.model: model for model in client.live_performance().models}
    assert live[record.model_info.name].outcomes == {"repaid": 1}
    assert client.vintages(Cohorts(model="random_forest")).vintages[0].outcomes == 0

    assert client.erase(record.prediction_id).erased == 1
    with pytest.raises(MissingResource, match="erased"):
        client.record(record.prediction_id)


def test_many_decided_together_are_each_recorded_once(client: LoanPredictorClient) -> None:
    """However often the call is repeated under its key; what is faulty is named by its place."""
    applications = [EXAMPLE | {"Loan_ID": f"LP{number}"} for number in range(300)]
    applications[100] = {"ApplicantIncome": -1}
    made, again = (client.predict_many(applications, idempotency_key="order") for _ in range(2))
    assert made == again
    assert (made.decided, made.faulty) == (299, 1)
    [faulty] = [result for result in made.results if result.decision is None]
    assert faulty.index == 100
    assert [fault.field for fault in faulty.faults or ()] == ["ApplicantIncome"]
    until(lambda: client.statistics().total_predictions >= made.decided)
    stored = {record.prediction_id: record.input_data for record in client.records()}
    assert stored == {
        result.decision.prediction_id: result.decision.input_data
        for result in made.results
        if result.decision is not None
    }


def test_services_describe_themselves(client: LoanPredictorClient) -> None:
    """Models, their measurements, card and pictures, rules, checks, health and performance."""
    listed = client.models()
    assert client.model_info().name == listed.champion
    comparison = client.compare()
    assert set(comparison.models) == {model.name for model in listed.models}
    assert client.model(listed.champion).champion
    assert client.model_card().startswith("# Model card")
    assert client.picture("roc.png").startswith(b"\x89PNG")
    assert client.validation_rules().fields[0].name == "ApplicantIncome"
    report = client.validate({"ApplicantIncome": -1})
    assert [fault.field for fault in report.validation_errors] == ["ApplicantIncome"]
    assert client.scorecard(listed.champion).model == listed.champion
    explained = client.explain(EXAMPLE, model=listed.champion, reference="all_applicants")
    assert explained.reference.id == "all_applicants"
    benchmark = client.benchmark(EXAMPLE)
    assert benchmark.consensus.total_models == len(benchmark.results) == len(listed.models)
    assert client.health("inference").status == "ok"
    assert client.health("history").status == "ok"
    asked = {(route.method, route.route) for route in client.performance("inference").routes}
    assert {("GET", "/models/{model}"), ("POST", "/models/benchmark")} <= asked
    assert client.performance("inference").cache_hit_rate is None


def test_refusals_are_typed(client: LoanPredictorClient, system: System) -> None:
    """Every fault of the input, a key without scope, a record that is not there."""
    with pytest.raises(InvalidRequest) as invalid:
        client.predict({"ApplicantIncome": 0, "Propety_Area": "Urban"})
    assert {fault.field for fault in invalid.value.validation_errors} == {
        "ApplicantIncome",
        "Propety_Area",
    }
    with pytest.raises(MissingResource):
        client.record("0198c6d0-9711-7b92-8f26-d0c4a1b35e68")
    with pytest.raises(MissingResource):
        client.predict(EXAMPLE, model="xgboost")
    with (
        LoanPredictorClient(system.inference_url, system.history_url) as anonymous,
        pytest.raises(AccessDenied) as denied,
        anonymous.export(),
    ):
        pass
    assert denied.value.status == 401


async def test_asynchronous_client_does_the_same(system: System) -> None:
    """Every method once."""
    async with AsyncLoanPredictorClient(
        system.inference_url, system.history_url, api_key=system.api_key
    ) as client:
        made = [await client.predict(EXAMPLE) for _ in range(2)]
        [together] = (await client.predict_many([EXAMPLE], model="random_forest")).results
        assert together.decision is not None
        made.append(together.decision)
        while (await client.statistics()).total_predictions < len(made):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert (await client.record(made[0].prediction_id)).confidence == made[0].confidence
        assert len((await client.history(limit=2)).items) == 2
        found = [record.prediction_id async for record in client.records(page_size=2)]
        assert found == [decision.prediction_id for decision in reversed(made)]
        async with client.export(format="csv") as pieces:
            text = b"".join([piece async for piece in pieces]).decode()
        assert len(text.splitlines()) == 1 + len(made)
        assert (await client.analytics()).overall.total_predictions == len(made)
        assert (await client.benchmark(EXAMPLE)).consensus.total_models == 4
        assert (await client.validate(EXAMPLE)).valid
        assert (await client.validation_rules()).warnings
        champion = (await client.models()).champion
        assert (await client.compare()).champion == champion
        assert (await client.model(champion)).name == champion
        assert (await client.scorecard(champion)).model == champion
        assert (await client.explain(EXAMPLE)).model_info.name == champion
        assert (await client.model_info()).name == champion
        assert (await client.model_card()).startswith("# Model card")
        assert (await client.picture("roc.png")).startswith(b"\x89PNG")
        assert (await client.health("inference")).service == "inference"
        performance = await client.performance("history")
        assert performance.routes
        assert performance.cache_hit_rate is not None
        with pytest.raises(InvalidRequest):
            await client.predict({})


def test_service_that_comes_back_is_waited_for(client: LoanPredictorClient, system: System) -> None:
    """A restart costs the caller time, nothing else; a longer outage is raised."""
    impatient = LoanPredictorClient(
        system.inference_url, retry_policy=RetryPolicy(attempts=2, first_wait_s=0.01)
    )
    system.inference.kill()
    with impatient, pytest.raises(ServiceUnreachable):
        impatient.predict(EXAMPLE)
    system.inference.spawn()
    assert client.predict(EXAMPLE, model="random_forest").model_info.name == "random_forest"

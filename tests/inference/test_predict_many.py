"""POST /predict/many: each application is decided as if it came alone, and recorded once."""

import json
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from services.inference.main import create_app
from services.inference.settings import InferenceSettings
from shared.access.limits import parse_limits
from shared.contract.application import EXAMPLE
from shared.contract.events import STREAM, PredictionRecorded, answer_key
from tests import keys
from tests.prometheus import Exposition
from tests.serving import served
from tests.stream import recorded_events
from tests.waiting import eventually_said

_REFUSED = {**EXAMPLE, "Credit_History": 0}
_NDJSON = {"content-type": "application/x-ndjson"}
_BODY = [
    EXAMPLE,
    {**EXAMPLE, "LoanAmount": -1, "Salary": 1},
    _REFUSED,
    "text",
    {"ApplicantIncome": 0},
    {"ApplicantIncome": "4,583"},
    {"ApplicantIncome": "4583", "Married": True},
]
_GOOD = [0, 2, 6]


@pytest.fixture
def settings(settings: InferenceSettings) -> InferenceSettings:
    """Room for many requests."""
    return settings.model_copy(update={"rate_limit_predict": parse_limits("100000/hour")})


def _lines(applications: list[Any]) -> bytes:
    return b"\n".join(json.dumps(each).encode() for each in applications) + b"\r\n\n"


def _lasting(decision: dict[str, Any]) -> dict[str, Any]:
    """What is the same whenever an application is decided."""
    return {
        name: value
        for name, value in decision.items()
        if name not in ("prediction_id", "timestamp")
    }


async def _recorded(redis: Redis) -> list[PredictionRecorded]:
    return [PredictionRecorded.model_validate_json(event) for event in await recorded_events(redis)]


async def test_each_application_is_answered_as_if_it_came_alone(client: httpx.AsyncClient) -> None:
    """Decisions and faults, in the order of the body, whatever stands beside them."""
    forms: list[tuple[bytes, dict[str, str]]] = [
        (json.dumps(_BODY, indent=1).encode(), {}),
        (_lines(_BODY), _NDJSON),
    ]
    for path, query in (("/predict", ""), ("/predict/random_forest", "?model=random_forest")):
        alone = [await client.post(path, json=application) for application in _BODY]
        for content, headers in forms:
            answer = await client.post(f"/predict/many{query}", content=content, headers=headers)
            assert answer.status_code == 200
            together = answer.json()
            assert (together["decided"], together["faulty"]) == (3, 4)
            for index, result in enumerate(together["results"]):
                assert result["index"] == index
                if index in _GOOD:
                    assert result.keys() == {"index", "decision"}
                    assert _lasting(result["decision"]) == _lasting(alone[index].json())
                else:
                    faults = alone[index].json()["validation_errors"]
                    assert result == {"index": index, "faults": faults}


async def test_every_decision_is_recorded_as_it_is_answered_and_counted(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    body = [{**EXAMPLE, "Loan_ID": f"L{number}"} for number in range(1000)]
    answer = await client.post("/predict/many", json=body, headers={"x-request-id": "order-66"})
    decisions = [result["decision"] for result in answer.json()["results"]]
    assert [each["input_data"]["Loan_ID"] for each in decisions] == [
        each["Loan_ID"] for each in body
    ]
    assert len({each["prediction_id"] for each in decisions}) == 1000
    events = await recorded_events(redis)
    assert [json.loads(event)["decision"] for event in events] == decisions
    assert all(event.split(b'"decision":')[1][:-1] in answer.content for event in events)
    assert {json.loads(event)["request_id"] for event in events} == {"order-66"}
    exposed = Exposition((await client.get("/metrics")).text)
    assert exposed.sum_of("decisions_total") == 1000


async def test_body_that_is_no_array_is_refused_as_a_whole(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    for body, reason in (
        (b"", "begin with ["),
        (b"{}", "begin with ["),
        (b"]", "begin with ["),
        (b"[{}", "after element 0 there must be a comma or the closing ]"),
        (b"[{},]", "its element 1 is not valid JSON"),
        (b"[{}] 1", "after element 0"),
        (b'[{"a":1}{"b":2}]', "after element 0"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[\xff]", "UTF-8"),
    ):
        answer = await client.post("/predict/many", content=body)
        assert answer.status_code == 400, body
        [fault] = answer.json()["validation_errors"]
        assert fault["field"] == "body"
        assert "is not a JSON array of applications" in fault["message"]
        assert reason in fault["message"]
        assert "application/x-ndjson" in fault["message"]
    assert await recorded_events(redis) == []


async def test_no_application_is_answered_with_nothing(client: httpx.AsyncClient) -> None:
    for body, headers in ((b" [ ] ", {}), (b"", _NDJSON), (b"\n \n", _NDJSON)):
        named = {**headers, "idempotency-key": "k"}
        answer = await client.post("/predict/many", content=body, headers=named)
        assert answer.json() == {"results": [], "decided": 0, "faulty": 0}


async def test_what_would_be_refused_alone_is_a_fault_of_its_line(
    client: httpx.AsyncClient,
) -> None:
    """Broken JSON, a repeated member, a number of any length, and more than /predict reads."""
    lines = [
        b'{"ApplicantIncome":1',
        b'{"ApplicantIncome":1,"ApplicantIncome":1}',
        b'{"ApplicantIncome":%b}' % (b"1" * 5000),
        b'{"ApplicantIncome":1,"Loan_ID":"%b"}' % (b"x" * 65_536),
        json.dumps(EXAMPLE).encode(),
    ]
    together = await client.post("/predict/many", content=b"\n".join(lines), headers=_NDJSON)
    array = await client.post("/predict/many", content=b"[%b]" % b",".join(lines[1:]))
    assert [result["index"] for result in together.json()["results"]] == [0, 1, 2, 3, 4]
    assert (together.json()["decided"], together.json()["faulty"]) == (1, 4)
    messages = [each["faults"][0]["message"] for each in together.json()["results"][:4]]
    assert "is not valid JSON" in messages[0]
    assert "is given more than once" in messages[1]
    assert "number out of range" in messages[2]
    assert messages[3] == "must be at most 65536 bytes"
    assert [each["faults"][0]["message"] for each in array.json()["results"][:3]] == messages[1:]


async def test_more_than_fit_one_request_are_sent_elsewhere(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    for body in (b"[%b]" % b",".join([b"{}"] * 1001), b"[%b]" % (b" " * 1024 * 1024)):
        answer = await client.post("/predict/many", content=body)
        assert answer.status_code == 413
        assert answer.json()["code"] == "TooManyApplications"
        assert "POST /batches" in answer.json()["detail"]
    assert await recorded_events(redis) == []


async def test_other_kinds_of_body_and_models_are_refused(client: httpx.AsyncClient) -> None:
    csv = await client.post("/predict/many", content=b"a,b", headers={"content-type": "text/csv"})
    assert csv.status_code == 415
    assert "application/json or application/x-ndjson" in csv.json()["detail"]
    unknown = await client.post("/predict/many?model=xgboost", json=[EXAMPLE])
    assert unknown.status_code == 404
    assert unknown.json()["code"] == "UnknownModel"


async def _ask(client: httpx.AsyncClient, body: list[Any], **parameters: str) -> httpx.Response:
    return await client.post(
        "/predict/many", json=body, params=parameters, headers={"idempotency-key": "k"}
    )


async def test_repeated_request_is_answered_byte_for_byte_and_recorded_once(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """Another body under its key is refused; another model makes it another request."""
    first, second = [await _ask(client, _BODY) for _ in range(2)]
    assert first.status_code == 200
    assert first.content == second.content
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert len(await recorded_events(redis)) == len(_GOOD)
    other = await _ask(client, _BODY[:1])
    assert other.status_code == 422
    assert other.json()["code"] == "IdempotencyKeyReused"
    forest = await _ask(client, _BODY, model="random_forest")
    assert "idempotency-replayed" not in forest.headers
    ids = [event.decision.prediction_id for event in await _recorded(redis)]
    assert len(set(ids)) == len(ids) == 2 * len(_GOOD)
    assert {identifier.version for identifier in ids} == {8}


async def test_redis_that_forgot_makes_the_same_ids_again(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """An id goes by where its application stands, also when two are alike."""
    first = await _ask(client, [EXAMPLE, "faulty", EXAMPLE])
    await redis.flushall()
    second = await _ask(client, [EXAMPLE, "faulty", EXAMPLE])
    ids = [
        [
            each["decision"]["prediction_id"]
            for each in answer.json()["results"]
            if "decision" in each
        ]
        for answer in (first, second)
    ]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2


async def test_erasure_of_one_decision_ends_the_replay(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """Repeating must not bring back what was erased; the history empties the answer it kept."""
    await _ask(client, _BODY)
    event = (await _recorded(redis))[1]
    await redis.set(answer_key(event.decision.prediction_id), b"", keepttl=True)
    again = await _ask(client, _BODY)
    assert again.status_code == 410
    assert again.json()["code"] == "AnswerErased"


async def test_what_cannot_be_recorded_is_not_answered_and_can_be_repeated(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    """After a 503 the same request gets the decisions made then, each recorded once."""
    await redis.set(STREAM, "no stream, so nothing can be added")
    refused = await _ask(client, _BODY)
    assert refused.status_code == 503
    assert refused.json()["code"] == "NotRecorded"
    assert "probability" not in refused.text
    await redis.delete(STREAM)

    async def decided() -> bool:
        return (await _ask(client, _BODY)).status_code == 200

    # The stream is left alone for a moment after its failure.
    await eventually_said(decided)
    assert len(await recorded_events(redis)) == len(_GOOD)


async def test_request_counts_as_many_as_it_holds(settings: InferenceSettings) -> None:
    """One that does not fit is refused and counts as one, so that a smaller one still fits."""
    limited = settings.model_copy(update={"rate_limit_predict": parse_limits("10/hour")})
    async with served(create_app(limited)) as client:
        answers = [await client.post("/predict/many", json=_BODY) for _ in range(2)]
        small = await client.post("/predict/many", json=_BODY[:2])
        single = await client.post("/predict", json=EXAMPLE)
        unlimited = await client.post("/predict/many", json=_BODY, headers=keys.HEADERS)
    assert [answer.status_code for answer in answers] == [200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["3", "0"]
    assert int(answers[1].headers["retry-after"]) > 0
    assert small.status_code == 200
    assert small.headers.get_list("x-ratelimit-remaining") == ["0"]
    assert single.status_code == 429
    assert unlimited.status_code == 200

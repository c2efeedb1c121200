"""The client's retries and its errors, on answers that a healthy service never gives."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path

import httpx
import pytest

from loan_predictor_client import (
    AccessDenied,
    ApiError,
    AsyncLoanPredictorClient,
    Filters,
    InvalidRequest,
    LoanPredictorClient,
    MissingResource,
    RateLimited,
    RetryPolicy,
    ServiceUnreachable,
    Unavailable,
    UnreadableAnswer,
    UnsendableCall,
    calls,
)
from loan_predictor_client.attempts import Outcome, Wait, attempts
from shared.contract.application import EXAMPLE
from shared.web.conventions import PROBLEM_MEDIA_TYPE

_URL = "http://service.test"
_QUICK = RetryPolicy(attempts=4, total_s=5, first_wait_s=0.001, longest_wait_s=0.002)
_DECISION = {
    "success": True,
    "prediction_id": "0198c6d0-9711-7b92-8f26-d0c4a1b35e68",
    "prediction": "Approved",
    "prediction_code": 1,
    "confidence": 0.75,
    "probability": {"approved": 0.75, "rejected": 0.25},
    "model_info": {"name": "random_forest", "version": "b-00000000", "accuracy": 0.8},
    "input_data": EXAMPLE,
    "imputed": [],
    "warnings": [],
    "timestamp": "2026-11-24T00:36:22.487053Z",
    "added_by_a_newer_service": True,
}
Answer = httpx.Response | type[httpx.TransportError]


def _problem(status: int, code: str = "SomeCode", **headers: str) -> httpx.Response:
    document = {"code": code, "detail": "Do this.", "request_id": "r-1", "status": status}
    return httpx.Response(
        status, json=document, headers={"content-type": PROBLEM_MEDIA_TYPE} | headers
    )


def _answers(*given: Answer) -> tuple[Callable[[httpx.Request], httpx.Response], list[str]]:
    """A handler that gives these answers in turn, and the keys of the requests it saw."""
    left: Iterator[Answer] = iter(given)
    keys: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers.get("idempotency-key", ""))
        answer = next(left)
        if isinstance(answer, httpx.Response):
            return answer
        raise answer("broken", request=request)

    return handle, keys


def _client(handle: Callable[[httpx.Request], httpx.Response]) -> LoanPredictorClient:
    http = httpx.Client(transport=httpx.MockTransport(handle))
    return LoanPredictorClient(_URL, retry_policy=_QUICK, http=http)


@pytest.mark.parametrize(
    "failure",
    [
        _problem(429, "RateLimitExceeded", **{"retry-after": "0"}),
        _problem(503, "NotRecorded"),
        _problem(409, "InFlight"),
        httpx.Response(502, text="Bad gateway"),
        httpx.ConnectError,
        httpx.ReadTimeout,
        httpx.RemoteProtocolError,
    ],
    ids=["429", "503", "409", "502", "refused", "silence", "broken off"],
)
def test_decision_is_asked_for_again_under_the_same_key(failure: Answer) -> None:
    """So the service sees one decision."""
    handle, keys = _answers(failure, httpx.Response(200, json=_DECISION))
    with _client(handle) as client:
        assert client.predict(EXAMPLE).confidence == 0.75
        assert len(keys) == 2
        assert keys[0] == keys[1] != ""


def test_each_call_has_a_key_of_its_own_unless_one_is_given() -> None:
    """Two calls are two decisions; a given key makes a call of a former process the same."""
    handle, keys = _answers(*(httpx.Response(200, json=_DECISION) for _ in range(3)))
    with _client(handle) as client:
        client.predict(EXAMPLE)
        client.predict(EXAMPLE, model="random_forest")
        client.predict(EXAMPLE, idempotency_key="order-66")
    assert keys[0] != keys[1]
    assert keys[2] == "order-66"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, MissingResource),
        (405, ApiError),
        (413, InvalidRequest),
        (422, InvalidRequest),
        (500, Unavailable),
    ],
)
def test_refusal_that_would_come_again_is_raised_at_once(status: int, kind: type[ApiError]) -> None:
    """With every member of the problem document."""
    handle, keys = _answers(_problem(status, "SomeCode"))
    with _client(handle) as client, pytest.raises(ApiError) as caught:
        client.statistics()
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert caught.value.code == "SomeCode"
    assert caught.value.detail == "Do this."
    assert caught.value.request_id == "r-1"
    assert str(caught.value) == f"Do this. ({status} SomeCode)"
    assert len(keys) == 1


def test_409_of_a_call_without_a_key_is_no_reason_to_ask_again() -> None:
    """Without a key, 409 is no earlier attempt of this call."""
    handle, keys = _answers(_problem(409))
    with _client(handle) as client, pytest.raises(Unavailable):
        client.statistics()
    assert len(keys) == 1


def test_attempts_are_bounded_and_the_last_error_is_raised() -> None:
    """The policy limits the attempts."""
    handle, keys = _answers(
        httpx.ConnectError, httpx.ConnectError, httpx.ConnectError, _problem(503)
    )
    with _client(handle) as client, pytest.raises(Unavailable):
        client.predict(EXAMPLE)
    assert len(keys) == _QUICK.attempts


def test_wait_beyond_the_deadline_is_not_begun() -> None:
    """A limit that ends in an hour is raised at once, with the time it takes."""
    handle, keys = _answers(_problem(429, **{"retry-after": "3000"}))
    with _client(handle) as client, pytest.raises(RateLimited) as caught:
        client.models()
    assert caught.value.retry_after_s == 3000
    assert len(keys) == 1


def test_retry_after_is_waited_for_with_jitter_and_the_time_is_bounded() -> None:
    """By a clock of the test's own: nothing is sent before Retry-After, nor after the deadline."""
    policy = RetryPolicy(attempts=9, total_s=10, attempt_s=4, first_wait_s=1, longest_wait_s=1)
    now_s = 100.0
    steps = attempts(policy, keyed=True, now_s=lambda: now_s)
    outcome: Outcome = None
    waits, timeouts = [], []
    with suppress(Unavailable):
        while True:
            step = steps.send(outcome)
            if isinstance(step, Wait):
                waits.append(step.seconds)
                now_s += step.seconds
                outcome = None
            else:
                timeouts.append((step.timeout_s, 110 - now_s))
                outcome = _problem(503, **{"retry-after": "3"})
    assert 2 <= len(waits) <= 3
    assert all(3 <= wait_s <= 4 for wait_s in waits)
    assert now_s <= 110
    assert all(timeout_s == min(4, max(0.001, left_s)) for timeout_s, left_s in timeouts)


def test_connection_errors_alone_end_as_unreachable() -> None:
    """With the transport's own error as the cause."""
    handle, _ = _answers(*[httpx.ConnectError] * 4)
    with _client(handle) as client, pytest.raises(ServiceUnreachable) as caught:
        client.models()
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


def test_answer_of_another_kind_is_not_taken_for_a_decision() -> None:
    """A page that a proxy put in the way is neither parsed nor passed on."""
    handle, _ = _answers(httpx.Response(200, text="<html>"))
    with _client(handle) as client, pytest.raises(UnreadableAnswer):
        client.predict(EXAMPLE)


def test_error_without_a_problem_document_is_still_an_api_error() -> None:
    """With the host and its phrase; a date in Retry-After is ignored."""
    answer = httpx.Response(404, text="nginx", headers={"retry-after": "Wed, 21 Oct 2026 07:28:00"})
    handle, _ = _answers(answer)
    with _client(handle) as client, pytest.raises(MissingResource) as caught:
        client.models()
    assert caught.value.code == "NoProblemDocument"
    assert caught.value.detail == "service.test says: Not Found."
    assert caught.value.retry_after_s is None


@pytest.mark.parametrize("key", ["lp_secret\n", "lp_sécret", " lp_secret", "lp_\x00secret"])
async def test_key_that_no_header_can_hold_fails_at_once_without_being_shown(key: str) -> None:
    """Such as one read from a file with its line break; over real HTTP clients."""
    with (
        LoanPredictorClient("http://127.0.0.1:9", api_key=key) as client,
        pytest.raises(UnsendableCall, match="The API key may hold") as caught,
    ):
        client.predict(EXAMPLE)
    shown = "".join(traceback.format_exception(caught.value))
    assert "secret" not in shown
    assert caught.value.__cause__ is None
    async with AsyncLoanPredictorClient("http://127.0.0.1:9", api_key=key) as asynchronous:
        with pytest.raises(UnsendableCall, match="The API key may hold"):
            await asynchronous.predict(EXAMPLE)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "localhost", "", "ftp://bank", "http://", "//a", "http://h:x"]
)
def test_address_that_is_none_fails_at_once(url: str) -> None:
    """It says how an address looks."""
    handle, sent = _answers()
    http = httpx.Client(transport=httpx.MockTransport(handle))
    with (
        LoanPredictorClient(url, http=http) as client,
        pytest.raises(UnsendableCall, match="must be like http://"),
    ):
        client.models()
    assert sent == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), date(2026, 1, 1), {1}, "\ud800"])
def test_value_that_json_cannot_hold_fails_at_once(value: object) -> None:
    """As the client's own error, and nothing is sent."""
    handle, sent = _answers()
    with _client(handle) as client, pytest.raises(UnsendableCall, match="written as JSON"):
        client.predict(EXAMPLE | {"LoanAmount": value})
    assert sent == []


def test_file_of_a_batch_is_a_path_an_open_file_or_bytes(tmp_path: Path) -> None:
    """A text is none of them: it would be sent in place of the file it names."""
    sent: list[bytes] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request.read())
        return _problem(400)

    path = tmp_path / "loans.csv"
    path.write_bytes(b"ApplicantIncome\n900\n")
    with _client(handle) as client, path.open("rb") as opened, path.open() as text:
        for content in (path, opened, path.read_bytes()):
            with pytest.raises(InvalidRequest):
                client.create_batch(content)
        for nothing in (str(path), text):
            with pytest.raises(UnsendableCall, match=r"pathlib\.Path .* not from str"):
                client.create_batch(nothing)  # type: ignore[arg-type]  # what a type checker refuses
    assert sent == [path.read_bytes()] * 3


def test_one_outcome_is_reported_like_a_list_of_one() -> None:
    report = {"prediction_id": "any", "outcome": "repaid", "observed_at": date(2026, 1, 1)}
    assert calls.report_outcomes(report).content == calls.report_outcomes([report]).content


@pytest.mark.parametrize("refusal", [httpx.LocalProtocolError, httpx.UnsupportedProtocol])
def test_request_that_the_http_client_refuses_is_not_sent_again_and_not_shown(
    refusal: type[httpx.TransportError],
) -> None:
    """The client that was given may add a header of its own, and quote it in its error."""
    handle, sent = _answers(refusal)
    with _client(handle) as client, pytest.raises(UnsendableCall) as caught:
        client.models()
    assert len(sent) == 1
    assert "broken" not in str(caught.value)


def test_gateway_has_one_address_and_other_paths_for_what_both_services_have() -> None:
    """Everything else has the same path behind it."""
    paths: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(
            200,
            json={"status": "ok", "service": "", "version": "", "checks": {}}
            | {"routes": [], "cache_hit_rate": None},
        )

    for history_url in (None, "http://history.test/"):
        http = httpx.Client(transport=httpx.MockTransport(handle))
        with LoanPredictorClient(_URL, history_url, http=http) as client:
            client.health("history")
            client.health("inference")
            client.performance("history")
            client.performance("inference")
    plain = ["/health", "/health", "/performance", "/performance"]
    assert paths == ["/health/history", "/health", "/performance/history", "/performance", *plain]


async def test_other_key_goes_over_the_same_connections() -> None:
    """Each caller's requests bear that caller's key."""
    seen: list[str | None] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("x-api-key"))
        return httpx.Response(200, json=_DECISION)

    transport = httpx.MockTransport(handle)
    async with AsyncLoanPredictorClient(
        _URL, api_key="ours", http=httpx.AsyncClient(transport=transport)
    ) as client:
        await client.predict(EXAMPLE)
        await client.variant(api_key="theirs").predict(EXAMPLE)
    with LoanPredictorClient(_URL, http=httpx.Client(transport=transport)) as sync_client:
        sync_client.predict(EXAMPLE)
        sync_client.variant(api_key="theirs").predict(EXAMPLE)
    assert seen == ["ours", "theirs", None, "theirs"]


async def test_asynchronous_client_asks_again_likewise() -> None:
    """It drives the same attempts."""
    handle, keys = _answers(httpx.ConnectError, _problem(503), httpx.Response(200, json=_DECISION))
    http = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    async with AsyncLoanPredictorClient(_URL, retry_policy=_QUICK, http=http) as client:
        assert (await client.predict(EXAMPLE)).prediction == "Approved"
    assert len(set(keys)) == 1
    assert len(keys) == 3


def test_export_that_breaks_off_is_a_failed_call() -> None:
    """What was taken of it is not all there is, and that must not go unnoticed."""

    class _Broken(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b"id\n"
            raise httpx.ReadError("broken off")

    taken: list[bytes] = []

    def take_all(client: LoanPredictorClient) -> None:
        with client.export(Filters(had_warnings=True), format="csv") as pieces:
            taken.extend(pieces)

    with (
        _client(lambda _: httpx.Response(200, stream=_Broken())) as client,
        pytest.raises(ServiceUnreachable),
    ):
        take_all(client)
    assert taken == [b"id\n"]

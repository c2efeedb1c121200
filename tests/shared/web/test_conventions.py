"""Problem documents and request ids, on a small app served for real."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from inspect import signature
from typing import Annotated, cast

import httpx
import pytest
import pytest_asyncio
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse

from shared.contract.errors import Fault, InvalidInput, NotFound, NotRecorded
from shared.observability.logs import (
    LogAccess,
    LogFormat,
    LogSettings,
    configure_logging,
    log_access,
    readable,
    silent,
)
from shared.observability.metrics import Metrics
from shared.web.conventions import install_conventions
from shared.web.health import Check, health_router
from tests.serving import served

pytestmark = pytest.mark.filterwarnings("error")


async def _up() -> str:
    return "fine"


_things = APIRouter()


@_things.get("/kept")
async def _kept() -> Response:
    return Response(headers={"cache-control": "max-age=60"})


@_things.get("/things/{number}")
async def _thing(number: int) -> int:
    return number


@_things.post("/things/all")
async def _all() -> None:
    """A fixed word where another route has a parameter."""


@_things.delete("/things/{number}")
async def _remove(number: int) -> int:
    return number


def _app(
    *checks: Check, log_access: LogAccess = silent, cors_origins: Sequence[str] = ()
) -> FastAPI:
    app = FastAPI()
    app.include_router(_things)
    install_conventions(app, log_access=log_access, metrics=Metrics(), cors_origins=cors_origins)

    def checks_of(_: Request) -> Sequence[Check]:
        return checks

    app.include_router(health_router(service="test", version="1", checks=checks_of))

    @app.get("/number")
    async def number(limit: Annotated[int, Query(le=10)]) -> int:
        return limit

    @app.get("/nan")
    async def nan() -> None:
        raise InvalidInput([Fault(field="x", message="must be finite", value=float("nan"))])

    @app.get("/absent")
    async def absent() -> None:
        raise NotFound("There is no such thing.")

    @app.get("/busy")
    async def busy() -> None:
        raise NotRecorded("Not now.")

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError("secret detail")

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"first half"
            raise ValueError("secret detail")

        return StreamingResponse(body())

    return app


def _collect(logged: list[dict[str, object]]) -> LogAccess:
    members = signature(log_access).parameters

    def log(*values: object) -> None:
        logged.append(dict(zip(members, values, strict=True)))

    return log


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of the small app."""
    async with served(_app(Check("database", _up))) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/missing", 404, "NotFound"),
        ("POST", "/number", 405, "MethodNotAllowed"),
        ("GET", "/absent", 404, "NotFound"),
        ("GET", "/busy", 503, "NotRecorded"),
        ("GET", "/number?limit=11", 400, "InvalidInput"),
        ("GET", "/number", 400, "InvalidInput"),
        ("GET", "/nan", 400, "InvalidInput"),
        ("GET", "/broken", 500, "InternalServerError"),
    ],
)
async def test_every_error_is_a_problem_document(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    """Ours and the framework's own: one form, with code, path and request id."""
    response = await client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["instance"] == path.partition("?")[0]
    assert problem["request_id"] == response.headers["x-request-id"]


async def test_query_fault_names_field_and_value(client: httpx.AsyncClient) -> None:
    """A bad query parameter is listed like a bad body field."""
    problem = (await client.get("/number?limit=11")).json()
    [fault] = problem["validation_errors"]
    assert (fault["field"], fault["value"]) == ("limit", "11")


async def test_value_that_json_cannot_hold_is_shown_as_a_string(client: httpx.AsyncClient) -> None:
    """A NaN received is given back readable, and the document stays valid JSON."""
    problem = (await client.get("/nan")).json()
    assert problem["validation_errors"][0]["value"] == "NaN"


async def test_unexpected_error_tells_nothing_of_the_inside(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets an id to quote; the traceback is in the log under that id."""
    response = await client.get("/broken")
    assert "secret" not in response.text
    request_id = response.headers["x-request-id"]
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    event = cast("dict[str, object]", record.msg)
    assert event["request_id"] == request_id
    assert event["exc_info"]


async def test_error_in_the_middle_of_an_answer_cuts_the_connection(
    client: httpx.AsyncClient,
) -> None:
    """Half an answer must not look like a whole one."""
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("/half")


@pytest.mark.parametrize(
    ("sent", "accepted"),
    [("order-66", True), ("a" * 128, True), ("a" * 129, False), ('x"y', False), ("a b", False)],
)
async def test_request_id_is_taken_over_when_it_is_plain(
    client: httpx.AsyncClient, sent: str, accepted: bool
) -> None:
    """A caller's id comes back; one that could not be logged safely is replaced."""
    response = await client.get("/livez", headers={"x-request-id": sent})
    assert (response.headers["x-request-id"] == sent) is accepted


async def test_each_request_is_logged_once_with_its_id() -> None:
    """Id, client, method, route and status, and how long it took."""
    logged: list[dict[str, object]] = []
    async with served(_app(log_access=_collect(logged))) as client:
        await client.get("/absent", headers={"x-request-id": "find-me"})
    [request] = logged
    assert 0 < cast("float", request.pop("duration_s")) < 60
    assert request == {
        "request_id": "find-me",
        "client": "anonymous",
        "method": "GET",
        "route": "/absent",
        "status": 404,
        "prediction_id": None,
    }


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_request_reads_alike_in_both_forms_of_the_log(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    """For a program or for a person, the same members in the same order."""
    log = configure_logging(LogSettings(log_format=log_format))
    async with served(_app(log_access=log)) as client:
        await client.get("/absent", headers={"x-request-id": "find-me"})
        await asyncio.sleep(0.2)  # lines of requests are written together
    [line] = [line for line in capsys.readouterr().err.splitlines() if "find-me" in line]
    said = "request_id=find-me client=anonymous method=GET route=/absent status=404 duration_s="
    assert said in readable(line)


async def test_requests_are_measured_under_their_route(client: httpx.AsyncClient) -> None:
    """Each template is one series; whatever is no route shares one, so that none can be made up."""
    await client.get("/absent")
    await client.get("/wp-admin")
    await client.get("/wp-login")
    text = (await client.get("/metrics")).text
    series = 'http_request_duration_seconds_count{method="GET",route="%s",status="404"} %s'
    assert series % ("/absent", "1.0") in text
    assert series % ("unknown", "2.0") in text
    assert "wp-" not in text


async def test_head_is_get_without_the_body(client: httpx.AsyncClient) -> None:
    """Same status, same headers, nothing after them; the log and the metrics call it HEAD."""
    get, head = await client.get("/livez"), await client.head("/livez")
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"] != "0"
    assert (await client.head("/missing")).status_code == 404
    metrics = (await client.get("/metrics")).text
    assert 'http_request_duration_seconds_count{method="HEAD",route="/livez"' in metrics


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/livez", "GET, HEAD, OPTIONS"),
        ("/things/7", "GET, DELETE, HEAD, OPTIONS"),
        ("/things/all", "POST, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
    ],
)
async def test_options_and_405_name_every_method(
    client: httpx.AsyncClient, path: str, allowed: str
) -> None:
    """Those of all routes of the path, not only of the first one."""
    options, refused = await client.options(path), await client.put(path)
    assert (options.status_code, options.content) == (204, b"")
    assert refused.status_code == 405
    assert refused.json()["code"] == "MethodNotAllowed"
    for answer in (options, refused):
        assert set(answer.headers["allow"].split(", ")) == set(allowed.split(", "))


async def test_every_answer_bears_the_standing_headers(client: httpx.AsyncClient) -> None:
    """An error no less than a success; a cache keeps only what its route lets it keep."""
    for path in ("/livez", "/missing", "/broken", "/openapi.json"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
    assert (await client.get("/kept")).headers.get_list("cache-control") == ["max-age=60"]


async def test_access_log_tells_the_template_and_never_the_path() -> None:
    """A path can name a loan, or hold a line of its own for the log."""
    logged: list[dict[str, object]] = []
    async with served(_app(log_access=_collect(logged))) as client:
        for path in (
            "/things/7431",
            "/a%E2%80%A8%7B%22event%22:%22forged%22%7D",
            "/number?limit=7431",
        ):
            await client.get(path, headers={"x-request-id": "find-me"})
    assert [request["route"] for request in logged] == ["/things/{number}", "unknown", "/number"]
    assert "7431" not in str([{**request, "duration_s": None} for request in logged])


async def test_foreign_pages_are_shut_out_by_default(client: httpx.AsyncClient) -> None:
    """No page of another origin is allowed to read an answer."""
    answer = await client.get("/livez", headers={"origin": "https://bank.example"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_pages_of_listed_origins_are_let_in() -> None:
    """They may send what the API takes, keys included; others may not."""
    preflight = {"access-control-request-method": "POST"}
    async with served(_app(cors_origins=["https://bank.example"])) as client:
        for origin, allowed in (
            ("https://bank.example", "https://bank.example"),
            ("https://evil.example", None),
        ):
            answer = await client.get("/livez", headers={"origin": origin})
            assert answer.headers.get("access-control-allow-origin") == allowed
            request = {"origin": origin, "access-control-request-headers": "x-api-key"} | preflight
            before = await client.options("/livez", headers=request)
            assert before.status_code == (200 if allowed else 400)
            assert before.headers.get("access-control-allow-origin") == allowed
            assert before.headers["x-request-id"]

"""Problem documents and request ids, on a small app served for real."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI, Query, Request
from fastapi.responses import StreamingResponse

from shared.errors import Fault, InvalidInput, NotFound, NotRecorded
from shared.health import Check, health_router
from shared.http import install_conventions
from shared.metrics import Metrics
from shared.telemetry import LogAccess
from tests.serving import served

pytestmark = pytest.mark.filterwarnings("error")


async def _up() -> str:
    return "fine"


def _app(*checks: Check, log_access: LogAccess = lambda _: None) -> FastAPI:
    app = FastAPI()
    install_conventions(app, log_access=log_access, metrics=Metrics())

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


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of the small app."""
    async with served(_app(Check("database", _up))) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "NotFound"),
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
    [record] = [record for record in caplog.records if record.exc_info]
    assert request_id in record.getMessage()


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
    """Method, path, status and id stand in one line."""
    lines: list[str] = []
    async with served(_app(log_access=lines.append)) as client:
        await client.get("/absent", headers={"x-request-id": "find-me"})
    [line] = lines
    assert re.fullmatch(r"GET /absent 404 \d+\.\d ms find-me", line)


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

"""Requests that never reach an app: too large, too slow or malformed."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
import pytest_asyncio
from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect

from shared.observability.logs import silent
from shared.observability.metrics import Metrics
from shared.web import protocol
from shared.web.conventions import install_conventions
from shared.web.direct import MAX_BODY_BYTES, DirectMiddleware, DirectRoute, read_body
from shared.web.protocol import MAX_HEAD_BYTES
from shared.web.settings import REQUEST_TIMEOUT_S
from tests.raw import Answer, connected
from tests.serving import served

_SHORT_S = 0.2


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that answers how long the body was."""
    router = APIRouter(route_class=DirectRoute)

    @router.post("/length")
    async def length(request: Request) -> Response:
        return Response(str(len(await read_body(request))))

    app = FastAPI()

    @app.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())

    app.include_router(router)
    app.add_middleware(DirectMiddleware, routers=[router])
    install_conventions(app, log_access=silent, metrics=Metrics())
    async with served(app) as client:
        yield client


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that waits for a moment only."""
    monkeypatch.setattr(protocol.BoundedHttpProtocol, "request_timeout_s", _SHORT_S)


async def _ask(client: httpx.AsyncClient, *pieces: bytes, pause_s: float = 0.0) -> Answer:
    """The answer to a request in pieces, on a connection of its own."""
    async with connected(str(client.base_url)) as connection:
        sending = asyncio.create_task(connection.send(*pieces, pause_s=pause_s))
        answer = await connection.answer()
        await sending
        return answer


async def _assert_serves(client: httpx.AsyncClient) -> None:
    assert (await client.post("/length", content=b"abc")).text == "3"


async def test_head_without_end_is_refused(client: httpx.AsyncClient) -> None:
    """However many headers it is made of; the client gets an answer, and the rest is not read."""
    line = b"x-padding: " + b"a" * 1000 + b"\r\n"
    answer = await _ask(client, b"GET / HTTP/1.1\r\nhost: x\r\n", *[line] * 200)
    assert answer.status == 431
    assert answer.problem()["code"] == "HeadTooLarge"
    assert answer.closed
    await _assert_serves(client)


@pytest.mark.parametrize("size", [2 * MAX_HEAD_BYTES, 20 * MAX_HEAD_BYTES])
async def test_large_head_in_one_piece_is_refused(client: httpx.AsyncClient, size: int) -> None:
    """One header or one path is not larger for having come at once."""
    for head in (
        b"GET / HTTP/1.1\r\nhost: x\r\nx-padding: " + b"a" * size + b"\r\n\r\n",
        b"GET /" + b"a" * size + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    ):
        answer = await _ask(client, head)
        assert answer.status == 431
        assert answer.closed


async def test_head_up_to_the_limit_is_served(client: httpx.AsyncClient) -> None:
    """What is promised is possible, in one piece or in many, again and again."""
    padding = b"x-padding: " + b"a" * (MAX_HEAD_BYTES - 200) + b"\r\n"
    request = b"POST /length HTTP/1.1\r\nhost: x\r\n" + padding + b"content-length: 3\r\n\r\nabc"
    async with connected(str(client.base_url)) as connection:
        for pieces in ([request], [request[:100], request[100:30_000], request[30_000:]]):
            await connection.send(*pieces, pause_s=0.01)
            answer = await connection.answer()
            assert (answer.status, answer.body) == (200, b"3")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\nx-trickle: ",
        b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n",
        b"POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3e8\r\n",
    ],
)
async def test_request_that_trickles_in_is_refused(client: httpx.AsyncClient, start: bytes) -> None:
    """Its head or its body: each piece alone is in time, the whole is not."""
    answer = await _ask(client, start, *[b"a"] * 100, pause_s=_SHORT_S / 10)
    assert answer.status == 408
    assert answer.problem()["code"] == "RequestTimeout"
    assert answer.closed
    await _assert_serves(client)


@pytest.mark.usefixtures("impatient")
async def test_connection_without_a_request_is_closed(client: httpx.AsyncClient) -> None:
    """Without a request there is no answer."""
    async with connected(str(client.base_url)) as connection:
        assert await connection.is_closed()
    await _assert_serves(client)


@pytest.mark.usefixtures("impatient")
async def test_websocket_may_be_silent_for_long(client: httpx.AsyncClient) -> None:
    """The limit is on requests; an open page of the dashboard says nothing for minutes."""
    url = str(client.base_url.copy_with(scheme="ws", path="/echo"))
    async with connect(url) as socket:
        await asyncio.sleep(3 * _SHORT_S)
        await socket.send("still here")
        assert await socket.recv() == "still here"


@pytest.mark.usefixtures("impatient")
async def test_connection_is_kept_between_requests(client: httpx.AsyncClient) -> None:
    """The limit is on a request, not on the time between two."""
    async with connected(str(client.base_url)) as connection:
        for _ in range(2):
            await connection.send(
                b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\na", b"b"
            )
            assert (await connection.answer()).body == b"2"
            await asyncio.sleep(2 * _SHORT_S)


@pytest.mark.parametrize("start", [b"", b"POST /length HTTP/1.1\r\nhost: x\r\nx-trickle: "])
async def test_connections_without_a_whole_request_are_bounded(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    """So is the memory that they take: the oldest is closed, and a newcomer is served."""
    monkeypatch.setattr(protocol, "MAX_HALF_OPEN", 10)
    await _assert_serves(client)
    async with AsyncExitStack() as stack:
        half_open = []
        for _ in range(12):
            connection = await stack.enter_async_context(connected(str(client.base_url)))
            await connection.send(start)
            await _assert_serves(client)
            half_open.append(connection)
        async with asyncio.timeout(REQUEST_TIMEOUT_S / 2):
            for connection in half_open[:2]:
                if start:
                    assert (await connection.answer()).status == 408
                assert await connection.is_closed()
        rest = b"x\r\ncontent-length: 2\r\n\r\nab"
        await half_open[2].send(rest if start else b"POST /length HTTP/1.1\r\nhost: " + rest)
        assert (await half_open[2].answer()).body == b"2"


async def test_idle_connection_keeps_nothing_of_its_last_request(
    client: httpx.AsyncClient,
) -> None:
    """A thousand of them would otherwise hold a thousand heads."""
    size, count = 30_000, 50
    request = b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nx-padding: %b\r\n\r\nab"
    async with AsyncExitStack() as stack:
        idle = [
            await stack.enter_async_context(connected(str(client.base_url))) for _ in range(count)
        ]
        tracemalloc.start()
        for connection in idle:
            await connection.send(request % (b"a" * size))
            assert (await connection.answer()).body == b"2"
        kept_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept_bytes < count * size / 5


async def test_head_of_an_answer_goes_out_with_its_body() -> None:
    """One packet, and one system call; the pieces that follow do not wait for each other."""
    go_on = asyncio.Semaphore(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            return
        headers = [(b"content-length", b"9")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, piece in enumerate((b"one", b"two", b"six")):
            await go_on.acquire()
            await send({"type": "http.response.body", "body": piece, "more_body": number < 2})

    async with served(app) as client, connected(str(client.base_url)) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        first = asyncio.create_task(connection.piece())
        await asyncio.sleep(0.05)
        assert not first.done()
        go_on.release()
        received = await first
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.endswith(b"\r\n\r\none")
        for piece in (b"two", b"six"):
            go_on.release()
            assert await connection.piece() == piece


async def test_answer_without_a_body_does_not_wait_for_one(client: httpx.AsyncClient) -> None:
    """HEAD, and a status that has none."""
    for request_, status in ((b"HEAD /openapi.json", 200), (b"OPTIONS /length", 204)):
        async with connected(str(client.base_url)) as connection:
            await connection.send(request_ + b" HTTP/1.1\r\nhost: x\r\n\r\n")
            async with asyncio.timeout(5):
                head = await connection.piece()
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert head.endswith(b"\r\n\r\n")


async def test_client_that_asks_first_may_send_its_body(client: httpx.AsyncClient) -> None:
    """100 Continue comes at once: the body, and with it the answer, waits for it."""
    async with connected(str(client.base_url)) as connection:
        await connection.send(
            b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n"
        )
        async with asyncio.timeout(5):
            assert await connection.piece() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await connection.send(b"abc")
        assert (await connection.answer()).body == b"3"


async def test_client_that_asks_first_is_not_told_to_send_too_long_a_body(
    client: httpx.AsyncClient,
) -> None:
    """The refusal comes instead of 100 Continue, before a byte of the body is sent."""
    answer = await _ask(
        client,
        b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n"
        b"expect: 100-continue\r\n\r\n",
    )
    assert answer.status == 413
    assert answer.problem()["code"] == "BodyTooLarge"
    assert answer.closed


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"NONSENSE\r\n\r\n",
        b"BREW /length HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nna me: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-nul: a\x00b\r\n\r\n",
        b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_http_is_a_problem(client: httpx.AsyncClient, request_: bytes) -> None:
    """Also where two readers could disagree on where the request ends."""
    answer = await _ask(client, request_)
    assert answer.status == 400
    assert answer.problem()["code"] == "MalformedRequest"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.closed
    await _assert_serves(client)


@pytest.mark.parametrize(
    "path", [b"/length%0a", b"/length%0D", b"/%00", b"/%7f", b"/%c2%85", b"/a%1Fb?q=1"]
)
async def test_path_with_a_control_character_is_malformed(
    client: httpx.AsyncClient, path: bytes
) -> None:
    """``$`` in a pattern matches before a last line break, so a gateway's rules may differ."""
    answer = await _ask(
        client, b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
    )
    assert answer.status == 400
    problem = answer.problem()
    assert problem["code"] == "MalformedRequest"
    assert [fault["field"] for fault in problem["validation_errors"]] == ["path"]
    assert answer.closed
    await _assert_serves(client)


async def test_websocket_with_a_control_character_in_its_path_is_refused(
    client: httpx.AsyncClient,
) -> None:
    """No other protocol gets a path that this one refuses."""
    answer = await _ask(
        client,
        b"GET /echo%0a HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    )
    assert answer.status == 400
    assert answer.closed


@pytest.mark.parametrize(
    ("version", "hosts"),
    [
        (b"1.1", []),
        (b"1.1", [b"x", b"x"]),
        (b"1.1", [b"x", b"y"]),
        (b"1.0", [b"x", b"y"]),
        *((b"1.1", [host]) for host in (b"[", b"[::1", b"[x]", b"[:::]", b"a b", b"a@b", b"x:y")),
        *(
            (b"1.1", [host])
            for host in (b"/", b"x/y", b"x?y", b"x#y", b"\xff", b"http://x", b"x:1:2")
        ),
    ],
)
async def test_request_names_one_host(
    client: httpx.AsyncClient, version: bytes, hosts: list[bytes]
) -> None:
    """A gateway may take another one than this service, or one that is no host at all."""
    lines = b"".join(b"host: %b\r\n" % host for host in hosts)
    for path in (b"/length", b"/none"):
        answer = await _ask(
            client, b"POST %b HTTP/%b\r\n%bcontent-length: 3\r\n\r\nabc" % (path, version, lines)
        )
        assert answer.status == 400
        [fault] = answer.problem()["validation_errors"]
        assert (fault["field"], answer.closed) == ("host", True)
    await _assert_serves(client)


@pytest.mark.parametrize(
    ("version", "host"),
    [
        (b"1.0", None),
        *((b"1.1", host) for host in (b"", b"x", b"LOANS.example:80", b"a_b", b"127.0.0.1:8000")),
        *((b"1.1", host) for host in (b"[::1]", b"[::1]:8000", b"xn--bcher-kva.example.")),
    ],
)
async def test_host_is_any_that_the_standard_allows(
    client: httpx.AsyncClient, version: bytes, host: bytes | None
) -> None:
    """HTTP/1.0 has none; an empty one stands for no host."""
    line = b"" if host is None else b"host: %b\r\n" % host
    answer = await _ask(
        client, b"POST /length HTTP/%b\r\n%bcontent-length: 3\r\n\r\nabc" % (version, line)
    )
    assert (answer.status, answer.body) == (200, b"3")


@pytest.mark.parametrize(
    "malformed",
    [
        b"\x16\x03\x01",
        b"NONSENSE\r\n\r\n",
        b"GET /length%0a HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /length HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-padding: " + b"a" * 2 * MAX_HEAD_BYTES,
    ],
)
async def test_malformed_request_takes_no_answer_from_the_one_before(
    client: httpx.AsyncClient, malformed: bytes
) -> None:
    """A decision that is on record is answered, whatever its client sends behind it."""
    request = b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"
    async with connected(str(client.base_url)) as connection:
        await connection.send(request * 3 + malformed)
        answers = [await connection.answer() for _ in range(3)]
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"3")] * 3
        assert await connection.is_closed()
    await _assert_serves(client)


async def test_query_may_hold_a_control_character(client: httpx.AsyncClient) -> None:
    """A value is for the route to judge."""
    problem = (await client.post("/length?loan_id=a%0ab", content=b"abc")).json()
    assert problem["code"] == "InvalidInput"
    [fault] = problem["validation_errors"]
    assert (fault["field"], fault["value"]) == ("loan_id", "a\nb")


async def test_chunked_body_is_limited_like_any_other(client: httpx.AsyncClient) -> None:
    """No content length has to be believed: what comes is counted."""

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 1000):
            yield b"a" * min(1000, size - start)

    whole = await client.post("/length", content=chunks(MAX_BODY_BYTES))
    assert whole.text == str(MAX_BODY_BYTES)
    answer = await _ask(
        client,
        b"POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        *[b"3e8\r\n" + b"a" * 1000 + b"\r\n"] * 100,
    )
    assert answer.status == 413
    assert answer.problem()["code"] == "BodyTooLarge"
    assert answer.closed
    await _assert_serves(client)


async def test_body_that_is_announced_too_large_is_refused_when_it_comes(
    client: httpx.AsyncClient,
) -> None:
    """A content length is only a promise; the limit is on bytes."""
    answer = await _ask(
        client,
        b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n",
        *[b"a" * 10_000] * 100,
    )
    assert answer.status == 413
    assert answer.closed


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        (None, True),
        ("application/json", True),
        ("Application/JSON; charset=UTF-8", True),
        ('application/json;charset="utf-8"', True),
        ("application/vnd.bank.loan+json", True),
        ("application/json; charset=latin-1", False),
        ("application/jsonp", False),
        ("application/x-www-form-urlencoded", False),
        ("text/plain", False),
        ("multipart/form-data; boundary=x", False),
        ("application/x-ndjson", False),
        ("", False),
    ],
)
async def test_body_of_another_kind_is_refused(
    client: httpx.AsyncClient, content_type: str | None, accepted: bool
) -> None:
    """JSON under any of its names, or unnamed; what is said to be something else is not read."""
    headers = {} if content_type is None else {"content-type": content_type}
    response = await client.post("/length", content=b"{}", headers=headers)
    assert response.status_code == (200 if accepted else 415)
    if not accepted:
        assert response.json()["code"] == "UnsupportedMediaType"


async def test_compressed_body_is_refused(client: httpx.AsyncClient) -> None:
    """A kilobyte of it could be a gigabyte of JSON."""
    response = await client.post("/length", content=b"x", headers={"content-encoding": "gzip"})
    assert response.status_code == 415

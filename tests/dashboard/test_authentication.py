"""Who may look, from where, and how one signs in and out."""

from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

from services.dashboard.authentication import COOKIE
from services.dashboard.login import ATTEMPTS_OF_ONE
from shared.access.api_keys import mint_key
from shared.access.passwords import password_entry
from tests.dashboard.conftest import client_of, settings_of, settings_of_nothing, started
from tests.harness import System

_HTML = {"accept": "text/html"}
_ELSEWHERE = "203.0.113.7"
_PASSWORD = "correct horse"  # noqa: S105 - of this test alone


@pytest.fixture
async def guarded() -> AsyncIterator[FastAPI]:
    """A dashboard with a password, whose services are away."""
    async with started(settings_of_nothing(dashboard_password=password_entry(_PASSWORD))) as app:
        yield app


@pytest.fixture
async def unguarded() -> AsyncIterator[FastAPI]:
    """A dashboard without a password, whose services are away."""
    async with started(settings_of_nothing()) as app:
        yield app


async def _sign_in(client: httpx.AsyncClient, secret: str, **form: str) -> httpx.Response:
    return await client.post("/login", data={"secret": secret, **form})


@pytest.mark.parametrize(
    ("address", "host", "passes"),
    [
        ("127.0.0.1", "127.0.0.1:8002", True),
        ("::1", "[::1]:8002", True),
        ("127.0.0.1", "localhost:8002", True),
        ("127.0.0.1", "rebound.example", False),
        (_ELSEWHERE, "127.0.0.1:8002", False),
        (_ELSEWHERE, "loans.example", False),
    ],
)
async def test_without_a_password_only_this_machine_needs_no_sign_in(
    unguarded: FastAPI, address: str, host: str, passes: bool
) -> None:
    """Under a local host name, which no other site can share."""
    async with client_of(unguarded, address=address, host=host) as client:
        answer = await client.get("/batch", headers=_HTML)
    assert answer.status_code == (200 if passes else 303)


async def test_with_a_password_this_machine_signs_in_too(guarded: FastAPI) -> None:
    """It leads back to the page; scripts and other sites cannot read the cookie."""
    async with client_of(guarded) as client:
        asked = await client.get("/batch?draft=1", headers=_HTML)
        assert asked.status_code == 303
        assert asked.headers["location"] == "/login?next=%2Fbatch%3Fdraft%3D1"
        form = await client.get(asked.headers["location"])
        assert 'value="/batch?draft=1"' in form.text
        assert (await client.get("/batch")).status_code == 401
        assert (await client.post("/batch/upload")).status_code == 401
        # A form is not sent again.
        form = await client.post("/batch/upload", headers=_HTML)
        assert (form.status_code, form.headers["location"]) == (303, "/login?next=%2F")
        entered = await _sign_in(client, _PASSWORD, next="/batch?draft=1")
        assert entered.status_code == 303
        assert entered.headers["location"] == "/batch?draft=1"
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert "secure" not in cookie
        assert (await client.get("/batch", headers=_HTML)).status_code == 200


async def test_signing_out_ends_the_session_even_for_a_cookie_that_was_copied(
    guarded: FastAPI,
) -> None:
    """The server forgets it, not only the browser."""
    async with client_of(guarded) as client:
        await _sign_in(client, _PASSWORD)
        copied = {"cookie": f"{COOKIE}={client.cookies[COOKIE]}"} | _HTML
        assert (await client.post("/logout")).headers["location"] == "/login"
        assert COOKIE not in client.cookies
    async with client_of(guarded) as client:
        assert (await client.get("/batch", headers=copied)).status_code == 303


@pytest.mark.parametrize("cookie", ["", "x", "x.y", "\x7f;;=", f'{COOKIE}="'])
async def test_forged_cookie_is_no_session(guarded: FastAPI, cookie: str) -> None:
    async with client_of(guarded) as client:
        headers = {"cookie": f"{COOKIE}={cookie}"} | _HTML
        assert (await client.get("/", headers=headers)).status_code == 303


@pytest.mark.parametrize("wanted", ["https://evil.example", "//evil.example", "/\\evil.example"])
async def test_signing_in_never_leads_to_another_site(guarded: FastAPI, wanted: str) -> None:
    """A link to the sign-in page may come from any site."""
    async with client_of(guarded) as client:
        assert (await _sign_in(client, _PASSWORD, next=wanted)).headers["location"] == "/"


async def test_attempts_are_limited_by_address(guarded: FastAPI) -> None:
    """Also with the right password; another address is not affected."""
    async with client_of(guarded, address=_ELSEWHERE) as client:
        allowed = ATTEMPTS_OF_ONE[0].amount
        answers = [await _sign_in(client, "wrong") for _ in range(allowed)]
        assert {answer.status_code for answer in answers} == {401}
        refused = await _sign_in(client, _PASSWORD)
        assert refused.status_code == 429
        assert "Too many attempts" in refused.text
    async with client_of(guarded, address="203.0.113.8") as client:
        assert (await _sign_in(client, _PASSWORD)).status_code == 303


async def test_key_that_cannot_be_checked_is_refused(unguarded: FastAPI) -> None:
    """The reason given is the outage."""
    async with client_of(unguarded, address=_ELSEWHERE) as client:
        answer = await _sign_in(client, "lp_some-key")
        assert answer.status_code == 503
        assert "does not answer" in answer.text
        assert (await _sign_in(client, "no key and no password")).status_code == 401


async def test_api_key_that_the_services_know_signs_in(standing: System) -> None:
    """The session then calls the services with that key."""
    unknown, _ = mint_key("unknown", ["history:read"])
    async with (
        started(settings_of(standing, dashboard_api_key=None)) as app,
        client_of(app, address=_ELSEWHERE) as client,
    ):
        assert (await _sign_in(client, unknown)).status_code == 401
        assert (await _sign_in(client, standing.api_key)).status_code == 303
        assert (await client.get("/history-export.csv")).status_code == 200


async def test_requests_from_other_sites_are_refused(unguarded: FastAPI) -> None:
    """They run in browsers on this machine, too."""
    async with client_of(unguarded) as client:
        evil = {"origin": "https://evil.example"}
        assert (await client.post("/logout", headers=evil)).status_code == 403
        own = {"origin": "http://127.0.0.1:8002"}
        assert (await client.post("/logout", headers=own)).status_code == 303


Headers = list[tuple[bytes, bytes]]
_LOCAL: Headers = [(b"host", b"127.0.0.1:8002")]


async def _sent(
    app: FastAPI,
    path: str,
    headers: Headers,
    *,
    address: str = _ELSEWHERE,
    body: bytes | None = None,
    kind: str = "http",
) -> list[Message]:
    """What the app sends for a request that no client library would write."""
    scope: dict[str, Any] = {
        "type": kind,
        "method": "GET" if body is None else "POST",
        "http_version": "1.1",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": (address, 1),
        "server": ("127.0.0.1", 8002),
        "scheme": "http" if kind == "http" else "ws",
        "subprotocols": [],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        if kind == "websocket":
            return {"type": "websocket.connect"}
        return {"type": "http.request", "body": body or b""}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def _status(app: FastAPI, path: str, headers: Headers, **request: Any) -> int:
    status: int = (await _sent(app, path, headers, **request))[0]["status"]
    return status


@pytest.mark.parametrize(
    ("address", "origin"), [("127.0.0.1", "https://evil.example"), (_ELSEWHERE, None)]
)
async def test_websocket_without_a_session_is_closed(
    unguarded: FastAPI, address: str, origin: str | None
) -> None:
    """Before the dashboard sees it."""
    headers = [*_LOCAL, *([(b"origin", origin.encode())] if origin else [])]
    path = "/_nicegui_ws/socket.io/"
    sent = await _sent(unguarded, path, headers, address=address, kind="websocket")
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_only_whole_segments_open_a_path_without_signing_in(guarded: FastAPI) -> None:
    """A path that only begins like a free one needs a session."""
    for path in (
        *("/assets/x/y", "/assets/../batch", "/assets/", "/assets", "/assetsx", "/login/x"),
        *("/livez/x", "/login\n", "/x/assets/theme.css"),
    ):
        assert await _status(guarded, path, _LOCAL) == 401, path
        assert await _status(guarded, path, [*_LOCAL, (b"accept", b"text/html")]) == 303, path


_ODD_PATHS = (
    *("/assets/x/y", "/assets/\x00", "/assets/theme.css\n", "//", "/\u00e9", "/\ufffd", "/[", "/%"),
    *("/login\n", "/login/", "/history/\x00", "/history/..", "/history/a\nb", "/batch/\ufffd"),
    *("/_nicegui/x", "/_nicegui/3.18.0/static/../x", "/batch/\x00/decisions.csv", "/metrics/x"),
)
_ODD_VALUES = (b"[", b"[::1", b"http://[", b"\xff", b"a b", b"a:b:c", b"x:99999999", b"", b"=")
_HEADERS = (
    *("host", "origin", "cookie", "accept", "accept-encoding", "accept-language", "range"),
    *("x-forwarded-prefix", "x-forwarded-for", "forwarded", "content-type", "content-length"),
    *("authorization", "x-api-key", "x-request-id", "user-agent", "purpose", "if-none-match"),
    *("upgrade", "connection", "sec-websocket-key", "traceparent", "content-encoding"),
)


@pytest.mark.no_cover  # thousands of requests that run the same few lines
@pytest.mark.parametrize("address", ["127.0.0.1", _ELSEWHERE])
@pytest.mark.no_cover
async def test_no_path_and_no_header_is_an_internal_error(unguarded: FastAPI, address: str) -> None:
    """Signed in or not; on a page, a file, the form, an unknown path and a websocket."""
    for path in _ODD_PATHS:
        headers = [*_LOCAL, (b"accept", b"text/html")]
        assert await _status(unguarded, path, headers, address=address) < 500, path
    for name, value in product(_HEADERS, _ODD_VALUES):
        headers = [header for header in _LOCAL if header[0] != name.encode()]
        headers.append((name.encode(), value))
        for path in ("/batch", "/login", "/assets/theme.css", "/none", "/livez"):
            status = await _status(unguarded, path, headers, address=address)
            assert status < 500, (path, name, value)
        status = await _status(unguarded, "/logout", headers, address=address, body=b"x=1")
        assert status < 500, (name, value)
        path = "/_nicegui_ws/socket.io/"
        sent = await _sent(unguarded, path, headers, address=_ELSEWHERE, kind="websocket")
        assert sent[0]["type"] == "websocket.close", (name, value)


async def test_malformed_host_is_refused(unguarded: FastAPI) -> None:
    """Whatever the path."""
    for host in (b"[", b"[::1", b"loans.example:x", b"a b", b"user@loans.example", b""):
        for path in ("/batch", "/login", "/none"):
            assert await _status(unguarded, path, [(b"host", host)]) == 400, host


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        *((path, "GET, HEAD, OPTIONS") for path in ("/", "/history", "/history/x", "/none")),
        *((path, "GET, HEAD, OPTIONS") for path in ("/livez", "/metrics", "/history-export.csv")),
        *((path, "GET, HEAD, POST, OPTIONS") for path in ("/login", "/batch/upload")),
    ],
)
async def test_refused_method_is_a_problem_that_names_the_possible_ones(
    unguarded: FastAPI, path: str, allowed: str
) -> None:
    """Of a page as of any other route."""
    async with client_of(unguarded) as client:
        for method in ("DELETE", "PUT", "PATCH"):
            refused = await client.request(method, path)
            assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.json()["detail"] == f"Possible here: {allowed}."
        options = await client.options(path)
        assert (options.status_code, options.headers["allow"]) == (204, allowed)


async def test_secret_of_odd_characters_is_a_wrong_one(guarded: FastAPI) -> None:
    """No service is called for it."""
    headers = [*_LOCAL, (b"content-type", b"application/x-www-form-urlencoded")]
    secrets = (
        b"\xff",
        b"lp_\xff",
        b"lp_\xc3\xa9",
        b"lp_%C3%A9",
        b"lp_a%0Ab",
        b"lp_a%0D%0Ab",
        b"%00",
    )
    for number, secret in enumerate(secrets):
        body, address = b"secret=" + secret, f"203.0.113.{number}"
        status = await _status(guarded, "/login", headers, body=body, address=address)
        assert status == 401, secret


async def test_requests_are_limited_by_address_and_by_session() -> None:
    """All together but health checks; a session does not share the limit of its address."""
    settings = settings_of_nothing(
        dashboard_password=password_entry(_PASSWORD), rate_limit_dashboard="5/minute"
    )
    async with started(settings) as app:
        async with client_of(app, address=_ELSEWHERE) as client:
            assert (await _sign_in(client, _PASSWORD)).status_code == 303
            for _ in range(4):
                await client.get("/none", headers={"cookie": ""})
            assert (await client.get("/batch")).status_code == 200
        async with client_of(app, address=_ELSEWHERE) as stranger:
            refused = await stranger.get("/login")
            assert refused.status_code == 429
            assert 0 < int(refused.headers["retry-after"]) <= 60
            assert (await stranger.get("/assets/theme.css")).status_code == 429
            assert (await stranger.get("/livez")).status_code == 200
        async with client_of(app, address="203.0.113.8") as neighbour:
            assert (await neighbour.get("/login")).status_code == 200


async def test_forwarding_headers_of_a_visitor_change_nothing(unguarded: FastAPI) -> None:
    """Neither an address on a page nor a redirect."""
    for header in ("x-forwarded-prefix", "x-forwarded-host", "forwarded", "x-forwarded-proto"):
        sent = {header: "/evil"} | _HTML
        async with client_of(unguarded, address=_ELSEWHERE) as client:
            assert "evil" not in (await client.get("/login", headers=sent)).text
            redirect = await client.get("/batch", headers=sent)
            assert redirect.headers["location"] == "/login?next=%2Fbatch"


async def test_visitor_behind_a_proxy_on_this_machine_signs_in(unguarded: FastAPI) -> None:
    """Only the proxy is at a loopback address."""
    async with client_of(unguarded) as client:
        for header in ("x-forwarded-for", "forwarded", "x-real-ip", "via"):
            answer = await client.get("/batch", headers=_HTML | {header: "203.0.113.7"})
            assert answer.status_code == 303


async def test_pages_forbid_other_origins_and_caching(unguarded: FastAPI) -> None:
    """No CDN is possible; only files whose address has their content's hash may be kept."""
    async with client_of(unguarded) as client:
        page = await client.get("/batch")
        policy = page.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http" not in policy
        assert page.headers["cache-control"] == "no-store"
        sheet = page.text.partition('rel="stylesheet" href="')[2].partition('"')[0]
        kept = await client.get(sheet)
        assert kept.headers["cache-control"].endswith("immutable")
        assert (await client.get(sheet.partition("?")[0])).headers["cache-control"] == "no-cache"
        assert (await client.get("/assets/none.css")).status_code == 404


async def test_every_address_begins_with_the_root_path(unguarded: FastAPI) -> None:
    """Behind a gateway that strips it."""
    async with client_of(unguarded) as client:
        scope_path = "/app/batch"
        transport = httpx.ASGITransport(unguarded, root_path="/app", client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url=str(client.base_url)) as below:
            page = await below.get(scope_path)
            assert page.status_code == 200
            links = page.text
            assert "/app/batch/upload" in links
            assert "/app/assets/theme.css" in links
            assert "/app/_nicegui/" in links
            out = await below.post("/app/logout")
            assert out.headers["location"] == "/app/login"


async def test_health_needs_no_session_and_covers_both_services(guarded: FastAPI) -> None:
    """Without them the dashboard is degraded, and ready."""
    async with client_of(guarded, address=_ELSEWHERE) as client:
        assert (await client.get("/readyz")).status_code == 200
        health = (await client.get("/health")).json()
        assert health["status"] == "degraded"
        assert set(health["checks"]) == {"inference", "history"}
        assert (await client.get("/metrics")).status_code == 200

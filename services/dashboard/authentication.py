"""The gate before every page: who passes, how often, and what the browser may load."""

import re
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from services.dashboard.sessions import Session, Sessions
from shared.access.limits import Limits
from shared.access.middleware import address_of, subscriber
from shared.access.rate_limit import RateLimitExceeded, RateLimits
from shared.observability.metrics import PATH as METRICS_PATH
from shared.web.headers import RawHeaders

COOKIE: Final = "loan_dashboard"
LOGIN_PATH: Final = "/login"
ASSETS_PATH: Final = "/assets"
_PROBES: Final = frozenset({"/livez", "/readyz", "/health", METRICS_PATH})
_BUCKET: Final = "dashboard"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})
_LOCAL_HOSTS: Final = frozenset({"127.0.0.1", "[::1]", "localhost"})
_HOST: Final = re.compile(
    r"(?P<name>[\w.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?", re.ASCII | re.IGNORECASE
)
_FORWARDING: Final = re.compile(rb"forwarded|via|x-real-ip|x-forwarded-.+")
_POLICY_VIOLATION: Final = 1008

# NiceGUI needs inline scripts, and Vue compiles its templates in the browser. The policy still
# forbids other origins, framing, and forms that post elsewhere.
_POLICY: Final = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval';"
    b" style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:;"
    b" connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self';"
    b" frame-ancestors 'none'"
)
_HEADERS: Final[RawHeaders] = (
    (b"content-security-policy", _POLICY),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


def page_headers(_: str) -> RawHeaders:
    """The headers of every answer."""
    return _HEADERS


class Authentication:
    """Lets signed-in visitors through, and sends all others to the sign-in page.

    ``local`` is the session of a browser on this machine, or None if that has to sign in too. The
    session is in the request's state, as ``session``. Requests that come from another site's page
    are refused (CSRF). ``limits`` apply to each session, and to each address without one.

    Forwarding headers are removed: the server has applied those of trusted proxies already, and
    the path that a gateway strips is ROOT_PATH, never a header.
    """

    def __init__(
        self, app: ASGIApp, *, sessions: Sessions, local: Session | None, limits: Limits
    ) -> None:
        self.app = app
        self._sessions = sessions
        self._local = local
        self._limits = limits
        self._counts = RateLimits(_BUCKET)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket."""
        if scope["type"] not in ("http", "websocket") or path_of(scope) in _PROBES:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not _HOST.fullmatch(headers.get("host", "localhost")):
            await _refuse(scope, receive, send, 400, "The Host header names no host.")
            return
        if not _is_own_origin(scope, headers):
            await _refuse(scope, receive, send, 403, "This request came from another site.")
            return
        session = self._session(scope, headers)
        caller = (
            session.identifier if session and session.can_end else subscriber(address_of(scope))
        )
        try:
            self._counts.hit(self._limits, bucket=_BUCKET, caller=caller)
        except RateLimitExceeded as error:
            wait_s = error.retry_after_s
            reason = f"Too many requests; try again in {wait_s} s."
            await _refuse(scope, receive, send, 429, reason, {"retry-after": str(wait_s)})
            return
        scope.setdefault("state", {})["session"] = session
        scope["headers"] = [
            (name, value) for name, value in scope["headers"] if not _FORWARDING.fullmatch(name)
        ]
        if session is None and not _is_free(path_of(scope)):
            await self._ask_to_sign_in(scope, receive, send, headers)
            return
        await self.app(scope, receive, send)

    def _session(self, scope: Scope, headers: Headers) -> Session | None:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        session = None if cookie is None else self._sessions.find(cookie.value)
        if session is None and self._local is not None and _is_local(scope, headers):
            return self._local
        return session

    async def _ask_to_sign_in(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers
    ) -> None:
        wants_page = scope["type"] == "http" and "text/html" in headers.get("accept", "")
        if not wants_page:
            await _refuse(scope, receive, send, 401, "Sign in first.")
            return
        query = scope["query_string"].decode("latin-1")
        wanted = f"{path_of(scope)}?{query}" if query else path_of(scope)
        if scope["method"] not in _SAFE_METHODS:
            wanted = "/"  # a form is not sent again
        target = f"{root_of(scope)}{LOGIN_PATH}?next={quote(wanted, safe='')}"
        await RedirectResponse(target, status_code=303)(scope, receive, send)


def session_of(scope: Scope) -> Session:
    """The session of this request; only for paths that need one."""
    session: Session = scope["state"]["session"]
    return session


def root_of(scope: Scope) -> str:
    """The path below which a gateway shows the dashboard; empty at the top."""
    root: str = scope.get("root_path", "")
    return root.rstrip("/")


def path_of(scope: Scope) -> str:
    """The path of the request, below the root."""
    path: str = scope["path"]
    root = root_of(scope)
    return path[len(root) :] or "/" if f"{path}/".startswith(f"{root}/") else path


def _is_free(path: str) -> bool:
    """Whether ``path`` needs no session: the sign-in page and the files that it loads."""
    folder, _, name = path.rpartition("/")
    return path == LOGIN_PATH or (folder == ASSETS_PATH and name != "")


def _is_local(scope: Scope, headers: Headers) -> bool:
    """Whether a browser on this machine asks, under a local host name and through no proxy.

    The host name is checked because another site's name can resolve to this machine (DNS
    rebinding).
    """
    client = scope.get("client")
    host = _HOST.fullmatch(headers.get("host", ""))
    return (
        client is not None
        and client[0] in _LOOPBACK
        and host is not None
        and host["name"] in _LOCAL_HOSTS
        and not any(_FORWARDING.fullmatch(name) for name, _ in scope["headers"])
    )


def _is_own_origin(scope: Scope, headers: Headers) -> bool:
    if scope["type"] == "http" and scope["method"] in _SAFE_METHODS:
        return True
    origin = headers.get("origin")
    # The scheme is not compared: a proxy may terminate TLS.
    return origin is None or origin.partition("://")[2] == headers.get("host")


async def _refuse(
    scope: Scope,
    receive: Receive,
    send: Send,
    status: int,
    reason: str,
    headers: dict[str, str] | None = None,
) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason})
        return
    await PlainTextResponse(reason, status, headers)(scope, receive, send)

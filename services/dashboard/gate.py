"""The gate before every page: who may pass, from where, and what the browser may load."""

from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from services.dashboard.sessions import Session, Sessions
from shared.observability.metrics import PATH as METRICS_PATH
from shared.web.headers import RawHeaders

COOKIE: Final = "loan_dashboard"
LOGIN_PATH: Final = "/login"
ASSETS_PREFIX: Final = "/assets/"
_FREE_PATHS: Final = frozenset({LOGIN_PATH, "/livez", "/readyz", "/health", METRICS_PATH})
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})
_LOCAL_HOSTS: Final = _LOOPBACK | {"localhost"}
_POLICY_VIOLATION: Final = 1008

# NiceGUI starts with inline scripts, and Vue compiles templates in the browser; what the policy
# still does is to forbid every other origin, framing, and forms that lead elsewhere.
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
    """What every answer says to browsers."""
    return _HEADERS


class Gate:
    """Lets through whoever is signed in, and this machine where no password is configured.

    ``local`` is the session of this machine's own browser, or None if it has to sign in too. The
    session is in the request's state: ``session``. Requests that another site's page makes in the
    visitor's name are refused whoever the visitor is.
    """

    def __init__(self, app: ASGIApp, *, sessions: Sessions, local: Session | None) -> None:
        self.app = app
        self._sessions = sessions
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path = path_of(scope)
        if not _is_own_origin(scope, headers):
            await _refuse(scope, receive, send, 403, "This request came from another site.")
            return
        session = self._session(scope, headers)
        scope.setdefault("state", {})["session"] = session
        if session is None and path not in _FREE_PATHS and not path.startswith(ASSETS_PREFIX):
            await self._ask_to_sign_in(scope, receive, send, headers, path)
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
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, path: str
    ) -> None:
        wants_page = scope["type"] == "http" and "text/html" in headers.get("accept", "")
        if not wants_page or scope["method"] not in _SAFE_METHODS:
            await _refuse(scope, receive, send, 401, "Sign in first.")
            return
        query = scope["query_string"].decode("latin-1")
        wanted = f"{path}?{query}" if query else path
        target = f"{root_of(scope)}{LOGIN_PATH}?next={quote(wanted, safe='')}"
        await RedirectResponse(target, status_code=303)(scope, receive, send)


def session_of(scope: Scope) -> Session:
    """Who makes this request, as the gate found; only for paths that need a session."""
    session: Session = scope["state"]["session"]
    return session


def root_of(scope: Scope) -> str:
    """The path under which a gateway shows the dashboard; empty if it is at the top."""
    root: str = scope.get("root_path", "")
    return root.rstrip("/")


def path_of(scope: Scope) -> str:
    """The path of the request, below the root."""
    path: str = scope["path"]
    return path.removeprefix(root_of(scope)) or "/"


def _is_local(scope: Scope, headers: Headers) -> bool:
    """Whether this machine's own browser asks, and by this machine's own name.

    A name of another site that was made to point here (DNS rebinding) is not this machine's.
    """
    client = scope.get("client")
    host = urlsplit(f"//{headers.get('host', '')}").hostname
    return client is not None and client[0] in _LOOPBACK and host in _LOCAL_HOSTS


def _is_own_origin(scope: Scope, headers: Headers) -> bool:
    if scope["type"] == "http" and scope["method"] in _SAFE_METHODS:
        return True
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason})
        return
    await PlainTextResponse(reason, status)(scope, receive, send)

"""Signing in and out: a plain page, so that the dashboard's own files need a session."""

import asyncio
import re
from typing import Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from loan_predictor_client import AccessDenied, AsyncLoanPredictorClient, CallFailed
from services.dashboard.authentication import COOKIE, LOGIN_PATH, root_of, session_of
from services.dashboard.sessions import LIFETIME_S, Sessions
from services.dashboard.settings import DashboardSettings
from services.dashboard.templating import part
from shared.access.limits import parse_limits
from shared.access.middleware import address_of, subscriber
from shared.access.passwords import is_password
from shared.access.rate_limit import RateLimitExceeded, RateLimits
from shared.web.direct import FORM, read_body

ATTEMPTS_OF_ONE: Final = parse_limits("5/minute;30/hour")
ATTEMPTS_OF_ALL: Final = parse_limits("60/minute")
_MAX_FORM_BYTES: Final = 4096
_KEY: Final = re.compile(r"lp_[!-~]+")


class Authenticator:
    """Gives a session for the password, or for an API key that the services accept.

    ``client`` has the dashboard's own key. A visitor's API key is used for that session's calls,
    so that a visitor can do no more here than with the key itself.
    """

    def __init__(
        self,
        settings: DashboardSettings,
        *,
        sessions: Sessions,
        client: AsyncLoanPredictorClient,
    ) -> None:
        self.sessions = sessions
        self._entry = settings.dashboard_password
        self._client = client
        self._attempts = RateLimits()

    @property
    def takes_password(self) -> bool:
        """Whether a password is configured."""
        return self._entry is not None

    async def admit(self, secret: str, *, address: str) -> str | None:
        """The cookie of a new session; None if the secret is wrong.

        Raises ``RateLimitExceeded``, and ``CallFailed`` if a key cannot be checked.
        """
        self._attempts.hit(ATTEMPTS_OF_ONE, bucket="login", caller=address)
        self._attempts.hit(ATTEMPTS_OF_ALL, bucket="login", caller="everybody")
        if _KEY.fullmatch(secret):
            return await self._admit_key(secret)
        entry = self._entry
        # In a thread: the hash is slow on purpose.
        if entry is not None and await asyncio.to_thread(is_password, secret, entry):
            return self.sessions.begin("password", self._client)
        return None

    async def _admit_key(self, secret: str) -> str | None:
        theirs = self._client.variant(api_key=secret)
        try:
            await theirs.statistics()
        except AccessDenied:
            return None
        return self.sessions.begin("API key", theirs)


def login_router(authenticator: Authenticator) -> APIRouter:
    """The routes /login and /logout."""
    router = APIRouter(include_in_schema=False)

    @router.get(LOGIN_PATH)
    async def ask(request: Request) -> Response:
        """Show the form."""
        return _page(request, authenticator, _safe(request.query_params.get("next", "/")))

    @router.post(LOGIN_PATH)
    async def sign_in(request: Request) -> Response:
        """Start a session, or say why not."""
        body = await read_body(request, limit_bytes=_MAX_FORM_BYTES, media_type=FORM)
        form = parse_qs(body.decode(errors="replace"))
        wanted = _safe(form.get("next", ["/"])[0])
        try:
            cookie = await authenticator.admit(
                form.get("secret", [""])[0].strip(), address=subscriber(address_of(request.scope))
            )
        except RateLimitExceeded as error:
            return _page(request, authenticator, wanted, 429, wait_s=error.retry_after_s)
        except CallFailed:
            return _page(request, authenticator, wanted, 503)
        if cookie is None:
            return _page(request, authenticator, wanted, 401)
        response = RedirectResponse(root_of(request.scope) + wanted, status_code=303)
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=LIFETIME_S,
            path=root_of(request.scope) or "/",
            secure=request.scope["scheme"] == "https",
            httponly=True,
            samesite="lax",
        )
        return response

    @router.post("/logout")
    async def sign_out(request: Request) -> Response:
        """End the session, also for the pages that are open."""
        session = session_of(request.scope)
        if session.can_end:
            authenticator.sessions.end(session)
        response = RedirectResponse(root_of(request.scope) + LOGIN_PATH, status_code=303)
        response.delete_cookie(COOKIE, path=root_of(request.scope) or "/")
        return response

    return router


def _page(
    request: Request,
    authenticator: Authenticator,
    wanted: str,
    status: int = 200,
    *,
    wait_s: int | None = None,
) -> Response:
    body = part(
        "login",
        "page",
        root=root_of(request.scope),
        takes_password=authenticator.takes_password,
        next=wanted,
        status=status,
        wait_s=wait_s,
    )
    return HTMLResponse(body, status)


def _safe(wanted: str) -> str:
    """``wanted`` if it is a path of this dashboard, else the first page: never another site."""
    return wanted if wanted.startswith("/") and not wanted.startswith(("//", "/\\")) else "/"

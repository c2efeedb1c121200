"""Headers that stand on every answer, and who else's web pages may read the answers."""

from collections.abc import Callable, Collection
from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

RawHeaders = tuple[tuple[bytes, bytes], ...]
StandingHeaders = Callable[[str], RawHeaders]
"""Tells from the path what every answer there says to browsers."""

NO_STORE: Final = (b"cache-control", b"no-store")
"""Answers are about people: no cache keeps one unless its route says that it may."""

_COMMON: Final[RawHeaders] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_POLICY: Final = b"content-security-policy"
# An answer is data: opened as a page, it may neither load nor run anything.
_DATA: Final[RawHeaders] = (*_COMMON, (_POLICY, b"default-src 'none'; frame-ancestors 'none'"))
# The pages of Swagger UI begin with a script of their own and load the rest from this service.
_SWAGGER_UI: Final = (
    b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"
    b" img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none';"
    b" form-action 'none'"
)
_PAGE: Final[RawHeaders] = (*_COMMON, (_POLICY, _SWAGGER_UI))
_PAGES: Final = {"/docs": _PAGE, "/docs/oauth2-redirect": _PAGE}


def standing_headers(path: str) -> RawHeaders:
    """What every answer at ``path`` says to browsers."""
    return _PAGES.get(path, _DATA)


def allow_origins(app: FastAPI, origins: Collection[str]) -> None:
    """Let the web pages of ``origins``, and no others, use the service from a browser.

    Nothing is added, and no browser shows an answer to a foreign page, when there are none.
    """
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=(
                *("authorization", "content-type", "idempotency-key"),
                *("x-api-key", "x-request-id"),
            ),
            expose_headers=("x-request-id", "retry-after", "x-cache", "etag"),
        )

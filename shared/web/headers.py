"""Security headers of every answer, and the web pages that may read answers (CORS)."""

from collections.abc import Callable, Collection
from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

RawHeaders = tuple[tuple[bytes, bytes], ...]
HeadersForPath = Callable[[str], RawHeaders]
"""The headers that every answer at a path has."""

NO_STORE: Final = (b"cache-control", b"no-store")
"""Answers are about people: no cache may keep one unless its route allows it."""

_COMMON: Final[RawHeaders] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_POLICY: Final = b"content-security-policy"
# An answer is data: opened as a page, it may not load or run anything.
_DATA: Final[RawHeaders] = (*_COMMON, (_POLICY, b"default-src 'none'; frame-ancestors 'none'"))
# A page to print has its own style, loads nothing and runs nothing.
_PRINTED: Final = (
    b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none';"
    b" form-action 'none'"
)
PRINTABLE: Final[RawHeaders] = (*_COMMON, (_POLICY, _PRINTED))
# The pages of Swagger UI start with an inline script and load the rest from this service.
_SWAGGER_UI: Final = (
    b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"
    b" img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none';"
    b" form-action 'none'"
)
_PAGE: Final[RawHeaders] = (*_COMMON, (_POLICY, _SWAGGER_UI))
_PAGES: Final = {"/docs": _PAGE, "/docs/oauth2-redirect": _PAGE}


def security_headers(path: str) -> RawHeaders:
    """What browsers may do with an answer at ``path``."""
    return _PAGES.get(path, _DATA)


def allow_origins(app: FastAPI, origins: Collection[str]) -> None:
    """Let the web pages of ``origins``, and no others, use the service from a browser."""
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

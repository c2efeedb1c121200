"""The check before every route: who calls, and how often that caller may.

The outcome is in the request's state: ``caller``, and headers that report what is left of a limit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.access.api_keys import ApiKey, Caller, KeyScope, identify
from shared.access.limits import Limits
from shared.access.rate_limit import RateLimitExceeded, RateLimits
from shared.contract.errors import ServiceError
from shared.observability.metrics import PATH as METRICS_PATH
from shared.web.conventions import problem_docs, service_error_response

KEY_BUCKET: Final = "key"
"""The one bucket of each caller with limits of its own."""
UNLIMITED_ROUTES: Final = frozenset(
    {
        *("/livez", "/readyz", "/health", METRICS_PATH),
        *("/v2/health/live", "/v2/health/ready"),
        *("/docs", "/docs/oauth2-redirect", "/openapi.json", "/static-offline-docs"),
    }
)
"""Health, metrics and documentation need no key and have no limit."""

_SECURITY_SCHEMES: Final[dict[str, dict[str, str]]] = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer", "description": "The same key."},
}
_SUBSCRIBER_BITS: Final = 64
"""Bits of an IPv6 address that a provider assigns; the subscriber chooses the rest."""
_MAX_ADDRESS_LENGTH: Final = 64
"""No address is longer; what a trusted proxy forwards may be anything."""


@dataclass(frozen=True)
class RateLimitBucket:
    """Routes that are limited together, and the limits of anonymous callers there."""

    name: str
    limits: Limits


class AccessMiddleware:
    """Refuses unknown keys with 401 and callers over their limit with 429.

    ``buckets`` names the bucket of a route by its template; ``other`` is that of all further routes
    and of paths without a route. A caller with limits of its own has one count over all buckets, an
    anonymous one a count per address and bucket.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Sequence[BaseRoute],
        keys: Sequence[ApiKey],
        anonymous: Caller,
        rate_limits: RateLimits,
        other: RateLimitBucket,
        buckets: Mapping[str, RateLimitBucket] | None = None,
    ) -> None:
        self.app = app
        self._routes = list(iter_route_contexts(routes))
        self._templates = frozenset(route.path for route in self._routes)
        self._keys = keys
        self._anonymous = anonymous
        self._rate_limits = rate_limits
        self._other = other
        self._buckets = dict(buckets or {})
        if unknown := self._buckets.keys() - self._templates:
            raise ValueError(f"no route has the template {', '.join(sorted(unknown))}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        template = self._template(scope)
        if template in UNLIMITED_ROUTES:
            await self.app(scope, receive, send)
            return
        try:
            caller = identify(scope, self._keys, self._anonymous)
            scope["state"]["caller"] = caller
            bucket = self._buckets.get(template, self._other)
            scope["state"]["counted"] = self, bucket
            scope["state"]["headers"] += self.count(scope, caller, bucket)
        except ServiceError as error:
            if isinstance(error, RateLimitExceeded):
                scope["state"]["headers"] += error.headers
            await service_error_response(scope, error)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _template(self, scope: Scope) -> str:
        """The template of the route that the request will take; empty without one.

        The path's text alone does not say: several texts reach one route.
        """
        path: str = scope["path"]
        if path in self._templates:
            return path
        partial = ""
        for route in self._routes:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return route.path or ""
            if match is Match.PARTIAL:
                partial = partial or route.path or ""
        return partial

    def count(
        self, scope: Scope, caller: Caller, bucket: RateLimitBucket, *, cost: int = 1
    ) -> list[tuple[bytes, bytes]]:
        """Count a request as ``cost``; returns headers, or raises ``RateLimitExceeded``."""
        hit = self._rate_limits.hit
        if caller.limits is not None:
            return hit(caller.limits, bucket=KEY_BUCKET, caller=caller.name, cost=cost)
        address = subscriber(address_of(scope))
        return hit(bucket.limits, bucket=bucket.name, caller=address, cost=cost)


def caller_of(scope: Scope) -> Caller:
    """The caller that ``AccessMiddleware`` admitted."""
    caller: Caller = scope["state"]["caller"]
    return caller


def count_as(scope: Scope, requests: int) -> None:
    """Count this request as so many; raises ``RateLimitExceeded`` if the limit has not that left.

    For what stands for several requests, once it is known how many.
    """
    if requests <= 1:
        return
    middleware: AccessMiddleware
    state = scope["state"]
    middleware, bucket = state["counted"]
    kept = [header for header in state["headers"] if not header[0].startswith(b"x-ratelimit-")]
    try:
        headers = middleware.count(scope, caller_of(scope), bucket, cost=requests - 1)
    except RateLimitExceeded as error:
        state["headers"] = kept + error.headers
        raise
    state["headers"] = kept + headers


def address_of(scope: Scope) -> str:
    """The address that a request came from, as a trusted proxy reports it or as connected."""
    return scope["client"][0][:_MAX_ADDRESS_LENGTH] if scope["client"] else "unknown"


@lru_cache(maxsize=4096)
def subscriber(address: str) -> str:
    """What is limited as one caller: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((parsed.packed, _SUBSCRIBER_BITS), strict=False))


def require(key_scope: KeyScope) -> Callable[[Request], None]:
    """A dependency that admits only callers with ``key_scope``."""

    def check(request: Request) -> None:
        caller_of(request.scope).require(key_scope)

    return check


def needs(key_scope: KeyScope) -> dict[str, Any]:
    """The ``openapi_extra`` of a route that admits only callers with ``key_scope``."""
    return {"security": [{scheme: [key_scope]} for scheme in _SECURITY_SCHEMES]}


def document_access(app: FastAPI, *, anonymous: Caller) -> None:
    """Add keys, scopes, 401, 403 and 429 to the app's OpenAPI document.

    Where ``anonymous`` callers may do what a route needs, a key is optional.
    """
    without_access = app.openapi

    def openapi() -> dict[str, Any]:
        document = without_access()
        if "securitySchemes" not in document["components"]:
            document["components"]["securitySchemes"] = _SECURITY_SCHEMES
            for template, operations in document["paths"].items():
                for operation in operations.values():
                    _describe(operation, anonymous, limited=template not in UNLIMITED_ROUTES)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend it


def _describe(operation: dict[str, Any], anonymous: Caller, *, limited: bool) -> None:
    statuses = [401, 429] if limited else []
    if security := operation.get("security"):
        statuses.append(403)
        if anonymous.scopes.issuperset(*security[0].values()):
            security.append({})
    for status, response in problem_docs(*statuses).items():
        operation["responses"].setdefault(str(status), response)

"""The gate before every route: who calls, and how often that caller may.

The outcome is in the request's state: ``client``, and the headers that tell what is left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.access.api_keys import ApiKey, Client, identify
from shared.access.api_keys import Scope as ClientScope
from shared.access.rate_limit import Limits, RateLimitExceeded, RateLimits
from shared.contract.errors import ServiceError
from shared.observability.metrics import PATH as METRICS_PATH
from shared.web.conventions import problem_docs, service_error_response


@dataclass(frozen=True)
class Bucket:
    """Routes that are limited together, and the limits of anonymous callers there."""

    name: str
    limits: Limits


KEY_BUCKET: Final = "key"
"""The one bucket of each client with limits of its own."""

_UNLIMITED_PATHS: Final = frozenset(
    {
        *("/livez", "/readyz", "/health", METRICS_PATH),
        *("/docs", "/docs/oauth2-redirect", "/openapi.json"),
    }
)
_UNLIMITED_PREFIX: Final = "/static-offline-docs/"
_SECURITY_SCHEMES: Final[dict[str, dict[str, str]]] = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer", "description": "The same key."},
}
_ONE_SUBSCRIBER: Final = 64
"""Bits of an IPv6 address that a provider assigns; the rest is the subscriber's to choose."""


def is_unlimited(path: str) -> bool:
    """Whether ``path`` is free for all: health, metrics and documentation."""
    return path in _UNLIMITED_PATHS or path.startswith(_UNLIMITED_PREFIX)


class AccessMiddleware:
    """Refuses unknown keys with 401 and callers over their limit with 429.

    ``bucket_of`` tells from the path which limits apply; None lets the request pass unseen, as
    health checks and documentation do. A client with limits of its own has one count over all
    buckets, an anonymous caller one per address and bucket.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Sequence[ApiKey],
        anonymous: Client,
        rate_limits: RateLimits,
        bucket_of: Callable[[str], Bucket | None],
    ) -> None:
        self.app = app
        self._keys = keys
        self._anonymous = anonymous
        self._rate_limits = rate_limits
        self._bucket_of = bucket_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        bucket = self._bucket_of(scope["path"]) if scope["type"] == "http" else None
        if bucket is None:
            await self.app(scope, receive, send)
            return
        try:
            client = identify(scope, self._keys, self._anonymous)
            scope["state"]["client"] = client
            scope["state"]["headers"] += self._count(scope, client, bucket)
        except ServiceError as error:
            if isinstance(error, RateLimitExceeded):
                scope["state"]["headers"] += error.headers
            await service_error_response(scope, error)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _count(self, scope: Scope, client: Client, bucket: Bucket) -> list[tuple[bytes, bytes]]:
        if client.limits is not None:
            return self._rate_limits.hit(client.limits, bucket=KEY_BUCKET, caller=client.name)
        caller = subscriber(address_of(scope))
        return self._rate_limits.hit(bucket.limits, bucket=bucket.name, caller=caller)


def client_of(scope: Scope) -> Client:
    """The client that the gate let through."""
    client: Client = scope["state"]["client"]
    return client


def address_of(scope: Scope) -> str:
    """The address that a request came from: the proxy's word for it, if the proxy is trusted."""
    return scope["client"][0] if scope["client"] else "unknown"


@lru_cache(maxsize=4096)
def subscriber(address: str) -> str:
    """Who is limited as one: an IPv4 address, or the network of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((parsed.packed, _ONE_SUBSCRIBER), strict=False))


def require(client_scope: ClientScope) -> Callable[[Request], None]:
    """A dependency that lets only clients with ``client_scope`` through."""

    def check(request: Request) -> None:
        client_of(request.scope).require(client_scope)

    return check


def needs(client_scope: ClientScope) -> dict[str, Any]:
    """The ``openapi_extra`` of a route that lets only clients with ``client_scope`` through."""
    return {"security": [{scheme: [client_scope]} for scheme in _SECURITY_SCHEMES]}


def document_access(app: FastAPI, *, anonymous: Client) -> None:
    """Have the app's OpenAPI document tell what the gate does: keys, scopes, 401, 403 and 429.

    Where ``anonymous`` callers may do what a route needs, a key is optional.
    """
    without_access = app.openapi

    def openapi() -> dict[str, Any]:
        document = without_access()
        if "securitySchemes" not in document["components"]:
            document["components"]["securitySchemes"] = _SECURITY_SCHEMES
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _describe(operation, anonymous, limited=not is_unlimited(path))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend it


def _describe(operation: dict[str, Any], anonymous: Client, *, limited: bool) -> None:
    statuses = [401, 429] if limited else []
    if security := operation.get("security"):
        statuses.append(403)
        if anonymous.scopes.issuperset(*security[0].values()):
            security.append({})
    for status, response in problem_docs(*statuses).items():
        operation["responses"].setdefault(str(status), response)

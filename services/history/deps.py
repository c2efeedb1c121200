"""What the handlers use: built once in the lifespan, found through each request."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import Scope

from services.history.cache import Cache
from services.history.erasure import Stores
from services.history.settings import CACHE_PREFIX, HistorySettings
from services.scoring.store import BundleStore
from shared.observability.metrics import Metrics
from shared.observability.tracing import Tracing
from shared.web.conventions import invalid_input
from shared.web.direct import read_body

JSON: Final = "application/json"

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Resources:
    """The service's state between requests."""

    settings: HistorySettings
    engine: AsyncEngine
    redis: Redis
    cache: Cache
    tracing: Tracing
    metrics: Metrics
    store: BundleStore
    erasing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def stores(self) -> Stores:
        """The stores of personal data.

        The deadline of ``cache`` bounds what a reader waits for; an erasure waits longer, as it
        cannot do without Redis.
        """
        cache = Cache(self.redis, prefix=CACHE_PREFIX)
        return Stores(self.engine, self.redis, cache, self.erasing)


def resources_of(scope: Scope) -> Resources:
    """The resources of the app that serves the request."""
    resources: Resources = scope["state"]["resources"]
    return resources


async def read_json(request: Request, kind: type[M]) -> M:
    """The body, which is JSON; raises ``InvalidInput`` with what is wrong with it."""
    try:
        return kind.model_validate_json(await read_body(request))
    except ValidationError as error:
        raise invalid_input(error.errors()) from None


def answer(model: BaseModel, status: int = 200) -> Response:
    """The model as JSON."""
    return Response(model.model_dump_json(by_alias=True), status, media_type=JSON)


async def cached_response(
    request: Request,
    compute: Callable[[], Awaitable[bytes]],
    *,
    ttl_s: int,
    unchanging: bool = False,
    erasable: bool = True,
    media_type: str = JSON,
) -> Response:
    """What ``compute`` returns, cached under the request's path and sorted parameters.

    ``unchanging`` and ``erasable`` are those of ``Cache.get``.
    """
    key = request.url.path
    if request.scope["query_string"]:
        key += repr(sorted(request.query_params.multi_items()))
    cache = resources_of(request.scope).cache
    body, hit = await cache.get(key, compute, ttl_s=ttl_s, unchanging=unchanging, erasable=erasable)
    return Response(body, media_type=media_type, headers={"x-cache": "HIT" if hit else "MISS"})

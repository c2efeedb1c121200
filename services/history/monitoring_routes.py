"""The routes of monitoring, and the one by which bundles are registered for it."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from services.history.bundles import register
from services.history.database import connection
from services.history.deps import cached_response, resources_of
from services.history.live_performance import read_performance, read_vintages
from services.history.monitoring_schemas import (
    CohortQuery,
    LivePerformance,
    Manifest,
    PerformanceQuery,
    Vintages,
)
from services.history.routes import CACHED
from shared.access.middleware import caller_of, needs, require
from shared.contract.events import INTERNAL_BUNDLES_PATH
from shared.web.conventions import problem_docs
from shared.web.direct import DirectRoute, describe, read_body
from shared.web.parameters import refuse_repeated_parameters

MAX_MANIFEST_BYTES: Final = 1024 * 1024

_ANSWERS: Final[dict[int | str, dict[str, Any]]] = CACHED | problem_docs(400, 401, 403, 429, 503)
_READS: Final = needs("history:read")

monitoring = APIRouter(
    prefix="/monitoring",
    tags=["monitoring"],
    dependencies=[Depends(require("history:read")), Depends(refuse_repeated_parameters)],
)
internal = APIRouter(tags=["internal"], route_class=DirectRoute)


@monitoring.get(
    "/performance", response_model=LivePerformance, responses=_ANSWERS, openapi_extra=_READS
)
async def live_performance(
    request: Request, query: Annotated[PerformanceQuery, Query()]
) -> Response:
    """Return how right the models were, by the outcomes that are known, with 95 % intervals.

    Each figure says on whom it is, and has the cross-validated one beside it.
    """
    resources = resources_of(request.scope)

    async def compute() -> bytes:
        async with connection(resources.engine) as opened:
            return (await read_performance(opened, query)).model_dump_json().encode()

    return await cached_response(
        request, compute, ttl_s=resources.settings.analytics_ttl_s, erasable=False
    )


@monitoring.get("/vintages", response_model=Vintages, responses=_ANSWERS, openapi_extra=_READS)
async def vintages(request: Request, query: Annotated[CohortQuery, Query()]) -> Response:
    """Return the cumulative share of bad outcomes by months on book, per month of decision.

    A loan without an outcome counts as not bad yet; each vintage says on how many that is known.
    """
    resources = resources_of(request.scope)

    async def compute() -> bytes:
        async with connection(resources.engine) as opened:
            return (await read_vintages(opened, query)).model_dump_json().encode()

    return await cached_response(
        request, compute, ttl_s=resources.settings.analytics_ttl_s, erasable=False
    )


@internal.post(
    INTERNAL_BUNDLES_PATH,
    status_code=204,
    response_class=Response,
    responses=problem_docs(400, 401, 403, 408, 413, 415, 429, 503),
    openapi_extra=describe(body=Manifest) | needs("internal"),
)
async def register_bundle(request: Request) -> Response:
    """Keep the manifest of a bundle that decides; registering it again changes nothing."""
    caller_of(request.scope).require("internal")
    body = await read_body(request, limit_bytes=MAX_MANIFEST_BYTES)
    await register(resources_of(request.scope).engine, body)
    return Response(status_code=204)

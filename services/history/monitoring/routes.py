"""The routes of monitoring, and the one by which bundles are registered for it."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.bundles import register
from services.history.database import connection
from services.history.deps import cached_response, resources_of
from services.history.monitoring.cohorts import selection_of
from services.history.monitoring.drift import read_drift
from services.history.monitoring.drift_schemas import LiveDrift
from services.history.monitoring.fairness import read_fairness
from services.history.monitoring.fairness_schemas import LiveFairness
from services.history.monitoring.performance import read_performance
from services.history.monitoring.report import read_report
from services.history.monitoring.schemas import (
    CohortQuery,
    LivePerformance,
    Manifest,
    PerformanceQuery,
    Vintages,
)
from services.history.monitoring.vintages import read_vintages
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

    Each figure says on whom it is, and has the cross-validated one beside it. How right they are
    expected to be before outcomes are known is an estimate, and marked as one.
    """
    selection, monthly = selection_of(query), query.by == "month"
    return await _cached(
        request, lambda opened: read_performance(opened, selection, monthly=monthly)
    )


@monitoring.get("/drift", response_model=LiveDrift, responses=_ANSWERS, openapi_extra=_READS)
async def live_drift(request: Request, query: Annotated[PerformanceQuery, Query()]) -> Response:
    """Return how far applications and scores are from those that the models were trained on.

    An alarm needs a population stability index that chance alone seldom reaches; each comparison
    says which index so many decisions would show, and from which caller a shift comes.
    """
    selection, monthly = selection_of(query), query.by == "month"
    return await _cached(request, lambda opened: read_drift(opened, selection, monthly=monthly))


@monitoring.get("/fairness", response_model=LiveFairness, responses=_ANSWERS, openapi_extra=_READS)
async def live_fairness(request: Request, query: Annotated[PerformanceQuery, Query()]) -> Response:
    """Return the rates at which groups are approved that are recorded and never scored.

    Each group is compared with the largest one, with 95 % intervals. The screen is a convention
    that says where to look, not whether anybody is discriminated against.
    """
    selection, monthly = selection_of(query), query.by == "month"
    screen = resources_of(request.scope).settings.fairness_screen
    return await _cached(
        request, lambda opened: read_fairness(opened, selection, screen=screen, monthly=monthly)
    )


@monitoring.get("/vintages", response_model=Vintages, responses=_ANSWERS, openapi_extra=_READS)
async def vintages(request: Request, query: Annotated[CohortQuery, Query()]) -> Response:
    """Return the cumulative share of bad outcomes by months on book, per month of decision.

    A loan without an outcome counts as not bad yet; each vintage says on how many that is known.
    """
    return await _cached(request, lambda opened: read_vintages(opened, selection_of(query)))


@monitoring.get("/report", response_class=HTMLResponse, responses=_ANSWERS, openapi_extra=_READS)
async def report(request: Request, query: Annotated[CohortQuery, Query()]) -> Response:
    """Return all of this as one page to print or to keep, with method and limits.

    It has pictures and tables, loads nothing and runs no script.
    """
    resources = resources_of(request.scope)
    screen = resources.settings.fairness_screen

    async def compute() -> bytes:
        async with connection(resources.engine) as opened:
            return (await read_report(opened, query, screen=screen)).encode()

    return await cached_response(
        request,
        compute,
        ttl_s=resources.settings.analytics_ttl_s,
        erasable=False,
        media_type="text/html",
    )


async def _cached(
    request: Request, read: Callable[[AsyncConnection], Awaitable[BaseModel]]
) -> Response:
    resources = resources_of(request.scope)

    async def compute() -> bytes:
        async with connection(resources.engine) as opened:
            return (await read(opened)).model_dump_json().encode()

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

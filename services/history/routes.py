"""The routes of the history service: each parses, makes one call and answers."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse

from services.history import queries
from services.history.database import connection
from services.history.deps import (
    JSON,
    Resources,
    cached_response,
    resources_of,
)
from services.history.erasure import erase_decision, erase_loan
from services.history.errors import Erased, unknown
from services.history.export import MEDIA_TYPES, export
from services.history.intake import take_in
from services.history.later import store_reasons
from services.history.records import Record, record_of
from services.history.retention import kept_since
from services.history.schemas import (
    About,
    Erasure,
    ErasureQuery,
    ExportQuery,
    Page,
    PageQuery,
    encode_cursor,
)
from services.history.statistics import read_analytics, read_statistics
from services.history.statistics_schemas import (
    Analytics,
    AnalyticsQuery,
    Statistics,
    StatisticsQuery,
)
from shared.access.middleware import caller_of, needs, require
from shared.contract.events import (
    INTERNAL_PREDICTIONS_PATH,
    INTERNAL_REASONS_PATH,
    ReasonsFound,
)
from shared.version import VERSION
from shared.web.conventions import problem_docs
from shared.web.direct import NDJSON, DirectRoute, describe, read_body
from shared.web.parameters import refuse_parameters, refuse_repeated_parameters
from shared.web.performance import Performance, performance_of

MAX_GROUP_BYTES: Final = 4 * 1024 * 1024
"""Well above the largest group of events that inference publishes by HTTP."""
CACHED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "headers": {
            "X-Cache": {
                "description": "Whether the answer came from the cache.",
                "schema": {"type": "string", "enum": ["HIT", "MISS"]},
            }
        }
    }
}

_FAILURES: Final = problem_docs(400, 401, 403, 429, 503)
_READS: Final = needs("history:read")
_ERASES: Final = needs("history:erase")
_EVENT_LINES: Final = {
    "type": "string",
    "format": "event-lines",
    "description": "PredictionRecorded events, one JSON object per line.",
}

_ONCE: Final = Depends(refuse_repeated_parameters)

records = APIRouter(tags=["history"], dependencies=[Depends(require("history:read")), _ONCE])
erasure = APIRouter(tags=["erasure"], dependencies=[Depends(require("history:erase")), _ONCE])
reports = APIRouter(tags=["statistics"], route_class=DirectRoute)
about = APIRouter(tags=["about"], dependencies=[Depends(refuse_parameters)])
internal = APIRouter(tags=["internal"], route_class=DirectRoute)


@records.get("/history", response_model=Page, responses=CACHED | _FAILURES, openapi_extra=_READS)
async def list_history(request: Request, query: Annotated[PageQuery, Query()]) -> Response:
    """List recorded decisions, the newest first, a page at a time."""
    resources = resources_of(request.scope)

    async def compute() -> bytes:
        async with connection(resources.engine) as opened:
            # One more row than requested shows whether there is a next page.
            rows = await queries.read_page(
                opened,
                query,
                since=kept_since(resources.settings.retention_days),
                before=query.cursor,
                limit=query.limit + 1,
            )
            shown = rows[: query.limit]
            outcomes = await queries.read_outcomes(opened, [row.id for row in shown])
        more = len(rows) > len(shown)
        page = Page(
            items=[record_of(row, outcomes.get(row.id, ())) for row in shown],
            next_cursor=encode_cursor(shown[-1].id) if more else None,
        )
        return page.model_dump_json().encode()

    return await cached_response(request, compute, ttl_s=resources.settings.list_ttl_s)


@records.get(
    "/history/export",
    response_class=StreamingResponse,
    responses=_FAILURES
    | {200: {"content": {media_type.partition(";")[0]: {} for media_type in MEDIA_TYPES.values()}}},
    openapi_extra=_READS,
)
async def export_history(
    request: Request, query: Annotated[ExportQuery, Query()]
) -> StreamingResponse:
    """Download recorded decisions, the newest first: CSV, or one JSON record per line."""
    resources = resources_of(request.scope)
    pieces = export(
        resources.engine,
        query,
        query.format,
        since=kept_since(resources.settings.retention_days),
    )
    # The first piece is awaited here, so that an outage of the database still gets a 503.
    first = await anext(pieces)

    async def all_pieces() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(
        all_pieces(),
        media_type=MEDIA_TYPES[query.format],
        headers={"content-disposition": f'attachment; filename="history.{query.format}"'},
    )


@records.get(
    "/history/{prediction_id}",
    response_model=Record,
    responses=CACHED | _FAILURES | problem_docs(404, 410),
    openapi_extra=_READS,
)
async def get_record(request: Request, prediction_id: UUID) -> Response:
    """Return one decision as it was answered, with its caller, when it was stored and its outcomes.

    410 reports that its values have been erased, and when.
    """
    await refuse_parameters(request)
    resources = resources_of(request.scope)

    async def compute() -> bytes:
        async with connection(resources.engine) as opened:
            row = await queries.read_one(opened, prediction_id)
            keys = [] if row is None else [row.id]
            outcomes = await queries.read_outcomes(opened, keys)
        if row is None:
            raise unknown(prediction_id)
        if row.erased_at is not None:
            raise Erased(prediction_id, row.erased_at)
        return record_of(row, outcomes.get(row.id, ())).model_dump_json().encode()

    return await cached_response(
        request,
        compute,
        ttl_s=resources.settings.record_ttl_s,
        unchanging=True,
    )


@erasure.delete("/history/export", include_in_schema=False)
async def erase_export() -> Response:
    """Refuse to delete the export, which is not a decision."""
    raise HTTPException(405)


@erasure.delete(
    "/history/{prediction_id}",
    response_model=Erasure,
    responses=_FAILURES | problem_docs(404),
    openapi_extra=_ERASES,
)
async def erase_record(request: Request, prediction_id: UUID) -> Response:
    """Erase the applicant's values from one decision; needs the scope `history:erase`.

    The decision's time and outcome stay, and so do the statistics. Once this is answered, no
    request returns the values. Erasing again is harmless. A decision that is not stored yet is a
    404, too: retry shortly.
    """
    await refuse_parameters(request)
    done = await erase_decision(
        resources_of(request.scope).stores, prediction_id, actor=caller_of(request.scope).name
    )
    return Response(done.model_dump_json(), media_type=JSON)


@erasure.delete("/history", response_model=Erasure, responses=_FAILURES, openapi_extra=_ERASES)
async def erase_records(request: Request, query: Annotated[ErasureQuery, Query()]) -> Response:
    """Erase the applicant's values from every decision about one application.

    Needs the scope `history:erase`. It erases all of them or, if it fails, none; 0 if none is
    recorded. A decision that is not stored yet is neither counted nor erased: retry shortly.
    """
    done = await erase_loan(
        resources_of(request.scope).stores, query.loan_id, actor=caller_of(request.scope).name
    )
    return Response(done.model_dump_json(), media_type=JSON)


@reports.get(
    "/statistics",
    response_model=Statistics,
    responses=CACHED | _FAILURES,
    openapi_extra=_READS,
)
async def statistics(request: Request, query: Annotated[StatisticsQuery, Query()]) -> Response:
    """Return how recorded decisions came out: overall, by model, and by what you choose.

    Without parameters it is about all of them.
    """
    caller_of(request.scope).require("history:read")
    resources = resources_of(request.scope)

    async def compute() -> bytes:
        async with connection(resources.engine) as opened:
            return (await read_statistics(opened, query)).model_dump_json().encode()

    return await cached_response(
        request, compute, ttl_s=resources.settings.statistics_ttl_s, erasable=False
    )


@reports.get(
    "/analytics",
    response_model=Analytics,
    responses=CACHED | _FAILURES,
    openapi_extra=_READS,
)
async def analytics(request: Request, query: Annotated[AnalyticsQuery, Query()]) -> Response:
    """Return how recorded decisions came out: over time, by confidence and by applicant.

    Without parameters it is about all of them.
    """
    caller_of(request.scope).require("history:read")
    resources = resources_of(request.scope)

    async def compute() -> bytes:
        async with connection(resources.engine) as opened:
            return (await read_analytics(opened, query)).model_dump_json().encode()

    return await cached_response(
        request, compute, ttl_s=resources.settings.analytics_ttl_s, erasable=False
    )


@about.get(
    "/performance",
    response_model=Performance,
    responses=problem_docs(400, 401, 403, 429),
    openapi_extra=_READS,
)
async def performance(request: Request) -> Response:
    """Return each route's latency and the cache's hit rate; needs `history:read`."""
    caller_of(request.scope).require("history:read")
    samples = resources_of(request.scope).metrics.samples()
    return Response(performance_of(samples).model_dump_json(), media_type=JSON)


@about.get("/", response_model=About, responses=problem_docs(400, 401, 429))
async def root() -> Response:
    """Describe the service and link to its routes."""
    body = About(
        version=VERSION,
        description="Records of loan decisions, and statistics over them.",
        links={
            "documentation": "/docs",
            "openapi": "/openapi.json",
            "health": "/health",
            "history": "/history",
            "export": "/history/export",
            "statistics": "/statistics",
            "analytics": "/analytics",
            "performance": "/performance",
        },
    )
    return Response(body.model_dump_json(), media_type=JSON)


@internal.post(
    INTERNAL_PREDICTIONS_PATH,
    status_code=204,
    response_class=Response,
    responses=problem_docs(400, 401, 403, 408, 413, 415, 429, 503),
    openapi_extra={
        "requestBody": {"required": True, "content": {NDJSON.name: {"schema": _EVENT_LINES}}},
    }
    | needs("internal"),
)
async def record_predictions(request: Request) -> Response:
    """Store events, one per line, that the stream could not take; all of them or none."""
    caller_of(request.scope).require("internal")
    resources: Resources = resources_of(request.scope)
    body = await read_body(request, limit_bytes=MAX_GROUP_BYTES, media_type=NDJSON)
    await take_in(resources.engine, resources.cache, body, tracing=resources.tracing)
    return Response(status_code=204)


@internal.post(
    INTERNAL_REASONS_PATH,
    response_model=Record,
    responses=problem_docs(400, 401, 403, 404, 408, 409, 410, 413, 415, 429, 503),
    openapi_extra=describe(body=ReasonsFound) | needs("internal"),
)
async def record_reasons(request: Request) -> Response:
    """Add reasons that were found after a decision to its record, once; answer with the record."""
    caller_of(request.scope).require("internal")
    resources = resources_of(request.scope)
    body = await read_body(request)
    record = await store_reasons(resources.engine, resources.cache, body)
    return Response(record.model_dump_json(), media_type=JSON)

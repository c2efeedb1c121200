"""The routes of the batch service: each parses, makes one call and answers."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from services.batch import jobs
from services.batch.checking import MEDIA_TYPES
from services.batch.database import reporting_outages
from services.batch.deps import Resources, resources_of
from services.batch.intake import pieces, served_manifest, spooled, take_in
from services.batch.jobs import Job, Kind
from services.batch.results import FAULTS_MEDIA_TYPE, faults, results
from services.batch.results import MEDIA_TYPES as RESULT_TYPES
from services.batch.schemas import Batch, BatchPage, BatchPageQuery, OrderQuery, ResultsQuery
from shared.access.middleware import caller_of, needs, require
from shared.contract.errors import NotFound
from shared.web.conventions import problem_docs
from shared.web.idempotency import header_doc
from shared.web.parameters import refuse_parameters, refuse_repetitions
from shared.web.performance import Performance, performance_of

JSON: Final = "application/json"
_NEEDS: Final = needs("batch")
_FAILURES: Final = problem_docs(400, 401, 403, 429, 503)
_FORMATS: Final[Mapping[Kind, str]] = {"csv": "application-table", "ndjson": "application-lines"}
_FILES: Final = {
    media_type: {
        "schema": {
            "type": "string",
            "format": _FORMATS.get(kind, "binary"),
            "description": "An application in JSON on each line."
            if kind == "ndjson"
            else "A line of the columns' names, and a row for each application.",
        }
    }
    for media_type, kind in MEDIA_TYPES.items()
}
_KEY_DOC: Final = header_doc(
    "Names this request: sent again by the same caller with the same file and parameters, while the"
    " batch is kept, it gets that batch."
)
_CREATED: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "headers": {
            "Location": {"description": "Path of the batch.", "schema": {"type": "string"}},
            "Idempotency-Replayed": {
                "description": "Present if the batch was there before.",
                "schema": {"type": "string", "enum": ["true"]},
            },
        }
    }
}


def _once(request: Request) -> None:
    refuse_repetitions(request, several=("spelling",))


about = APIRouter(tags=["about"], dependencies=[Depends(refuse_parameters)])
batches = APIRouter(tags=["batches"], dependencies=[Depends(require("batch")), Depends(_once)])


@batches.post(
    "/batches",
    status_code=202,
    response_model=Batch,
    responses=_CREATED | _FAILURES | problem_docs(404, 408, 413, 415, 422),
    openapi_extra=_NEEDS
    | {
        "parameters": [_KEY_DOC],
        "requestBody": {"required": True, "content": _FILES},
    },
)
async def create_batch(request: Request, query: Annotated[OrderQuery, Query()]) -> Response:
    """Take a file of applications, the body, and decide them in the background.

    Each row is read as the body of a single request is. A file whose form or header cannot be used
    is refused at once, and nothing of it is kept.
    """
    resources = resources_of(request.scope)
    manifest = await served_manifest(resources.settings, resources.store, resources.redis)
    with spooled() as file:
        order = await take_in(
            request,
            query,
            file,
            manifest=manifest,
            settings=resources.settings,
            checking=resources.checking,
        )
        async with reporting_outages():
            job, there_before = await jobs.create(resources.pool, order, pieces(file))
    headers = {"location": f"{request.scope.get('root_path', '')}/batches/{job.id}"}
    if there_before:
        headers["idempotency-replayed"] = "true"
    return _answer(resources, job, status=202, headers=headers)


@batches.get("/batches", response_model=BatchPage, responses=_FAILURES, openapi_extra=_NEEDS)
async def list_batches(request: Request, query: Annotated[BatchPageQuery, Query()]) -> Response:
    """List the caller's batches, the newest first, a page at a time."""
    resources = resources_of(request.scope)
    async with reporting_outages():
        found = await jobs.page(
            resources.pool,
            caller_of(request.scope).name,
            before=query.cursor,
            limit=query.limit + 1,
        )
    shown = found[: query.limit]
    page = BatchPage(
        items=[_batch(resources, job) for job in shown],
        next_cursor=shown[-1].id if len(found) > len(shown) else None,
    )
    return Response(page.model_dump_json(), media_type=JSON)


@batches.get(
    "/batches/{batch_id}",
    response_model=Batch,
    responses=_FAILURES | problem_docs(404),
    openapi_extra=_NEEDS,
)
async def get_batch(request: Request, batch_id: UUID) -> Response:
    """Return how far a batch is."""
    await refuse_parameters(request)
    return _answer(resources_of(request.scope), await _find(request, batch_id))


@batches.delete(
    "/batches/{batch_id}",
    response_model=Batch,
    responses=_FAILURES | problem_docs(404),
    openapi_extra=_NEEDS,
)
async def cancel_batch(request: Request, batch_id: UUID) -> Response:
    """Cancel a batch; what was decided stays recorded. One that has ended stays as it is."""
    await refuse_parameters(request)
    resources = resources_of(request.scope)
    async with reporting_outages():
        job = await jobs.cancel(resources.pool, batch_id, caller_of(request.scope).name)
    if job is None:
        raise _unknown(batch_id)
    return _answer(resources, job)


@batches.get(
    "/batches/{batch_id}/results",
    response_class=StreamingResponse,
    responses=_FAILURES
    | problem_docs(404)
    | {200: {"content": {kind.partition(";")[0]: {} for kind in RESULT_TYPES.values()}}},
    openapi_extra=_NEEDS,
)
async def get_results(
    request: Request, batch_id: UUID, query: Annotated[ResultsQuery, Query()]
) -> Response:
    """Download the decisions so far, in the order of the file, each with its application."""
    job = await _find(request, batch_id)
    chunks = results(resources_of(request.scope).pool, job, query.format)
    media_type = RESULT_TYPES[query.format]
    return await _streamed(chunks, media_type, f"decisions.{query.format}")


@batches.get(
    "/batches/{batch_id}/faults",
    response_class=StreamingResponse,
    responses=_FAILURES | problem_docs(404) | {200: {"content": {FAULTS_MEDIA_TYPE: {}}}},
    openapi_extra=_NEEDS,
)
async def get_faults(request: Request, batch_id: UUID) -> Response:
    """Download every faulty row so far, with its line and all its faults, one JSON object a line.

    Each has the `line` and its `faults`, which have `field`, `message` and `value`.
    """
    await refuse_parameters(request)
    job = await _find(request, batch_id)
    chunks = faults(resources_of(request.scope).pool, job)
    return await _streamed(chunks, FAULTS_MEDIA_TYPE, "faults.ndjson")


@about.get(
    "/performance",
    response_model=Performance,
    responses=problem_docs(400, 401, 403, 429),
    openapi_extra=needs("history:read"),
)
async def performance(request: Request) -> Response:
    """Return each route's latency; needs `history:read`."""
    caller_of(request.scope).require("history:read")
    samples = resources_of(request.scope).metrics.samples()
    return Response(performance_of(samples).model_dump_json(), media_type=JSON)


async def _find(request: Request, batch_id: UUID) -> Job:
    async with reporting_outages():
        job = await jobs.find(
            resources_of(request.scope).pool, batch_id, caller_of(request.scope).name
        )
    if job is None:
        raise _unknown(batch_id)
    return job


def _unknown(batch_id: UUID) -> NotFound:
    return NotFound(f"You have no batch {batch_id}; it may have expired.")


def _batch(resources: Resources, job: Job) -> Batch:
    return Batch.of(job, retention_days=resources.settings.batch_retention_days)


def _answer(
    resources: Resources, job: Job, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    body = _batch(resources, job).model_dump_json()
    return Response(body, status, headers, media_type=JSON)


async def _streamed(pieces: AsyncIterator[bytes], media_type: str, name: str) -> StreamingResponse:
    # The first piece is awaited here, so that an outage of the database still gets a 503.
    async with reporting_outages():
        first = await anext(pieces, b"")

    async def all_pieces() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(
        all_pieces(),
        media_type=media_type,
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )

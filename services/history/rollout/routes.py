"""The routes of the registry and the roll-out: each parses, makes one call and answers."""

from tempfile import TemporaryFile
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from services.history.database import connection
from services.history.deps import answer, read_json, resources_of
from services.history.rollout import changes, registry
from services.history.rollout.archive import MAX_ARCHIVE_BYTES
from services.history.rollout.errors import NotPossible
from services.history.rollout.replicas import take_report
from services.history.rollout.report import read_report
from services.history.rollout.schemas import (
    BundleComparison,
    BundleDetail,
    BundleList,
    ComparisonQuery,
    ExperimentQuery,
    RegisteredBundle,
    Retirement,
    RolloutChange,
    RolloutEntry,
    RolloutReport,
    RolloutStatus,
    Step,
    Verification,
)
from services.history.rollout.status import read_status
from shared.access.middleware import caller_of, needs, require
from shared.contract.rollout import (
    INTERNAL_ROLLOUT_PATH,
    BundleVersion,
    ReplicaReport,
    RolloutState,
)
from shared.web.conventions import log_only_failure, problem_docs
from shared.web.direct import ZIP, DirectRoute, describe, read_file
from shared.web.parameters import refuse_parameters, refuse_repeated_parameters

_ADMIN: Final = needs("admin")
_READ: Final = problem_docs(400, 401, 403, 404, 429, 503)
_WRITE: Final = problem_docs(400, 401, 403, 404, 408, 409, 413, 415, 429, 503)
_ARCHIVE: Final = {
    "requestBody": {
        "required": True,
        "content": {ZIP.name: {"schema": {"type": "string", "format": "binary"}}},
    }
}

queries = APIRouter(
    prefix="/admin",
    tags=["roll-out"],
    dependencies=[Depends(require("admin")), Depends(refuse_repeated_parameters)],
)
"""Before ``admin``: a bundle's version is no name of these."""
admin = APIRouter(
    prefix="/admin",
    tags=["roll-out"],
    dependencies=[Depends(require("admin")), Depends(refuse_parameters)],
)
internal = APIRouter(tags=["internal"], route_class=DirectRoute)


@admin.get("/bundles", response_model=BundleList, responses=_READ, openapi_extra=_ADMIN)
async def list_bundles(request: Request) -> Response:
    """List all bundles that are registered, with who published them and what uses them."""
    async with connection(resources_of(request.scope).engine) as opened:
        return answer(BundleList(bundles=await registry.read_bundles(opened)))


@admin.post(
    "/bundles",
    status_code=201,
    response_model=RegisteredBundle,
    responses=_WRITE,
    openapi_extra=_ARCHIVE | _ADMIN,
)
async def publish_bundle(request: Request) -> Response:
    """Publish a bundle: the ZIP archive of its folder, of at most 64 MiB.

    Every checksum is verified before anything is kept, and nothing in it is run. It decides nothing
    until a roll-out names it. Publishing it again changes nothing.
    """
    resources = resources_of(request.scope)
    if resources.settings.bundle_store is None:
        raise NotPossible("There is no store to publish in: set BUNDLE_STORE.")
    with TemporaryFile() as file:
        await read_file(request, file, limit_bytes=MAX_ARCHIVE_BYTES, media_type=ZIP)
        actor = caller_of(request.scope).name
        found = await registry.publish(resources.engine, resources.store, file, actor=actor)
    return answer(found, 201)


@queries.get(
    "/bundles/compare", response_model=BundleComparison, responses=_READ, openapi_extra=_ADMIN
)
async def compare_bundles(request: Request, query: Annotated[ComparisonQuery, Query()]) -> Response:
    """Compare two bundles by what was measured in their training."""
    async with connection(resources_of(request.scope).engine) as opened:
        return answer(await registry.compare(opened, query.of, query.with_))


@admin.get("/bundles/{version}", response_model=BundleDetail, responses=_READ, openapi_extra=_ADMIN)
async def get_bundle(request: Request, version: BundleVersion) -> Response:
    """Return one bundle with its manifest and its model card."""
    resources = resources_of(request.scope)
    return answer(await registry.read_bundle(resources.engine, resources.store, version))


@admin.post(
    "/bundles/{version}/verify",
    response_model=Verification,
    responses=_READ,
    openapi_extra=_ADMIN,
)
async def verify_bundle(request: Request, version: BundleVersion) -> Response:
    """Read every file of a bundle in the store again, and compare the checksums."""
    resources = resources_of(request.scope)
    return answer(await registry.verify(resources.engine, resources.store, version))


@admin.post(
    "/bundles/{version}/retire",
    response_model=RegisteredBundle,
    responses=_WRITE,
    openapi_extra=describe(body=Retirement) | _ADMIN,
)
async def retire_bundle(request: Request, version: BundleVersion) -> Response:
    """Keep a bundle from deciding anything new; it stays in the store, for replays."""
    body = await read_json(request, Retirement)
    actor = caller_of(request.scope).name
    engine = resources_of(request.scope).engine
    return answer(await registry.retire(engine, version, actor=actor, reason=body.reason))


@admin.get("/rollout", response_model=RolloutStatus, responses=_READ, openapi_extra=_ADMIN)
async def get_rollout(request: Request) -> Response:
    """Return which models decide, what waits to change that, the replicas, and the last changes."""
    resources = resources_of(request.scope)
    async with connection(resources.engine) as opened:
        status = await read_status(opened, approvals=resources.settings.rollout_approvals)
    return answer(status)


@admin.post(
    "/rollout",
    status_code=202,
    response_model=RolloutEntry,
    responses=_WRITE,
    openapi_extra=describe(body=RolloutChange) | _ADMIN,
)
async def change_rollout(request: Request) -> Response:
    """Say which model decides by default, which share meets a candidate, and what shadows.

    It is in force once all living replicas have loaded it, within seconds; if one cannot, it fails
    and what was in force stays. Where two people are needed, it waits for another key's approval.
    """
    change = await read_json(request, RolloutChange)
    resources, actor = resources_of(request.scope), caller_of(request.scope).name
    approvals = resources.settings.rollout_approvals
    entry = await changes.propose(
        resources.engine, resources.store, change, actor=actor, approvals=approvals
    )
    return answer(entry, 202)


@admin.post(
    "/rollout/promote",
    status_code=202,
    response_model=RolloutEntry,
    responses=_WRITE,
    openapi_extra=describe(body=Step) | _ADMIN,
)
async def promote_candidate(request: Request) -> Response:
    """Have the candidate decide all that it does not decide yet."""
    step = await read_json(request, Step)
    resources, actor = resources_of(request.scope), caller_of(request.scope).name
    approvals = resources.settings.rollout_approvals
    entry = await changes.promote(resources.engine, step, actor=actor, approvals=approvals)
    return answer(entry, 202)


@admin.post(
    "/rollout/rollback",
    status_code=202,
    response_model=RolloutEntry,
    responses=_WRITE,
    openapi_extra=describe(body=Step) | _ADMIN,
)
async def roll_back(request: Request) -> Response:
    """Take the candidate's share away; without a candidate, go back to the former default.

    It needs no second person.
    """
    step = await read_json(request, Step)
    resources, actor = resources_of(request.scope), caller_of(request.scope).name
    return answer(await changes.roll_back(resources.engine, step, actor=actor), 202)


@queries.get("/rollout/report", response_model=RolloutReport, responses=_READ, openapi_extra=_ADMIN)
async def rollout_report(request: Request, query: Annotated[ExperimentQuery, Query()]) -> Response:
    """Return the two arms of an experiment side by side, with a test that may be read at any time.

    All are counts that are kept while decisions and outcomes are stored.
    """
    resources = resources_of(request.scope)
    async with connection(resources.engine) as opened:
        largest = resources.settings.rollout_guard_difference
        return answer(await read_report(opened, query.experiment, guard_difference=largest))


@admin.post(
    "/rollout/{epoch}/approve",
    status_code=202,
    response_model=RolloutEntry,
    responses=_WRITE,
    openapi_extra=_ADMIN,
)
async def approve_rollout(request: Request, epoch: int) -> Response:
    """Approve what another key proposed."""
    resources, actor = resources_of(request.scope), caller_of(request.scope).name
    return answer(await changes.approve(resources.engine, epoch, actor=actor), 202)


@internal.post(
    INTERNAL_ROLLOUT_PATH,
    response_model=RolloutState,
    responses=problem_docs(400, 401, 403, 408, 413, 415, 429, 503),
    openapi_extra=describe(body=ReplicaReport) | needs("internal"),
)
async def follow_rollout(request: Request) -> Response:
    """Keep how a replica stands, and answer with the roll-out in force and the one to prepare."""
    caller_of(request.scope).require("internal")
    log_only_failure(request.scope)
    report = await read_json(request, ReplicaReport)
    resources = resources_of(request.scope)
    return answer(await take_report(resources.engine, resources.redis, report))

"""The routes of shadows and what-ifs: each parses, makes one call and answers."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from services.history.comparing import what_ifs
from services.history.comparing.schemas import (
    ShadowQuery,
    ShadowReport,
    WhatIfOrder,
    WhatIfPage,
    WhatIfQuery,
    WhatIfStatus,
)
from services.history.comparing.shadows import read_shadows
from services.history.database import connection, transaction
from services.history.deps import answer, read_json, resources_of
from shared.access.middleware import caller_of, needs, require
from shared.web.conventions import problem_docs
from shared.web.direct import describe
from shared.web.parameters import refuse_parameters, refuse_repeated_parameters

_ADMIN: Final = needs("admin")
_READ: Final = problem_docs(400, 401, 403, 429, 503)

queries = APIRouter(
    prefix="/admin",
    tags=["roll-out"],
    dependencies=[Depends(require("admin")), Depends(refuse_repeated_parameters)],
)
admin = APIRouter(
    prefix="/admin",
    tags=["roll-out"],
    dependencies=[Depends(require("admin")), Depends(refuse_parameters)],
)


@queries.get("/rollout/shadows", response_model=ShadowReport, responses=_READ, openapi_extra=_ADMIN)
async def shadow_report(request: Request, query: Annotated[ShadowQuery, Query()]) -> Response:
    """Return how often each shadow agrees with what decided, and who would be decided otherwise.

    By bands of the recorded probability and by groups; all are counts kept while shadows score.
    """
    async with connection(resources_of(request.scope).engine) as opened:
        return answer(await read_shadows(opened, query))


@queries.get("/what-if", response_model=WhatIfPage, responses=_READ, openapi_extra=_ADMIN)
async def list_what_ifs(request: Request, query: Annotated[WhatIfQuery, Query()]) -> Response:
    """List what-ifs with their results, the newest first, a page at a time."""
    async with connection(resources_of(request.scope).engine) as opened:
        return answer(await what_ifs.read_page(opened, query))


@admin.post(
    "/what-if",
    status_code=202,
    response_model=WhatIfStatus,
    responses=_READ | problem_docs(408, 413, 415),
    openapi_extra=describe(body=WhatIfOrder) | _ADMIN,
)
async def ask_what_if(request: Request) -> Response:
    """Have the decisions of a period decided by another rule, in the background.

    The rule is another threshold, a band in which applications are referred to a person, or another
    model of any bundle. Nothing on record changes.
    """
    order = await read_json(request, WhatIfOrder)
    async with transaction(resources_of(request.scope).engine) as opened:
        asked = await what_ifs.ask(opened, order, actor=caller_of(request.scope).name)
    return answer(asked, 202)


@admin.get(
    "/what-if/{what_if_id}",
    response_model=WhatIfStatus,
    responses=_READ | problem_docs(404),
    openapi_extra=_ADMIN,
)
async def get_what_if(request: Request, what_if_id: UUID) -> Response:
    """Return how far a what-if is; once it is done, who would be decided otherwise, and the cost.

    The cost is of the decisions whose outcome is known, by the matrix of the order.
    """
    async with connection(resources_of(request.scope).engine) as opened:
        return answer(await what_ifs.read(opened, what_if_id))


@admin.delete(
    "/what-if/{what_if_id}",
    response_model=WhatIfStatus,
    responses=_READ | problem_docs(404),
    openapi_extra=_ADMIN,
)
async def cancel_what_if(request: Request, what_if_id: UUID) -> Response:
    """Cancel a what-if; one that has ended stays as it is."""
    async with transaction(resources_of(request.scope).engine) as opened:
        return answer(await what_ifs.cancel(opened, what_if_id))

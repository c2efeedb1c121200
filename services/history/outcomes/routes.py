"""The route that takes outcomes in."""

from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from services.history.deps import JSON as JSON_TYPE
from services.history.deps import resources_of
from services.history.outcomes.intake import (
    MAX_GROUP,
    Reports,
    parse_file,
    parse_json,
    parse_lines,
    record,
)
from services.history.outcomes.schemas import OutcomeReceipt, OutcomeReport
from shared.access.middleware import caller_of, needs
from shared.contract.errors import UnsupportedMediaType
from shared.web.conventions import problem_docs
from shared.web.direct import CSV, JSON, NDJSON, DirectRoute, MediaType, read_body

MAX_JSON_BYTES: Final = 1024 * 1024
MAX_FILE_BYTES: Final = 8 * 1024 * 1024

_FORMS: Final[dict[MediaType, tuple[Callable[[bytes], Reports], int]]] = {
    JSON: (parse_json, MAX_JSON_BYTES),
    NDJSON: (parse_lines, MAX_FILE_BYTES),
    CSV: (parse_file, MAX_FILE_BYTES),
}
_REPORT: Final = OutcomeReport.model_json_schema()
_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        JSON.name: {
            "schema": {
                "anyOf": [
                    _REPORT,
                    {"type": "array", "items": _REPORT, "minItems": 1, "maxItems": MAX_GROUP},
                ]
            }
        },
        NDJSON.name: {
            "schema": {
                "type": "string",
                "format": "outcome-lines",
                "description": "One outcome per line, as in JSON.",
            }
        },
        CSV.name: {
            "schema": {
                "type": "string",
                "format": "outcome-table",
                "description": "A line of the members' names, then one outcome per line.",
            }
        },
    },
}

outcomes = APIRouter(tags=["outcomes"], route_class=DirectRoute)


@outcomes.post(
    "/outcomes",
    response_model=OutcomeReceipt,
    responses=problem_docs(400, 401, 403, 408, 413, 415, 429, 503),
    openapi_extra={"requestBody": _BODY} | needs("outcomes:write"),
)
async def record_outcomes(request: Request) -> Response:
    """Record what became of loans; needs the scope `outcomes:write`.

    Reports that name no recorded decision, and lines of a file that cannot be read, are left out
    and named; all others are recorded, a thousand at a time in one transaction. The same report
    again changes nothing. A later one supersedes the earlier, and both stay visible.
    """
    caller = caller_of(request.scope)
    caller.require("outcomes:write")
    form = _form_of(request)
    parse, limit_bytes = _FORMS[form]
    body = await read_body(request, limit_bytes=limit_bytes, media_type=form)
    # A whole file takes a second, during which other requests are served.
    reports = await run_in_threadpool(parse, body)
    stores = resources_of(request.scope).stores
    receipt = await record(stores.engine, stores.cache, reports, actor=caller.name)
    return Response(receipt.model_dump_json(), media_type=JSON_TYPE)


def _form_of(request: Request) -> MediaType:
    given = request.headers.get("content-type")
    if given is None:
        return JSON
    for form in _FORMS:
        if form.spellings.fullmatch(given.encode("latin-1")):
            return form
    raise UnsupportedMediaType(", ".join(form.name for form in _FORMS))

"""Routes that are documented like any other and served without the framework's overhead."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import IO, Any, Final, get_type_hints

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.contract.errors import NO_CONTROLS, BodyTooLarge, ServiceError, UnsupportedMediaType
from shared.web.conventions import SCHEMA_REFERENCE, invalid_input, service_error_response
from shared.web.parameters import refuse_parameters, refuse_repetitions

PATH_PARAMETER: Final = {"pattern": NO_CONTROLS}
"""What the schema of a text in a path adds: the protocol refuses control characters there."""
MAX_BODY_BYTES: Final = 64 * 1024
"""An application is well under 1 KiB."""


@dataclass(frozen=True)
class MediaType:
    """A media type of request bodies; ``spellings`` matches every accepted Content-Type."""

    name: str
    spellings: re.Pattern[bytes]


_IN_UTF_8: Final = rb"[ \t]*(?:;[ \t]*charset=\"?utf-?8\"?[ \t]*)?"
JSON: Final = MediaType(
    "application/json",
    re.compile(rb"application/(?:[\w!#$&^.+-]+\+)?json" + _IN_UTF_8, re.IGNORECASE),
)
FORM: Final = MediaType(
    "application/x-www-form-urlencoded",
    re.compile(rb"application/x-www-form-urlencoded" + _IN_UTF_8, re.IGNORECASE),
)
NDJSON: Final = MediaType(
    "application/x-ndjson", re.compile(rb"application/x-ndjson" + _IN_UTF_8, re.IGNORECASE)
)
CSV: Final = MediaType("text/csv", re.compile(rb"text/csv" + _IN_UTF_8, re.IGNORECASE))

OCTETS: Final = MediaType(
    "application/octet-stream", re.compile(rb"application/octet-stream", re.IGNORECASE)
)
ZIP: Final = MediaType("application/zip", re.compile(rb"application/zip", re.IGNORECASE))


def either(*kinds: MediaType) -> MediaType:
    """A media type that is any of ``kinds``."""
    spellings = b"|".join(b"(?:%b)" % kind.spellings.pattern for kind in kinds)
    return MediaType(" or ".join(kind.name for kind in kinds), re.compile(spellings, re.IGNORECASE))


class DirectRoute(APIRoute):
    """A route whose endpoint takes the request and returns the response, with nothing between.

    Its query parameters are the members of the model of the endpoint's argument ``query``. Any
    other is a 400, because the caller means something by it.

    FastAPI's own handling (dependency solving, two exit stacks, a second validation of the
    answer) costs more than deciding does. The endpoint reads and writes the documented models
    itself; errors still reach the app's handlers, and OpenAPI still describes everything.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request that came through the router."""
        allowed = self.methods or set()
        if scope["method"] not in allowed:
            raise HTTPException(405, headers={"allow": ", ".join(sorted(allowed))})
        response = await self.answer(Request(scope, receive))
        await response(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """Return the endpoint's response; raises ``InvalidInput`` for its parameters."""
        if self._parameters is None:
            await refuse_parameters(request)
            response: Response = await self.endpoint(request)
        else:
            response = await self.endpoint(request, _read_parameters(request, self._parameters))
        return response

    @cached_property
    def _parameters(self) -> type[BaseModel] | None:
        parameters: type[BaseModel] | None = get_type_hints(self.endpoint).get("query")
        return parameters


def _read_parameters(request: Request, parameters: type[BaseModel]) -> BaseModel:
    if not request.scope["query_string"]:
        return parameters()
    refuse_repetitions(request)
    try:
        return parameters.model_validate(dict(request.query_params))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise invalid_input(
            [{**fault, "loc": ("query", *fault["loc"])} for fault in faults], within=1
        ) from None


class DirectMiddleware:
    """Serves direct routes with a fixed path by one look-up, before the router is asked.

    The router and the layers around it take a fifth of such a request's time. Everything else
    (paths with parameters, other methods, unknown paths) goes through the router.
    """

    def __init__(self, app: ASGIApp, *, routers: Iterable[APIRouter]) -> None:
        self.app = app
        self._routes = {
            (method, route.path): route
            for router in routers
            for route in router.routes
            if isinstance(route, DirectRoute) and not route.param_convertors
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive)
        try:
            response = await route.answer(request)
        except ServiceError as error:
            response = service_error_response(scope, error)
        await response(scope, receive, send)


async def read_body(
    request: Request, *, limit_bytes: int = MAX_BODY_BYTES, media_type: MediaType = JSON
) -> bytes:
    """The whole body; raises ``BodyTooLarge`` as soon as it has more than ``limit_bytes``.

    A body that announces more is refused before a client that expects ``100 Continue`` sends it.

    A body without a Content-Type is read as ``media_type``; any other type raises
    ``UnsupportedMediaType``. ``shared.web.protocol`` bounds how long a body may take.
    Raises ``ClientDisconnect`` if the client leaves before the end.
    """
    _check_head(request, limit_bytes, media_type)
    body = b""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        body += chunk
        if len(body) > limit_bytes:
            raise BodyTooLarge(limit_bytes)
        if not message.get("more_body", False):
            return body


async def read_file(
    request: Request, file: IO[bytes], *, limit_bytes: int, media_type: MediaType
) -> None:
    """Write the whole body to ``file``, which is at its beginning then; raises as ``read_body``."""
    _check_head(request, limit_bytes, media_type)
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit_bytes:
            raise BodyTooLarge(limit_bytes)
        file.write(piece)
    file.seek(0)


def _check_head(request: Request, limit_bytes: int, media_type: MediaType) -> None:
    for name, value in request.scope["headers"]:
        if (name == b"content-type" and not media_type.spellings.fullmatch(value)) or (
            name == b"content-encoding" and value.lower() != b"identity"
        ):
            raise UnsupportedMediaType(media_type.name)
        if name == b"expect" and _announced_bytes(request) > limit_bytes:
            raise BodyTooLarge(limit_bytes)


def _announced_bytes(request: Request) -> int:
    return int(request.headers.get("content-length", 0))


@cache
def schema_of(body: type[BaseModel]) -> dict[str, Any]:
    """The schema of a body for the OpenAPI document; several routes share it."""
    return body.model_json_schema(ref_template=SCHEMA_REFERENCE)


def describe(
    *,
    body: type[BaseModel],
    also: dict[str, Any] | None = None,
    required: bool = True,
    path: dict[str, str] | None = None,
    headers: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The ``openapi_extra`` of a direct route: the model its body holds, and its parameters.

    ``also`` is the schema of what else the route takes, ``{}`` for anything; ``path`` describes
    each parameter of the path; ``headers`` are parameter objects.
    """
    schema = schema_of(body)
    content = {JSON.name: {"schema": schema if also is None else {"anyOf": [schema, also]}}}
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "description": description, **PATH_PARAMETER},
        }
        for name, description in (path or {}).items()
    ]
    return {
        "requestBody": {"required": required, "content": content},
        "parameters": [*parameters, *headers],
    }

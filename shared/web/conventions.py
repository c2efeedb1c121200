"""What every web service does alike: problem documents, request ids, access log."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from copy import deepcopy
from http import HTTPStatus
from itertools import product
from secrets import token_hex
from time import perf_counter
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Mount, compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.contract.errors import MAX_FAULTS, Fault, InvalidInput, ServiceError, message_of
from shared.contract.events import ANONYMOUS
from shared.observability.logs import LogAccess, get_logger
from shared.observability.metrics import PATH as METRICS_PATH
from shared.observability.metrics import UNKNOWN_ROUTE, Metrics
from shared.observability.tracing import NO_TRACING, Tracing
from shared.version import VERSION
from shared.web.headers import NO_STORE, HeadersForPath, allow_origins, security_headers
from shared.web.tracing import TracingMiddleware

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
REQUEST_ID_HEADER: Final = b"x-request-id"
SCHEMA_REFERENCE: Final = "#/components/schemas/{model}"

# Left on, the framework looks up OpenTelemetry providers on every request, and its spans contain
# the path and the query, which name loans.
NO_TELEMETRY: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False}

_CLIENT_CLOSED_REQUEST: Final = 499
"""The access log's status for a client that left; it is never sent."""
_METHODS: Final = ("DELETE", "GET", "PATCH", "POST", "PUT")
_VALIDATION_ERROR: Final = "HTTPValidationError"
_ACCEPTED_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:=+/-]{1,128}")
_log = get_logger(__name__)


class Problem(BaseModel):
    """A problem document (RFC 9457); ``code`` is stable, ``detail`` says what to do."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Machine-readable name of the error.")
    request_id: str


class InvalidInputProblem(Problem):
    """A problem document that lists every fault of the input at once."""

    error: str
    validation_errors: list[Fault]


def problem_docs(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI ``responses`` entries of these statuses, each a problem document."""
    return {status: _problem_doc(status) for status in statuses}


def _problem_doc(status: int) -> dict[str, Any]:
    model = InvalidInputProblem if status == HTTPStatus.BAD_REQUEST else Problem
    schema = {"$ref": SCHEMA_REFERENCE.format(model=model.__name__)}
    return {
        "description": HTTPStatus(status).phrase,
        "content": {PROBLEM_MEDIA_TYPE: {"schema": schema}},
    }


def request_id_of(scope: Scope) -> str:
    """The id under which this request is logged and answered."""
    request_id: str = scope["state"]["request_id"]
    return request_id


def problem_response(
    scope: Scope,
    *,
    status: int,
    code: str,
    title: str,
    detail: str,
    members: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document, the one form of every error answer."""
    document = {
        "type": f"urn:loan-predictor:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": scope["path"],
        "code": code,
        "request_id": request_id_of(scope),
        **(members or {}),
    }
    return Response(to_json(document), status, headers, media_type=PROBLEM_MEDIA_TYPE)


def service_error_response(scope: Scope, error: ServiceError) -> Response:
    """The problem document of ``error``."""
    return problem_response(
        scope,
        status=error.status,
        code=type(error).__name__,
        title=error.title,
        detail=error.detail,
        members=error.members(),
        headers=headers_of(error),
    )


def headers_of(error: ServiceError) -> dict[str, str]:
    """The headers that the attributes of ``error`` require."""
    headers = {}
    if error.status == HTTPStatus.UNAUTHORIZED:
        # RFC 9110, section 15.5.2, requires the scheme.
        headers["www-authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.closes_connection:
        headers["connection"] = "close"
    return headers


async def _on_service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        raise error
    return service_error_response(request.scope, error)


async def _on_request_validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return service_error_response(request.scope, invalid_input(error.errors(), within=1))


def invalid_input(errors: Sequence[Mapping[str, Any]], *, within: int = 0) -> InvalidInput:
    """Return the error for what Pydantic refused; the first ``within`` parts of paths are cut."""
    faults = [
        Fault(
            field=".".join(str(part) for part in error["loc"][within:])
            or str(error["loc"][0] if error["loc"] else "body"),
            message=message_of(error),
            # A body is not repeated: it can be long, and need not be a text.
            value=None if error["type"] in ("missing", "json_invalid") else error["input"],
        )
        for error in errors[:MAX_FAULTS]
    ]
    return InvalidInput(faults)


def _http_exception_handler(app: FastAPI) -> Callable[[Request, Exception], Awaitable[Response]]:
    """What answers the framework's own errors, also those of apps that are mounted in ``app``."""
    see_docs = "; see /docs" if app.openapi_url else ""

    async def on_http_exception(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        status = HTTPStatus(error.status_code)
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["allow"] = _allowed_methods(app, request.scope, headers.get("allow", "GET"))
            if request.method == "OPTIONS":
                return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
        details = {
            HTTPStatus.NOT_FOUND: f"There is nothing at {request.scope['path']}{see_docs}.",
            HTTPStatus.METHOD_NOT_ALLOWED: f"Possible here: {headers.get('allow')}{see_docs}.",
        }
        return problem_response(
            request.scope,
            status=status,
            code="".join(word.capitalize() for word in status.phrase.split()),
            title=status.phrase,
            detail=details.get(status, str(error.detail)),
            headers=headers,
        )

    return on_http_exception


def _allowed_methods(app: FastAPI, scope: Scope, found: str) -> str:
    """Every method of the request's path; ``found`` are those of one of its routes.

    They are the documented ones, or those of all routes if the path is not documented.
    """
    path, documented = scope["path"], app.openapi()["paths"]
    templates = (name for name in documented if compile_path(name)[0].match(path))
    template = path if path in documented else next(templates, None)
    if template is not None:
        methods = {method.upper() for method in documented[template]}
    else:
        methods = set(found.split(", "))
        for method, route in product(_METHODS, app.routes):
            if not isinstance(route, Mount):
                match, _ = route.matches({**scope, "method": method})
                methods |= {method} if match is Match.FULL else set()
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join([*sorted(methods), "OPTIONS"])


def documented_app(
    *,
    title: str,
    description: str,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[Any]],
    routers: Iterable[APIRouter],
) -> FastAPI:
    """An app with its documentation at /docs, which loads nothing from other hosts."""
    app: FastAPI = FastAPIOffline(
        title=title,
        description=description,
        version=VERSION,
        lifespan=lifespan,
        redoc_url=None,
        # A redirect would be built from the Host header, and /predict/ is simply no route.
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    for router in routers:
        # ``include_router`` would derive each route anew, which takes longer than all the rest.
        app.router.routes += router.routes
    return app


def install_conventions(
    app: FastAPI,
    *,
    log_access: LogAccess,
    metrics: Metrics,
    tracing: Tracing = NO_TRACING,
    cors_origins: Sequence[str] = (),
    headers: HeadersForPath = security_headers,
) -> None:
    """Install what all services do alike, on every request and every error.

    Every error, the framework's own included, is answered as a problem document. Every request has
    an id, a line in the access log and a count in the metrics, which are at /metrics; some are
    traced by ``tracing``. Every answer has the ``headers`` of its path.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(FastAPI.openapi(app))
        return FastAPI.openapi(app)

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend it
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_request_validation_error)
    app.add_exception_handler(HTTPException, _http_exception_handler(app))

    async def exposition(_: Request) -> Response:
        return Response(await metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    app.add_route(METRICS_PATH, exposition, include_in_schema=False)
    allow_origins(app, cors_origins)
    if tracing is not NO_TRACING:
        app.add_middleware(TracingMiddleware, tracing=tracing)
    app.add_middleware(
        RequestContextMiddleware, log_access=log_access, metrics=metrics, headers=headers
    )


def _complete(document: dict[str, Any]) -> None:
    """Describe errors as problem documents, and bad input as 400 instead of FastAPI's 422.

    What the schema of a body refers to stands with all other schemas.
    """
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for operations in document["paths"].values():
        for operation in operations.values():
            if "requestBody" in operation:
                # A copy, because the routes of all apps share what they were described with.
                operation["requestBody"] = body = deepcopy(operation["requestBody"])
                for content in body["content"].values():
                    for name, schema in content["schema"].pop("$defs", {}).items():
                        schemas.setdefault(name, schema)
            if _VALIDATION_ERROR in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
                operation["responses"].setdefault("400", _problem_doc(HTTPStatus.BAD_REQUEST))
    for unused in (_VALIDATION_ERROR, "ValidationError"):
        schemas.pop(unused, None)
    for model in (Problem, InvalidInputProblem, Fault):
        schema = model.model_json_schema(ref_template=SCHEMA_REFERENCE)
        schema.pop("$defs", None)
        schemas[model.__name__] = schema


class RequestContextMiddleware:
    """Gives each request an id, logs and measures it, and answers unexpected exceptions.

    A caller's own ``X-Request-ID`` is kept if it is 1 to 128 plain characters; the id is always
    returned. Pure ASGI, because every request passes it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        log_access: LogAccess,
        metrics: Metrics,
        headers: HeadersForPath = security_headers,
    ) -> None:
        self.app = app
        self._log_access = log_access
        self._metrics = metrics
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_s = perf_counter()
        request_id = accepted_request_id(scope) or token_hex(16).encode()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id.decode()
        state["headers"] = [(REQUEST_ID_HEADER, request_id), *self._headers(scope["path"])]
        status = 0
        # To the app HEAD is GET; the server omits the body of the answer.
        as_get = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope

        async def send_with_request_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Other middlewares put headers into the state, so that only this one wraps send.
                headers = [*message["headers"], *state["headers"]]
                for name, _ in headers:
                    if name == b"cache-control":
                        break
                else:
                    headers.append(NO_STORE)
                message["headers"] = headers
            await send(message)

        try:
            await self.app(as_get, receive, send_with_request_id)
        except ClientDisconnect:
            status = _CLIENT_CLOSED_REQUEST
        except Exception:
            _log.exception("unexpected error", request_id=state["request_id"])
            if status:
                # Half an answer is sent already: only closing the connection shows the client.
                raise
            await _unexpected_error_response(scope)(scope, receive, send_with_request_id)
        finally:
            duration_s = perf_counter() - started_s
            route = getattr(as_get.get("route"), "path", UNKNOWN_ROUTE)
            self._metrics.observe_request(scope["method"], route, status, duration_s)
            if "routine" not in state or status >= HTTPStatus.BAD_REQUEST:
                self._log_access(
                    state["request_id"],
                    getattr(state.get("caller"), "name", ANONYMOUS),
                    scope["method"],
                    route,
                    status,
                    duration_s,
                    state.get("prediction_id"),
                )


def note_decision(scope: Scope, prediction_id: str) -> None:
    """Have the access log name the decision in the answer to this request."""
    scope["state"]["prediction_id"] = prediction_id


def log_only_failure(scope: Scope) -> None:
    """Leave this request out of the access log if it succeeds: others like it come each second."""
    scope["state"]["routine"] = True


def accepted_request_id(scope: Scope) -> bytes | None:
    """The request id that the caller sent; None if it is missing or not acceptable."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER:
            return value if _ACCEPTED_REQUEST_ID.fullmatch(value) else None
    return None


def _unexpected_error_response(scope: Scope) -> Response:
    return problem_response(
        scope,
        status=500,
        code="InternalServerError",
        title="Internal error",
        detail="The service failed on this request; its log has more under the request_id.",
    )

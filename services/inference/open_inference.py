"""The routes of the Open Inference Protocol, version 2, for its clients. Nothing is recorded."""

from collections.abc import Awaitable, Callable
from functools import partial
from itertools import chain
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from pydantic_core import to_json

from services.inference.deps import resources_of
from services.inference.many import MAX_APPLICATIONS, MAX_BYTES
from services.inference.tensors import (
    INPUTS,
    OUTPUTS,
    InferenceAnswer,
    InferenceRequest,
    TensorMetadata,
    answer,
    read_request,
)
from services.scoring.decisions import SLICE
from services.scoring.engine import decide_many
from services.scoring.turns import in_turns
from shared.access.middleware import count_as, needs, require
from shared.contract.errors import (
    BodyTooLarge,
    Fault,
    InvalidInput,
    NotFound,
    ServiceError,
    UnsupportedMediaType,
)
from shared.contract.parsing import read_application
from shared.web.conventions import headers_of, problem_docs
from shared.web.direct import JSON, OCTETS, PATH_PARAMETER, either, read_body, schema_of
from shared.web.parameters import refuse_parameters

_JSON_BYTES: Final = "inference-header-content-length"
_SCORECARD: Final = "scorecard"
_ONNX: Final = "onnxruntime_onnx"
_ANSWERED: Final = (InvalidInput, NotFound, BodyTooLarge, UnsupportedMediaType)


class ProtocolError(BaseModel):
    """Why a request of the protocol cannot be answered."""

    error: str


class ServerLive(BaseModel):
    """The process answers."""

    live: bool = True


class ServerReady(BaseModel):
    """The models are loaded."""

    ready: bool = True


class ServerMetadata(BaseModel):
    """What this server is."""

    name: str
    version: str
    extensions: list[str]


class ModelNames(BaseModel):
    """The served models."""

    models: list[str]


class ModelMetadata(BaseModel):
    """A model's inputs, which are those of an application, and its outputs."""

    name: str
    versions: list[str]
    platform: str = Field(description=f"What scores: {_SCORECARD} (a table of points) or {_ONNX}.")
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(ServerReady):
    """The model is loaded."""

    name: str


class ProtocolRoute(APIRoute):
    """A route that answers what is wrong with a request as the protocol does, with one text."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]  # as it is declared, but for Coroutine
        """The handler, with its errors answered."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except _ANSWERED as error:
                content = to_json({"error": _text(error)})
                return Response(content, error.status, headers_of(error), media_type=JSON.name)

        return answered


def _text(error: ServiceError) -> str:
    if isinstance(error, InvalidInput):
        return "; ".join(f"{fault.field} {fault.message}" for fault in error.faults)
    return error.detail


def _error_docs(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Errors in the protocol's form, or as problem documents from before the route."""
    return {
        status: {**doc, "model": ProtocolError} for status, doc in problem_docs(*statuses).items()
    }


def _served_version(
    request: Request,
    version: Annotated[
        str, Path(description="Version of the served bundle.", json_schema_extra={**PATH_PARAMETER})
    ],
) -> None:
    served = resources_of(request.scope).served.bundle.manifest.version
    if version != served:
        raise NotFound(f"Version {version!r} is not served; the one served is {served}.")


def _decides(request: Request) -> None:
    resources_of(request.scope).deciding()


_OF_VERSION: Final = [Depends(_served_version)]
_INFERS: Final = [Depends(require("predict")), Depends(_decides)]
ModelInPath = Annotated[
    str, Path(description="Name of a served model.", json_schema_extra={**PATH_PARAMETER})
]

router = APIRouter(
    prefix="/v2",
    tags=["open inference protocol"],
    route_class=ProtocolRoute,
    dependencies=[Depends(refuse_parameters)],
    responses=_error_docs(400),
)


@router.get("/health/live")
async def live() -> ServerLive:
    """Say that the process answers."""
    return ServerLive()


@router.get("/health/ready")
async def ready() -> ServerReady:
    """Say that the models are loaded, as they are before the first request."""
    return ServerReady()


@router.get("")
async def server_metadata(request: Request) -> ServerMetadata:
    """Say what this server is."""
    return ServerMetadata(
        name="loan-predictor inference",
        version=request.app.version,
        extensions=["binary_tensor_data"],
    )


@router.get("/models")
async def model_names(request: Request) -> ModelNames:
    """List the served models."""
    return ModelNames(models=list(resources_of(request.scope).served.bundle.models))


@router.get("/models/{model}", responses=_error_docs(404))
@router.get(
    "/models/{model}/versions/{version}", responses=_error_docs(404), dependencies=_OF_VERSION
)
async def model_metadata(request: Request, model: ModelInPath) -> ModelMetadata:
    """Describe a model's tensors: inputs of an application, of which one alone is required."""
    bundle = resources_of(request.scope).served.bundle
    served = bundle.model(model)
    return ModelMetadata(
        name=served.name,
        versions=[bundle.manifest.version],
        platform=_ONNX if served.scorecard is None else _SCORECARD,
        inputs=INPUTS,
        outputs=OUTPUTS,
    )


@router.get("/models/{model}/ready", responses=_error_docs(404))
@router.get(
    "/models/{model}/versions/{version}/ready", responses=_error_docs(404), dependencies=_OF_VERSION
)
async def model_ready(request: Request, model: ModelInPath) -> ModelReady:
    """Say that a model is loaded; 404 if there is no such model."""
    return ModelReady(name=resources_of(request.scope).served.bundle.model(model).name)


_INFER_DOC: Final = {
    "requestBody": {
        "required": True,
        "content": {
            JSON.name: {"schema": schema_of(InferenceRequest)},
            OCTETS.name: {"schema": {"description": "JSON, and binary data behind it."}},
        },
    }
} | needs("predict")


@router.post(
    "/models/{model}/infer",
    response_model=InferenceAnswer,
    responses=_error_docs(404, 408, 413, 415, 503),
    dependencies=_INFERS,
    openapi_extra=_INFER_DOC,
)
@router.post(
    "/models/{model}/versions/{version}/infer",
    response_model=InferenceAnswer,
    responses=_error_docs(404, 408, 413, 415, 503),
    dependencies=[*_INFERS, *_OF_VERSION],
    openapi_extra=_INFER_DOC,
)
async def infer(request: Request, model: ModelInPath) -> Response:
    """Score up to 1,000 applications as /predict would; nothing is recorded.

    If one of them is faulty, all are refused, and the error names it.
    """
    body = await read_body(request, limit_bytes=MAX_BYTES, media_type=either(JSON, OCTETS))
    bundle = resources_of(request.scope).served.bundle
    served = bundle.model(model)
    asked, rows = read_request(body, _json_bytes(request, body))
    if len(rows) > MAX_APPLICATIONS:
        raise InvalidInput(
            [Fault(field="inputs", message=f"hold more than {MAX_APPLICATIONS} applications")]
        )
    count_as(request.scope, len(rows))
    applications = await in_turns(_read, enumerate(rows))
    slices = [applications[at : at + SLICE] for at in range(0, len(applications), SLICE)]
    decided = await in_turns(partial(decide_many, model=served, bundle=bundle), slices)
    content, json_bytes = answer(
        asked, list(chain.from_iterable(decided)), model=model, version=bundle.manifest.version
    )
    if json_bytes is None:
        return Response(content, media_type=JSON.name)
    return Response(content, media_type=OCTETS.name, headers={_JSON_BYTES: str(json_bytes)})


def _json_bytes(request: Request, body: bytes) -> int:
    """How many bytes of the body are JSON; raises ``InvalidInput``."""
    text = request.headers.get(_JSON_BYTES, str(len(body)))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_BYTES))):
        raise InvalidInput([Fault(field=_JSON_BYTES, message="must be a number of bytes")])
    return int(text)


def _read(row: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    index, values = row
    try:
        return read_application(values)
    except InvalidInput as error:
        raise InvalidInput(
            [
                Fault(field=f"application {index}: {fault.field}", message=fault.message)
                for fault in error.faults
            ]
        ) from None

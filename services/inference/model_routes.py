"""The routes about the served models and the bundles that they come in."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request, Response

from services.inference.catalogue import (
    MARKDOWN,
    PNG,
    ChampionInfo,
    Document,
    ModelComparison,
    ModelDetail,
    ModelList,
    ModelScorecard,
)
from services.inference.deps import resources_of
from services.scoring.manifest import BundleError
from services.scoring.registry import Bundle
from shared.contract.errors import NotFound
from shared.web.conventions import problem_docs
from shared.web.direct import PATH_PARAMETER
from shared.web.parameters import refuse_parameters

MODEL_DOC: Final = {"model": "Name of a served model."}
ModelInPath = Annotated[
    str, Path(description=MODEL_DOC["model"], json_schema_extra={**PATH_PARAMETER})
]
BundleInPath = Annotated[
    str, Path(description="Version of a bundle.", json_schema_extra={**PATH_PARAMETER})
]
PictureInPath = Annotated[
    str,
    Path(description="As the model card names it: roc.png.", json_schema_extra={**PATH_PARAMETER}),
]
DOCUMENT: Final[dict[int | str, dict[str, Any]]] = {
    304: {"description": "The copy that If-None-Match names is still right."},
    **problem_docs(400),
}

router = APIRouter(tags=["models"], dependencies=[Depends(refuse_parameters)])


@router.get("/models", response_model=ModelList, responses=DOCUMENT)
async def list_models(request: Request) -> Response:
    """The served models, and which of them decides."""
    return resources_of(request.scope).served.catalogue.models.respond(request)


@router.get("/models/compare", response_model=ModelComparison, responses=DOCUMENT)
async def compare_models(request: Request) -> Response:
    """The models beside each other and beside the baselines, with intervals."""
    return resources_of(request.scope).served.catalogue.comparison.respond(request)


_CARD: Final[dict[int | str, dict[str, Any]]] = (
    DOCUMENT | problem_docs(404) | {200: {"content": {MARKDOWN: {"schema": {"type": "string"}}}}}
)
_PICTURE: Final[dict[int | str, dict[str, Any]]] = (
    DOCUMENT
    | problem_docs(404)
    | {200: {"content": {PNG: {"schema": {"type": "string", "format": "binary"}}}}}
)


@router.get("/models/card", response_class=Response, responses=_CARD)
async def model_card(request: Request) -> Response:
    """The model card of the served bundle, in Markdown; its pictures are at /models/pictures."""
    return _card(request, resources_of(request.scope).served.bundle)


@router.get("/models/card/{bundle}", response_class=Response, responses=_CARD)
async def model_card_of(request: Request, bundle: BundleInPath) -> Response:
    """The model card of the bundle that a decision names, which may be an earlier one."""
    return _card(request, await _bundle(request, bundle))


@router.get("/models/pictures/{name}", response_class=Response, responses=_PICTURE)
async def picture(request: Request, name: PictureInPath) -> Response:
    """One picture of the model card."""
    return _picture(request, resources_of(request.scope).served.bundle, name)


@router.get("/models/pictures/{bundle}/{name}", response_class=Response, responses=_PICTURE)
async def picture_of(request: Request, bundle: BundleInPath, name: PictureInPath) -> Response:
    """One picture of the model card of the bundle that a decision names."""
    return _picture(request, await _bundle(request, bundle), name)


async def _bundle(request: Request, version: str) -> Bundle:
    try:
        return await resources_of(request.scope).bundles.find(version)
    except BundleError:
        raise NotFound(f"There is no bundle {version!r} here that can be used.") from None


def _card(request: Request, bundle: Bundle) -> Response:
    if bundle.card is None:
        raise NotFound(f"The bundle {bundle.manifest.version} was published without a model card.")
    return Document.holding(bundle.card, media_type=MARKDOWN).respond(request)


def _picture(request: Request, bundle: Bundle, name: str) -> Response:
    if name not in bundle.pictures:
        raise NotFound(f"There is no picture {name!r}; there are: {', '.join(bundle.pictures)}.")
    return Document.holding(bundle.pictures[name], media_type=PNG).respond(request)


@router.get("/models/{model}", response_model=ModelDetail, responses=DOCUMENT | problem_docs(404))
async def describe_model(
    request: Request,
    model: ModelInPath,
) -> Response:
    """Everything measured of one model."""
    served = resources_of(request.scope).served
    return served.catalogue.details[served.bundle.model(model).name].respond(request)


@router.get(
    "/models/{model}/scorecard",
    response_model=ModelScorecard,
    responses=DOCUMENT | problem_docs(404),
)
async def scorecard(
    request: Request,
    model: ModelInPath,
) -> Response:
    """The points of an additive model: its score is the base and the points of each attribute."""
    served = resources_of(request.scope).served
    name = served.bundle.model(model).name
    if name not in served.catalogue.scorecards:
        raise NotFound(f"The model {name} has no scorecard; POST /explain/{name} explains it.")
    return served.catalogue.scorecards[name].respond(request)


@router.get("/model-info", response_model=ChampionInfo, responses=DOCUMENT)
async def model_info(request: Request) -> Response:
    """The deciding model, and the bundle it came in."""
    return resources_of(request.scope).served.catalogue.champion.respond(request)

"""Models: how good they are, and whether the measurements can tell them apart."""

import asyncio
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import ApiError, CallFailed
from loan_predictor_client.models import ModelComparison, ModelScorecard
from services.dashboard.authentication import root_of, session_of
from services.dashboard.evidence import attempted
from services.dashboard.frame import frame
from services.dashboard.live import Loader
from services.dashboard.templating import part
from services.dashboard.watch import Watch
from shared.pictures.formats import model_title

_PICTURE_LINK: Final = re.compile(r"\]\(img/([\w.-]+)\)")
_MAX_AGE: Final = "private, max-age=3600"


def comparison(
    compared: ModelComparison, scorecards: Sequence[ModelScorecard], root: str
) -> Markup:
    """The models, compared with each other and with rules that need no model, and their points."""
    measured = [(model.title, model.cross_validation, False) for model in compared.models.values()]
    measured += [
        (model_title(name), baseline.cross_validation, True)
        for name, baseline in compared.baselines.items()
    ]
    return part(
        "models",
        "comparison",
        compared=compared,
        measured=measured,
        scorecards=scorecards,
        root=root,
    )


def _document(text: str, pictures: str) -> str:
    """A model card as a part of a page, which has a first-level heading already."""
    text = _PICTURE_LINK.sub(rf"]({pictures}/\1)", text)
    return re.sub(r"^#", "##", text, flags=re.MULTILINE)


def register(watch: Watch) -> None:
    """Register the pages: of the served models, and of any bundle's model card."""

    @ui.page("/models")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)

        async def fetch() -> Markup:
            api = session.api
            compared, text = await asyncio.gather(api.compare(), api.model_card())
            names = sorted(compared.models, key=lambda name: name != compared.champion)
            found = await asyncio.gather(*(attempted(api.scorecard(name)) for name in names))
            document.set_content(_document(text, f"{root}/pictures"))
            card.set_visibility(True)
            scorecards = [each.value for each in found if each.value is not None]
            return comparison(compared, scorecards, root)

        with frame(request, "models", watch=watch):
            Loader("models", fetch)
            with ui.element("details").classes("lp-card") as card:
                ui.html("The model card", sanitize=False, tag="summary")
                document = _shown_document()
            card.set_visibility(False)

    @ui.page("/models/{bundle}")
    def card_page(request: Request, bundle: str) -> None:
        session, root = session_of(request.scope), root_of(request.scope)

        async def fetch() -> Markup:
            text = await session.api.model_card(bundle=bundle)
            document.set_content(_document(text, f"{root}/pictures/{quote(bundle, safe='')}"))
            card.set_visibility(True)
            return part("bundle", "actions", root=root)

        with frame(request, "bundle", watch=watch):
            with ui.element("section").classes("lp-card") as card:
                document = _shown_document()
            card.set_visibility(False)
            Loader("bundle", fetch)


# Quoted, because NiceGUI imports its parser of Markdown, which takes 15 ms, where it is named.
def _shown_document() -> "ui.markdown":
    # As it is friendly to code, the underscores of Loan_Amount_Term are no emphasis.
    document = ui.markdown("", extras=["tables", "code-friendly"]).classes("lp-document")
    # Wide tables scroll within it, by keyboard, too.
    return document.props('tabindex=0 role=region aria-label="The model card"')


def pictures_router() -> APIRouter:
    """The routes of the model cards' pictures."""
    router = APIRouter(include_in_schema=False)

    @router.get("/pictures/{name}")
    async def picture(request: Request, name: str) -> Response:
        """One picture of the served bundle."""
        return await respond(request, name, None)

    @router.get("/pictures/{bundle}/{name}")
    async def picture_of(request: Request, bundle: str, name: str) -> Response:
        """One picture of the named bundle."""
        return await respond(request, name, bundle)

    async def respond(request: Request, name: str, bundle: str | None) -> Response:
        try:
            content = await session_of(request.scope).api.picture(name, bundle=bundle)
        except CallFailed as error:
            status = error.status if isinstance(error, ApiError) else 503
            return PlainTextResponse(str(error), status)
        # A named bundle never changes; the served one is replaced by a roll-out.
        cached = "no-cache" if bundle is None else _MAX_AGE
        return Response(content, media_type="image/png", headers={"cache-control": cached})

    return router

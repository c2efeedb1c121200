"""Models: how good they are, and whether the measurements can tell them apart."""

import asyncio
import re
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import ApiError, CallFailed
from loan_predictor_client.models import ModelComparison
from services.dashboard.formatting import model_title
from services.dashboard.frame import frame
from services.dashboard.gate import root_of, session_of
from services.dashboard.live import Loader
from services.dashboard.templating import part
from services.dashboard.watch import Watch

_PICTURE_LINK: Final = re.compile(r"\]\(img/([\w.-]+)\)")
_MAX_AGE: Final = "private, max-age=3600"


def comparison(compared: ModelComparison, root: str) -> Markup:
    """The models, compared with each other and with rules that need no model."""
    measured = [(model.title, model.cross_validation, False) for model in compared.models.values()]
    measured += [
        (model_title(name), baseline.cross_validation, True)
        for name, baseline in compared.baselines.items()
    ]
    return part("models", "comparison", compared=compared, measured=measured, root=root)


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/models")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)

        async def fetch() -> Markup:
            api = session.api
            compared, text = await asyncio.gather(api.compare(), api.model_card())
            # The page has a first-level heading already, and a route of its own for pictures.
            text = _PICTURE_LINK.sub(rf"]({root}/pictures/\1)", text)
            document.set_content(re.sub(r"^#", "##", text, flags=re.MULTILINE))
            card.set_visibility(True)
            return comparison(compared, root)

        with frame(request, "models", watch=watch):
            Loader("models", fetch)
            with ui.element("details").classes("lp-card") as card:
                ui.html("The model card", sanitize=False, tag="summary")
                document = ui.markdown("").classes("lp-document")
                # Wide tables scroll within it, by keyboard, too.
                document.props('tabindex=0 role=region aria-label="The model card"')
            card.set_visibility(False)


def pictures_router() -> APIRouter:
    """The route of the model card's pictures."""
    router = APIRouter(include_in_schema=False)

    @router.get("/pictures/{name}")
    async def picture(request: Request, name: str) -> Response:
        """One picture."""
        try:
            content = await session_of(request.scope).api.picture(name)
        except CallFailed as error:
            status = error.status if isinstance(error, ApiError) else 503
            return PlainTextResponse(str(error), status)
        return Response(content, media_type="image/png", headers={"cache-control": _MAX_AGE})

    return router

"""History: recorded decisions, filtered and in pages; the address has the filters."""

from collections.abc import Collection, Sequence
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import InvalidRequest
from loan_predictor_client.models import Fault
from services.dashboard.authentication import root_of, session_of
from services.dashboard.downloads import download
from services.dashboard.filters import HistoryQuery, filter_fields, query_of
from services.dashboard.frame import frame
from services.dashboard.live import Loader, Region
from services.dashboard.templating import NOTHING, part
from services.dashboard.watch import Watch

PAGE_SIZE: Final = 20


def filter_form(
    query: HistoryQuery, faults: Sequence[Fault], root: str, *, models: Collection[str]
) -> Markup:
    """The filters, open if any is in use."""
    specs = filter_fields(query, models)
    return part("history", "filters", specs=specs, query=query, faults=faults, root=root)


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/history")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)
        query = query_of(request.query_params)
        cursor = request.query_params.get("cursor")

        async def fetch() -> Markup:
            models = (await session.api.statistics()).by_model
            filters.show(filter_form(query, query.faults, root, models=models))
            if query.faults:
                return NOTHING
            try:
                found = await session.api.history(query.filters, limit=PAGE_SIZE, cursor=cursor)
            except InvalidRequest as error:
                filters.show(filter_form(query, error.validation_errors, root, models=models))
                raise
            return part(
                "history",
                "listing",
                page=found,
                parameters=query.parameters,
                is_first=cursor is None,
                root=root,
            )

        with frame(request, "history", watch=watch):
            filters = Region("filters")
            Loader("decisions", fetch)


def export_router() -> APIRouter:
    """The route that streams the history service's export."""
    router = APIRouter(include_in_schema=False)

    @router.get("/history-export.csv")
    async def export(request: Request) -> Response:
        """Download the decisions that match the filters."""
        query = query_of(request.query_params)
        if query.faults:
            return PlainTextResponse("One of the filters cannot be read.", 400)
        opened = session_of(request.scope).api.export(query.filters, format="csv")
        return await download(opened, media_type="text/csv; charset=utf-8", name="history.csv")

    return router

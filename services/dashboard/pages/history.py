"""History: what was decided, filtered and page by page; the address says which."""

from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import ApiError, CallFailed, InvalidRequest
from loan_predictor_client.models import Fault, Page, Record
from services.dashboard import markup
from services.dashboard.filters import FIELDS, Asked, asked_of
from services.dashboard.formatting import NONE, amount, count, model_title, moment, percent
from services.dashboard.frame import frame
from services.dashboard.gate import root_of, session_of
from services.dashboard.live import Loader, Region
from services.dashboard.watch import Watch

PAGE_SIZE: Final = 20

_FORM: Final = Markup(
    '<details class="lp-card"{open}><summary>Filters{active}</summary>'
    '<form method="get" action="{root}/history" class="lp-stack" style="gap:16px"'
    ' aria-label="Filters"><div class="lp-fields lp-narrow">{fields}</div>'
    '<div class="lp-actions"><button class="lp-button" type="submit">Show</button>'
    '<a class="lp-button lp-plain" href="{root}/history">Reset</a></div></form></details>'
)


def filter_form(asked: Asked, faults: tuple[Fault, ...], root: str) -> Markup:
    """The filters, open if any is in use."""
    active = len(asked.parameters)
    return _FORM.format(
        open=Markup(" open") if active else markup.EMPTY,
        active=f" ({active} in use)" if active else "",
        root=root,
        fields=markup.join(
            markup.field(spec, value=asked.values[spec.name], faults=faults) for spec in FIELDS
        ),
    )


def listing(page: Page, asked: Asked, root: str, *, is_first: bool) -> Markup:
    """One page of records with the ways on."""
    if not page.items:
        if asked.parameters or not is_first:
            return markup.empty("Nothing matches", "No recorded decision passes these filters.")
        return markup.empty("No decisions yet", "Each decision shows up here once it is recorded.")
    address = f"{root}/history"
    ways = []
    if not is_first:
        ways.append(_way(address, asked.parameters, "Newest"))
    if page.next_cursor is not None:
        ways.append(_way(address, asked.parameters | {"cursor": page.next_cursor}, "Older"))
    export = _way(f"{root}/history-export.csv", asked.parameters, "Download as CSV")
    return Markup(
        '<section class="lp-card" aria-label="Decisions">{}<nav class="lp-actions"'
        ' aria-label="Pages of the history">{}{}</nav></section>'
    ).format(
        markup.table(
            ("Decided", "Outcome", "Confidence", "Model", "Loan ID", "Amount", "Warnings"),
            (_row(record, root) for record in page.items),
            caption="Recorded decisions, the newest first",
        ),
        markup.join(ways),
        export,
    )


def _way(address: str, parameters: dict[str, str], text: str) -> Markup:
    query = f"?{urlencode(parameters)}" if parameters else ""
    return Markup('<a class="lp-button lp-plain" href="{}{}">{}</a>').format(address, query, text)


def _row(record: Record, root: str) -> list[object]:
    warned = len(record.warnings)
    return [
        Markup('<a href="{}/history/{}">{}</a>').format(
            root, record.prediction_id, moment(record.timestamp)
        ),
        markup.verdict_tag(record.prediction),
        percent(record.confidence),
        model_title(record.model_info.name),
        record.input_data.Loan_ID or NONE,
        amount(record.input_data.LoanAmount, "thousand"),
        Markup('<span class="lp-tag lp-warned">{}</span>').format(count(warned))
        if warned
        else NONE,
    ]


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/history")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)
        asked = asked_of(request.query_params)
        cursor = request.query_params.get("cursor")

        async def fetch() -> Markup:
            if asked.faults:
                return markup.EMPTY
            try:
                found = await session.api.history(asked.filters, limit=PAGE_SIZE, cursor=cursor)
            except InvalidRequest as error:
                filters.show(filter_form(asked, error.validation_errors, root))
                raise
            return listing(found, asked, root, is_first=cursor is None)

        with frame(
            request,
            title="History",
            lead="Every decision that was answered, exactly as it was answered.",
            watch=watch,
        ):
            filters = Region("filters", filter_form(asked, asked.faults, root))
            Loader("decisions", fetch)


def export_router() -> APIRouter:
    """The route that passes the history service's export through, piece by piece."""
    router = APIRouter(include_in_schema=False)

    @router.get("/history-export.csv")
    async def export(request: Request) -> Response:
        """Download what the filters leave."""
        asked = asked_of(request.query_params)
        if asked.faults:
            return PlainTextResponse("One of the filters cannot be read.", 400)
        opened = session_of(request.scope).api.export(asked.filters, format="csv")
        try:
            # Entered here, so that a service that is away is still a proper answer.
            pieces = await opened.__aenter__()
        except CallFailed as error:
            status = error.status if isinstance(error, ApiError) else 503
            return PlainTextResponse(str(error), status)

        async def all_pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in pieces:
                    yield piece
            finally:
                await opened.__aexit__(None, None, None)

        return StreamingResponse(
            all_pieces(),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": 'attachment; filename="history.csv"'},
        )

    return router

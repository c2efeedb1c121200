"""Record: one decision in full, as it was answered."""

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from services.dashboard.frame import frame
from services.dashboard.gate import root_of, session_of
from services.dashboard.live import Loader
from services.dashboard.templating import part
from services.dashboard.watch import Watch


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/history/{prediction_id}")
    def page(request: Request, prediction_id: str) -> None:
        session, root = session_of(request.scope), root_of(request.scope)

        async def fetch() -> Markup:
            record = await session.api.record(prediction_id)
            return part("record", "record", record=record, root=root)

        with frame(request, "record", watch=watch):
            Loader("record", fetch)

"""The page at every unknown address."""

from fastapi import Request
from nicegui import ui

from services.dashboard.authentication import root_of
from services.dashboard.frame import frame
from services.dashboard.templating import part
from services.dashboard.watch import Watch


def register(watch: Watch) -> None:
    """Register the page, after all others: it takes every path."""

    @ui.page("/{path:path}")
    def page(request: Request) -> None:
        ui.status_code(404)
        with frame(request, "not_found", watch=watch):
            ui.html(part("not_found", "back", root=root_of(request.scope)), sanitize=False)

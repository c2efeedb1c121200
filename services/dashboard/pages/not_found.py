"""What is shown where there is no page."""

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from services.dashboard.frame import frame
from services.dashboard.gate import root_of
from services.dashboard.watch import Watch


def register(watch: Watch) -> None:
    """Register the page, after all others: it takes every path that is left."""

    @ui.page("/{path:path}")
    def page(request: Request) -> None:
        ui.status_code(404)
        with frame(
            request,
            title="There is no such page",
            lead="The address may have been mistyped, or be of another version.",
            watch=watch,
        ):
            ui.html(
                Markup('<a class="lp-button" href="{}/">To the first page</a>').format(
                    root_of(request.scope)
                ),
                sanitize=False,
            )

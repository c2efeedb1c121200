"""The frame of every page: head, navigation, heading and the state of the services."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from nicegui import ui
from starlette.requests import Request

from services.dashboard.authentication import path_of, root_of, session_of
from services.dashboard.live import Region
from services.dashboard.templating import page_heading, part
from services.dashboard.watch import Watch

STATUS_EVERY_S: Final = 1.0


@contextmanager
def frame(request: Request, page: str, *, watch: Watch) -> Iterator[None]:
    """The page with the template ``page``; the block adds the content below its heading."""
    root = root_of(request.scope)
    title, lead = page_heading(page)
    ui.page_title(f"{title} · Loan predictor")
    ui.add_head_html(part("frame", "head", root=root))
    header = ui.html(
        part(
            "frame",
            "header",
            root=root,
            here=path_of(request.scope).strip("/").partition("/")[0],
            can_sign_out=session_of(request.scope).can_end,
        ),
        sanitize=False,
        tag="header",
    )
    header.classes("lp-top").move(ui.context.client.layout, target_index=0)
    with ui.element("div").classes("lp-page"):
        ui.html(part("frame", "heading", title=title, lead=lead), sanitize=False)
        status = Region("services", spoken=True)
        ui.timer(STATUS_EVERY_S, lambda: status.show(watch.notice()))
        yield

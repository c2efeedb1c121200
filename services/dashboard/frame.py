"""What every page has around it: head, navigation, the state of the services, foot."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request

from services.dashboard import markup, theme
from services.dashboard.gate import root_of, session_of
from services.dashboard.live import Region
from services.dashboard.watch import Watch

STATUS_EVERY_S: Final = 1.0


class _Place(NamedTuple):
    path: str
    title: str
    icon: str


_PLACES: Final = (
    _Place("/", "Decide", "M5 12.5l4.5 4.5L19 7.5"),
    _Place("/history", "History", "M12 7v5l3.5 2M21 12a9 9 0 1 1-3-6.7M21 4v4h-4"),
    _Place("/statistics", "Statistics", "M5 20v-7M12 20V5M19 20v-10"),
    _Place("/models", "Models", "M12 3l8 4.5v9L12 21l-8-4.5v-9zM12 12l8-4.5M12 12v9M12 12L4 7.5"),
    _Place("/batch", "Batch", "M12 15V4M7.5 8.5L12 4l4.5 4.5M4 16v4h16v-4"),
)
_HEADER: Final = Markup(
    '<a class="lp-skip" href="#content">Skip to the content</a>'
    '<div class="lp-bar"><a class="lp-brand" href="{root}/">{logo}<span>Loan predictor</span></a>'
    '<nav class="lp-nav" aria-label="Pages">{links}</nav><div class="lp-tools">'
    '<button class="lp-icon" type="button" data-toggle-theme aria-label="Switch between light and'
    ' dark">{moon}</button>{sign_out}</div></div>'
)
_LINK: Final = Markup('<a href="{root}{path}"{current}>{icon}<span>{title}</span></a>')
_SIGN_OUT: Final = Markup(
    '<form method="post" action="{root}/logout"><button class="lp-icon" type="submit"'
    ' aria-label="Sign out">{icon}</button></form>'
)


def _icon(path: str) -> Markup:
    return Markup(
        '<svg viewBox="0 0 24 24" width="22" height="22" fill="none" stroke="currentColor"'
        ' stroke-width="1.9" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">'
        '<path d="{}"/></svg>'
    ).format(path)


@contextmanager
def frame(request: Request, *, title: str, lead: str, watch: Watch) -> Iterator[None]:
    """A page under ``title``, with ``lead`` as its first sentence; the block adds the content."""
    root = root_of(request.scope)
    ui.page_title(f"{title} · Loan predictor")
    ui.add_head_html(theme.head(root))
    client = ui.context.client
    header = ui.html(_header(request, root), sanitize=False, tag="header").classes("lp-top")
    header.move(client.layout, target_index=0)
    with ui.element("div").classes("lp-page"):
        ui.html(
            Markup(
                '<div class="lp-title"><div><h1 id="content" tabindex="-1">{}</h1>'
                '<p class="lp-muted">{}</p></div></div>'
            ).format(title, lead),
            sanitize=False,
        )
        status = Region("services", spoken=True)
        ui.timer(STATUS_EVERY_S, lambda: status.show(watch.notice()))
        yield


def _header(request: Request, root: str) -> Markup:
    here = "/" + request.scope["path"].removeprefix(root).strip("/").partition("/")[0]
    links = markup.join(
        _LINK.format(
            root=root,
            path=place.path,
            current=Markup(' aria-current="page"') if place.path == here else markup.EMPTY,
            icon=_icon(place.icon),
            title=place.title,
        )
        for place in _PLACES
    )
    return _HEADER.format(
        root=root,
        logo=theme.LOGO,
        links=links,
        moon=_icon("M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5z"),
        sign_out=_SIGN_OUT.format(root=root, icon=_icon("M9 4H5v16h4M14 8l4 4-4 4M18 12H9"))
        if session_of(request.scope).can_end
        else markup.EMPTY,
    )

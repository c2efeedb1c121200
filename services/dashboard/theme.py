"""How the dashboard looks: one style sheet and one script, read at start and served from memory."""

from hashlib import sha256
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from services.dashboard.gate import ASSETS_PREFIX

_FOLDER: Final = Path(__file__).parent / "assets"
_MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript"}
_FOR_EVER: Final = "public, max-age=31536000, immutable"

LOGO: Final = Markup(
    '<svg class="lp-logo" viewBox="0 0 32 32" width="28" height="28" aria-hidden="true">'
    '<rect width="32" height="32" rx="9" fill="var(--accent)"/>'
    '<path d="M9 17.5l4.6 4.6L23.5 11" fill="none" stroke="#fff" stroke-width="3.2"'
    ' stroke-linecap="round" stroke-linejoin="round"/></svg>'
)
FAVICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32"'
    ' rx="9" fill="#4338ca"/><path d="M9 17.5l4.6 4.6L23.5 11" fill="none" stroke="#fff"'
    ' stroke-width="3.2" stroke-linecap="round" stroke-linejoin="round"/></svg>'
)


def _read(name: str) -> tuple[bytes, str]:
    content = (_FOLDER / name).read_bytes()
    return content, sha256(content).hexdigest()[:16]


def head(root: str) -> Markup:
    """What each page's head needs, for a dashboard below the path ``root``."""
    return Markup(
        '<script src="{root}{prefix}theme.js?{js}"></script>'
        '<link rel="stylesheet" href="{root}{prefix}theme.css?{css}">'
        '<link rel="icon" href="data:image/svg+xml,{icon}">'
    ).format(
        root=root,
        prefix=ASSETS_PREFIX,
        js=_ASSETS["theme.js"][1],
        css=_ASSETS["theme.css"][1],
        icon=FAVICON.replace("#", "%23"),
    )


def assets_router() -> APIRouter:
    """The route that serves both files; their address changes with their content."""
    router = APIRouter(include_in_schema=False)

    @router.get(ASSETS_PREFIX + "{name}")
    async def asset(name: str, request: Request) -> Response:
        """One file."""
        if name not in _ASSETS:
            return Response("There is no such file.", 404, media_type="text/plain")
        content, version = _ASSETS[name]
        held = request.url.query == version
        return Response(
            content,
            media_type=_MEDIA_TYPES[Path(name).suffix],
            headers={"cache-control": _FOR_EVER if held else "no-cache"},
        )

    return router


# A few kilobytes that belong to the code like its modules do.
_ASSETS: Final = {name: _read(name) for name in ("theme.css", "theme.js")}

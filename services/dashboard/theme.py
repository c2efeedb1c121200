"""Style sheet, script and icon, read once and served from memory."""

from hashlib import sha256
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from services.dashboard.authentication import ASSETS_PATH
from shared.pictures.templating import STYLE as PICTURES_STYLE

FOLDER: Final = Path(__file__).parent / "assets"
_MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_IMMUTABLE: Final = "public, max-age=31536000, immutable"
# A few kilobytes, read like the modules themselves.
_ASSETS: Final = {path.name: path.read_bytes() for path in FOLDER.iterdir()} | {
    "pictures.css": PICTURES_STYLE.encode()
}
_DIGESTS: Final = {name: sha256(content).hexdigest()[:16] for name, content in _ASSETS.items()}


def asset(name: str) -> str:
    """The address of an asset, below the root; it changes with the content."""
    return f"{ASSETS_PATH}/{name}?{_DIGESTS[name]}"


def assets_router() -> APIRouter:
    """The route that serves the assets."""
    router = APIRouter(include_in_schema=False)

    @router.get(ASSETS_PATH + "/{name}")
    async def serve(name: str, request: Request) -> Response:
        """One file; browsers may keep it if the address has its digest."""
        if name not in _ASSETS:
            return Response("There is no such file.", 404, media_type="text/plain")
        is_pinned = request.url.query == _DIGESTS[name]
        return Response(
            _ASSETS[name],
            media_type=_MEDIA_TYPES[Path(name).suffix],
            headers={"cache-control": _IMMUTABLE if is_pinned else "no-cache"},
        )

    return router

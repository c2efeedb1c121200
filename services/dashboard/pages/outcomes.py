"""Outcomes: a file of what became of loans is recorded."""

from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from markupsafe import Markup
from nicegui import ui

from services.dashboard.authentication import root_of, session_of
from services.dashboard.frame import frame
from services.dashboard.live import Region
from services.dashboard.outcomes import Upload, Uploads
from services.dashboard.templating import part
from services.dashboard.uploading import MAX_BYTES, NO_FILE, REFUSED, TOO_LARGE, uploaded
from services.dashboard.watch import Watch
from shared.contract.errors import BodyTooLarge

REFRESH_S: Final = 0.4
_IN_PARTS: Final = f"{TOO_LARGE} Send it in parts."
_GONE: Final = "Send the file again to see how it stands; nothing is recorded twice."


def upload_form(root: str, *, lost: bool, refused: bool) -> Markup:
    """The upload form, with what was wrong with the last file."""
    problem = _IN_PARTS if refused else _GONE if lost else ""
    megabytes = MAX_BYTES // 1024 // 1024
    return part(
        "outcomes",
        "upload",
        problem=problem,
        refused=refused,
        max_megabytes=megabytes,
        root=root,
    )


def state(upload: Upload, root: str) -> Markup:
    """How an upload stands."""
    more = upload.faulty - len({line for line, _ in upload.faults})
    return part("outcomes", "state", upload=upload, more_faults=more, root=root)


def register(watch: Watch, uploads: Uploads) -> None:
    """Register the page."""

    @ui.page("/outcomes")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)
        identifier = request.query_params.get("upload")
        upload = uploads.find(identifier, session) if identifier else None
        refused = REFUSED in request.query_params
        with frame(request, "outcomes", watch=watch):
            content = (
                state(upload, root)
                if upload
                else upload_form(root, lost=bool(identifier), refused=refused)
            )
            region = Region("outcomes", content, spoken=True)
        if upload is None or not upload.at_work:
            return
        shown = upload

        def refreshed() -> None:
            region.show(state(shown, root))
            if not shown.at_work:
                refresh.deactivate()

        refresh = ui.timer(REFRESH_S, refreshed)


def files_router(uploads: Uploads) -> APIRouter:
    """The route that takes the file."""
    router = APIRouter(include_in_schema=False)

    @router.post("/outcomes/upload")
    async def upload(request: Request) -> Response:
        """Start recording a file, and lead to its page."""
        try:
            file = await uploaded(request)
        except BodyTooLarge:
            page = f"{root_of(request.scope)}/outcomes?{REFUSED}"
            return RedirectResponse(page, status_code=303)
        if file is None:
            return PlainTextResponse(NO_FILE, 400)
        started = uploads.begin(file.name, file.content, session_of(request.scope))
        target = f"{root_of(request.scope)}/outcomes?upload={started.identifier}"
        return RedirectResponse(target, status_code=303)

    return router

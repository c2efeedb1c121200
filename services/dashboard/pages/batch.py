"""Batch: a file of applications is checked by line, decided, and downloaded."""

from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from markupsafe import Markup
from nicegui import ui

from services.dashboard import sheet
from services.dashboard.frame import frame
from services.dashboard.gate import root_of, session_of
from services.dashboard.jobs import MAX_ROWS, Job, Jobs, progress
from services.dashboard.live import Region, Values
from services.dashboard.templating import part
from services.dashboard.uploading import MAX_BYTES, NO_FILE, uploaded
from services.dashboard.watch import Watch

REFRESH_S: Final = 0.4
MAX_SHOWN: Final = 100
"""How many faults and decisions the page lists; the download has all."""


def upload_form(root: str, problem: str = "") -> Markup:
    """The upload form, with what was wrong with the last file."""
    return part(
        "batch",
        "upload",
        problem=problem,
        max_rows=MAX_ROWS,
        max_megabytes=MAX_BYTES // 1024 // 1024,
        root=root,
    )


def state(job: Job, root: str) -> Markup:
    """The state of a job, and what the person can do next."""
    if job.phase == "unusable":
        return upload_form(root, job.problem)
    if job.phase == "asking":
        return part("batch", "questions", job=job, root=root)
    if job.at_work:
        done, total = progress(job)
        return part("batch", "at_work", job=job, done=done, total=total)
    return part(
        "batch",
        "result",
        job=job,
        faults=sorted(job.faults.items())[:MAX_SHOWN],
        more_faults=max(0, len(job.faults) - MAX_SHOWN),
        decisions=sorted(job.decisions.items())[:MAX_SHOWN],
        more_decisions=max(0, len(job.decisions) - MAX_SHOWN),
        root=root,
    )


def register(watch: Watch, jobs: Jobs) -> None:
    """Register the page."""

    @ui.page("/batch")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)
        identifier = request.query_params.get("job")
        job = jobs.find(identifier, session) if identifier else None
        lost = "That file is no longer here; choose it again." if identifier and not job else ""
        with frame(request, "batch", watch=watch):
            region = Region(
                "batch", state(job, root) if job else upload_form(root, lost), spoken=True
            )
        if job is None:
            return
        shown = job

        def go_on() -> None:
            region.show(state(shown, root))
            refresh.activate()

        async def check(values: Values) -> None:
            jobs.check(shown, values.keys())
            go_on()

        async def decide(_: str) -> None:
            jobs.decide(shown)
            go_on()

        def refreshed() -> None:
            region.show(state(shown, root))
            if not shown.at_work:
                refresh.deactivate()

        region.on_submit(check)
        region.on_press(decide)
        refresh = ui.timer(REFRESH_S, refreshed)


def files_router(jobs: Jobs) -> APIRouter:
    """The routes of the upload and of the download."""
    router = APIRouter(include_in_schema=False)

    @router.post("/batch/upload")
    async def upload(request: Request) -> Response:
        """Start a job for a file, and lead to its page."""
        file = await uploaded(request)
        if file is None:
            return PlainTextResponse(NO_FILE, 400)
        job = jobs.begin(file.name, file.content, session_of(request.scope))
        target = f"{root_of(request.scope)}/batch?job={job.identifier}"
        return RedirectResponse(target, status_code=303)

    @router.get("/batch/{identifier}/decisions.csv")
    async def decisions(request: Request, identifier: str) -> Response:
        """Download what was decided, row by row."""
        job = jobs.find(identifier, session_of(request.scope))
        if job is None:
            return PlainTextResponse("That file is no longer here.", 404)
        return Response(
            sheet.write(job.results()),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": 'attachment; filename="decisions.csv"'},
        )

    return router

"""Batch: a file of applications in, its bad rows by line, decisions as a file out."""

from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from markupsafe import Markup
from nicegui import ui
from starlette.datastructures import UploadFile
from starlette.types import Message, Receive

from services.dashboard import markup, sheet
from services.dashboard.formatting import count, percent
from services.dashboard.frame import frame
from services.dashboard.gate import root_of, session_of
from services.dashboard.jobs import Job, Jobs, progress
from services.dashboard.live import Region
from services.dashboard.watch import Watch
from shared.contract.errors import BodyTooLarge

REFRESH_S: Final = 0.4
MAX_SHOWN_FAULTS: Final = 100
_MULTIPART_BYTES: Final = 4096
"""What a form adds around the file."""

_FORM: Final = Markup(
    '<form class="lp-card" method="post" action="{root}/batch/upload" enctype="multipart/form-data"'
    ' aria-label="Upload"><header><h2>Choose a file</h2></header>{fault}'
    '<div class="lp-field"><label for="file">CSV file of applications</label>'
    '<input id="file" name="file" type="file" accept=".csv,text/csv" required'
    ' aria-describedby="file-help"><span class="lp-help" id="file-help">At most {rows} rows and'
    " {megabytes} MB, UTF-8. Only ApplicantIncome has to be there; Loan_Status is ignored.</span>"
    '</div><details><summary>Columns</summary><p class="lp-small lp-muted">{columns}</p></details>'
    '<div class="lp-actions"><button class="lp-button" type="submit">Check the file</button></div>'
    '<p class="lp-help">Checking records nothing; you decide afterwards.</p></form>'
)


def upload_form(root: str, problem: str = "") -> Markup:
    """The form that takes a file, and what was wrong with the last one."""
    return _FORM.format(
        root=root,
        fault=markup.note("The file cannot be used", problem, kind="bad")
        if problem
        else markup.EMPTY,
        rows=count(sheet.MAX_ROWS),
        megabytes=sheet.MAX_BYTES // 1024 // 1024,
        columns=", ".join(sheet.COLUMNS),
    )


def state(job: Job, root: str) -> Markup:
    """How far a job is, and what can be done next."""
    if job.phase == "unusable":
        return upload_form(root, job.problem)
    another = Markup('<a class="lp-button lp-plain" href="{}/batch">Another file</a>').format(root)
    if job.at_work:
        what = "Checking" if job.phase == "checking" else "Deciding"
        return markup.card(
            f"{what} {job.name}", _bar(job), aside="this page keeps itself up to date"
        )
    undecided, good = len(job.undecided), len(job.good)
    actions = []
    if undecided:
        text = f"Decide {count(undecided)} application{'s' if undecided > 1 else ''}"
        if job.decisions:
            text = f"Try {count(undecided)} again"
        actions.append(
            Markup(
                '<button class="lp-button" type="button" data-press="decide">{}</button>'
            ).format(text)
        )
    if job.phase == "decided":
        actions.append(
            Markup(
                '<a class="lp-button" href="{}/batch/{}/decisions.csv">Download decisions</a>'
            ).format(root, job.identifier)
        )
    approved = sum(decision.prediction == "Approved" for decision in job.decisions.values())
    decided = len(job.decisions)
    shown = [
        ("rows", "Rows", count(len(job.rows))),
        ("good", "Can be decided", count(good)),
        ("bad", "Have faults", count(len(job.rows) - good)),
    ]
    if job.phase == "decided":
        shown += [
            ("decided", "Decided", count(decided)),
            ("approved", "Approved", count(approved)),
            ("rate", "Approval rate", percent(approved / decided if decided else None)),
        ]
    return markup.join(
        (
            markup.card(
                job.name,
                markup.figures(shown),
                _failures(job),
                Markup('<div class="lp-actions">{}{}</div>').format(markup.join(actions), another),
                aside="decided and recorded" if job.phase == "decided" else "checked",
            ),
            _faults(job),
        )
    )


def _bar(job: Job) -> Markup:
    seen, total = progress(job)
    return Markup(
        '<div class="lp-progress" role="progressbar" aria-label="Rows" aria-valuemin="0"'
        ' aria-valuenow="{}" aria-valuemax="{}"><span style="width:{:.1f}%"></span></div>'
        '<p class="lp-muted">{} of {} rows</p>'
    ).format(seen, total, seen / max(1, total) * 100, count(seen), count(total))


def _failures(job: Job) -> Markup:
    if not job.failures:
        return markup.EMPTY
    return markup.note(
        f"{count(len(job.failures))} could not be decided",
        next(iter(job.failures.values())),
        "Trying again decides none twice.",
        kind="warned",
    )


def _faults(job: Job) -> Markup:
    if not job.faults:
        return markup.EMPTY
    shown = sorted(job.faults.items())[:MAX_SHOWN_FAULTS]
    more = len(job.faults) - len(shown)
    return markup.card(
        "Rows with faults",
        markup.table(
            ("Line", "What is wrong"),
            ((line, fault) for line, fault in shown),
            caption="Rows that cannot be decided, by their line in the file",
        ),
        aside=f"and {count(more)} more, all in the download" if more else "not decided",
    )


def register(watch: Watch, jobs: Jobs) -> None:
    """Register the page."""

    @ui.page("/batch")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)
        identifier = request.query_params.get("job")
        job = jobs.find(identifier, session) if identifier else None
        lost = "That file is not here any more; choose it again." if identifier and not job else ""
        with frame(
            request,
            title="Batch",
            lead="Many applications at once, in the columns of the training set.",
            watch=watch,
        ):
            region = Region(
                "batch", state(job, root) if job else upload_form(root, lost), spoken=True
            )
        if job is None:
            return
        shown = job

        async def decide(_: str) -> None:
            jobs.decide(shown)
            region.show(state(shown, root))
            refresh.activate()

        def refreshed() -> None:
            region.show(state(shown, root))
            if not shown.at_work:
                refresh.deactivate()

        region.on_press(decide)
        refresh = ui.timer(REFRESH_S, refreshed)


def files_router(jobs: Jobs) -> APIRouter:
    """The routes that take a file in and give the decisions out."""
    router = APIRouter(include_in_schema=False)

    @router.post("/batch/upload")
    async def upload(request: Request) -> Response:
        """Take a file in; the page of its job follows."""
        limit = sheet.MAX_BYTES + _MULTIPART_BYTES
        bounded = Request(request.scope, _bounded(request.receive, limit))
        async with bounded.form(max_files=1, max_fields=1) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                return PlainTextResponse("The form has no file.", 400)
            content, name = await file.read(), file.filename or "file"
        job = jobs.begin(name, content, session_of(request.scope))
        target = f"{root_of(request.scope)}/batch?job={job.identifier}"
        return RedirectResponse(target, status_code=303)

    @router.get("/batch/{identifier}/decisions.csv")
    async def decisions(request: Request, identifier: str) -> Response:
        """Download what was decided, row by row."""
        job = jobs.find(identifier, session_of(request.scope))
        if job is None:
            return PlainTextResponse("That file is not here any more.", 404)
        return Response(
            sheet.write(job.results()),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": 'attachment; filename="decisions.csv"'},
        )

    return router


def _bounded(receive: Receive, limit_bytes: int) -> Receive:
    """``receive``, which raises ``BodyTooLarge`` as soon as more has come."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit_bytes:
            raise BodyTooLarge(sheet.MAX_BYTES)
        return message

    return bounded

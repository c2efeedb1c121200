"""Batch: a file of applications is checked by line and decided by the batch service."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import CallFailed
from loan_predictor_client.calls import ResultsFormat
from loan_predictor_client.models import Batch, ModelComparison
from services.dashboard.authentication import root_of, session_of
from services.dashboard.batches import (
    ENDED,
    MAX_SHOWN,
    Results,
    bins_of,
    is_identifier,
    results_of,
)
from services.dashboard.downloads import download
from services.dashboard.drafts import LARGER_FILES, MAX_ROWS, Draft, Drafts, order
from services.dashboard.evidence import attempted
from services.dashboard.frame import frame
from services.dashboard.live import (
    RETRY_S,
    Loader,
    Region,
    Values,
    explain,
    may_recover,
    signed_out,
)
from services.dashboard.sessions import Session, SignedOut
from services.dashboard.templating import part
from services.dashboard.uploading import MAX_BYTES, NO_FILE, REFUSED, TOO_LARGE, uploaded
from services.dashboard.watch import Watch
from shared.contract.errors import BodyTooLarge

REFRESH_S: Final = 0.5
LIST_S: Final = 2.0
_AGAIN: Final = "again"
"""The query parameter of a batch's page that the same file leads to again."""
_CLOCKS_APART: Final = timedelta(seconds=5)
_MEDIA_TYPES: Final[Mapping[ResultsFormat, str]] = {
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
_LOST: Final = "That file is no longer here; choose it again."


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


def draft_state(draft: Draft, root: str) -> Markup:
    """A file that is not ordered yet, and what the person can do next."""
    if draft.problem:
        return upload_form(root, draft.problem)
    if draft.chosen is None:
        return part("batch", "questions", draft=draft, root=root)
    return part(
        "batch",
        "checked",
        draft=draft,
        faults=list(draft.faults.items())[:MAX_SHOWN],
        more_faults=max(0, len(draft.faults) - MAX_SHOWN),
        root=root,
    )


def batch_state(
    batch: Batch,
    results: Results | None,
    compared: ModelComparison | None,
    root: str,
    *,
    again: bool = False,
) -> Markup:
    """How a batch stands; with its ``results``, beside the training data, once it has ended.

    ``again`` if the same file was just sent once more.
    """
    same = compared is not None and compared.version == batch.bundle_version
    model = compared.models.get(batch.model) if compared and same else None
    return part(
        "batch",
        "state",
        batch=batch,
        ended=batch.state in ENDED,
        again=again,
        results=results,
        approved_in_training=compared.data.approved_share if compared else None,
        in_training=bins_of(model.scores) if model and model.scores else None,
        more_faults=max(0, batch.faulty - MAX_SHOWN),
        more_decisions=max(0, batch.decided - MAX_SHOWN),
        root=root,
    )


def _problem(asked: Mapping[str, str]) -> str:
    """Why the address leads to no file."""
    if REFUSED in asked:
        return TOO_LARGE + LARGER_FILES
    return _LOST if asked.get("draft") or asked.get("batch") else ""


def register(watch: Watch, drafts: Drafts) -> None:
    """Register the page."""

    @ui.page("/batch")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)
        batch_id = request.query_params.get("batch", "")
        identifier = request.query_params.get("draft")
        draft = drafts.find(identifier, session) if identifier else None
        with frame(request, "batch", watch=watch):
            if is_identifier(batch_id):
                _show_batch(session, batch_id, root, again=_AGAIN in request.query_params)
                return
            region = Region(
                "batch",
                draft_state(draft, root)
                if draft
                else upload_form(root, _problem(request.query_params)),
                spoken=True,
            )
            if draft is None:
                _list_batches(session, root)
                return
        _follow(draft, region, root)


async def draft_with_warnings(draft: Draft, root: str) -> tuple[Markup, bool]:
    """A draft with what its decisions will warn of, and whether to try again for the warnings."""
    try:
        rules = await draft.owner.api.validation_rules()
    except SignedOut:
        return signed_out(), False
    except CallFailed as error:
        again = may_recover(error)
        return explain(error, retried=again) + draft_state(draft, root), again
    await asyncio.to_thread(draft.warn, rules.training_ranges)
    return draft_state(draft, root), False


def _follow(draft: Draft, region: Region, root: str) -> None:
    async def warn() -> None:
        shown, again = await draft_with_warnings(draft, root)
        region.show(shown)
        if again:
            ui.timer(RETRY_S, warn, once=True)

    async def check(values: Values) -> None:
        await asyncio.to_thread(draft.check, values.keys())
        await warn()

    async def decide(pressed: str) -> None:
        asked_at = datetime.now(UTC)
        try:
            batch = await order(draft, record=pressed == "decide")
        except SignedOut:
            region.show(signed_out())
        except CallFailed as error:
            region.show(explain(error) + draft_state(draft, root))
        else:
            # NiceGUI itself adds the path below which the dashboard is served.
            again = f"&{_AGAIN}" if batch.created_at < asked_at - _CLOCKS_APART else ""
            ui.navigate.to(f"/batch?batch={batch.id}{again}")

    region.on_submit(check)
    region.on_press(decide)
    if draft.applications and draft.warnings is None:
        ui.timer(0, warn, once=True)


def _list_batches(session: Session, root: str) -> None:
    async def fetch() -> Markup:
        return part("batch", "batches", batches=(await session.api.batches()).items, root=root)

    Loader("batches", fetch, every_s=LIST_S)


def _show_batch(session: Session, batch_id: str, root: str, *, again: bool) -> None:
    async def fetch() -> Markup:
        batch = await session.api.batch(batch_id)
        if batch.state not in ENDED:
            ui.timer(REFRESH_S, loader.load, once=True)
            return batch_state(batch, None, None, root, again=again)
        results, compared = await asyncio.gather(
            results_of(session.api, batch), attempted(session.api.compare())
        )
        return batch_state(batch, results, compared.value, root, again=again)

    async def cancel(_: str) -> None:
        # The page says by itself how the batch stands.
        with suppress(CallFailed, SignedOut):
            await session.api.cancel_batch(batch_id)
        await loader.load()

    loader = Loader("batch", fetch)
    loader.region.on_press(cancel)


def files_router(drafts: Drafts) -> APIRouter:
    """The routes of the upload and of the downloads."""
    router = APIRouter(include_in_schema=False)

    @router.post("/batch/upload")
    async def upload(request: Request) -> Response:
        """Read a file, and lead to its page."""
        try:
            file = await uploaded(request)
        except BodyTooLarge:
            page = f"{root_of(request.scope)}/batch?{REFUSED}"
            return RedirectResponse(page, status_code=303)
        if file is None:
            return PlainTextResponse(NO_FILE, 400)
        # In a thread: other pages should not wait for a large file.
        draft = await asyncio.to_thread(drafts.begin, file, session_of(request.scope))
        target = f"{root_of(request.scope)}/batch?draft={draft.identifier}"
        return RedirectResponse(target, status_code=303)

    @router.get("/batch/{batch_id}/decisions.{format_}")
    async def decisions(request: Request, batch_id: str, format_: ResultsFormat) -> Response:
        """Download the decisions so far."""
        if not is_identifier(batch_id):
            return PlainTextResponse(_LOST, 404)
        opened = session_of(request.scope).api.batch_results(batch_id, format=format_)
        return await download(opened, media_type=_MEDIA_TYPES[format_], name=f"decisions.{format_}")

    return router

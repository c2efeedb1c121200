"""The papers of one decision: its dossier, and the letter of a refusal. They need no script."""

from datetime import UTC, datetime
from hashlib import sha256

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from loan_predictor_client import ApiError, CallFailed
from loan_predictor_client.models import Reason
from services.dashboard.authentication import root_of, session_of
from services.dashboard.evidence import Evidence, evidence_of
from services.dashboard.letter import as_text, letter
from services.dashboard.live import explain
from services.dashboard.templating import part


def papers_router() -> APIRouter:
    """The routes of the dossier and of the letter."""
    router = APIRouter(include_in_schema=False)

    @router.get("/history/{prediction_id}/dossier")
    async def dossier(request: Request, prediction_id: str) -> Response:
        """Everything about one decision, to be printed."""
        root = root_of(request.scope)
        try:
            evidence = await evidence_of(session_of(request.scope).api, prediction_id, asked=True)
        except CallFailed as error:
            return _failed("Decision dossier", error, root)
        digest = sha256(evidence.record.model_dump_json().encode()).hexdigest()
        now = datetime.now(UTC)
        return HTMLResponse(
            part("papers", "dossier", evidence=evidence, digest=digest, now=now, root=root)
        )

    @router.get("/history/{prediction_id}/letter")
    async def adverse_action(request: Request, prediction_id: str) -> Response:
        """The letter that notifies the applicant of a refusal, also as plain text."""
        root = root_of(request.scope)
        title = "Letter to the applicant"
        try:
            evidence = await evidence_of(session_of(request.scope).api, prediction_id, asked=True)
        except CallFailed as error:
            return _failed(title, error, root)
        record = evidence.record
        if record.prediction != "Rejected":
            said = "The application was approved: there is no refusal to notify of."
            return HTMLResponse(part("papers", "nothing", title=title, said=said, root=root), 404)
        blocks = letter(record, _reasons(evidence))
        if request.query_params.get("format") == "txt":
            return PlainTextResponse(as_text(blocks))
        return HTMLResponse(part("papers", "letter", blocks=blocks, record=record, root=root))

    return router


def _reasons(evidence: Evidence) -> list[Reason]:
    """The recorded reasons, or else those that its bundle gives now."""
    found = evidence.explanation.value
    return evidence.record.reasons or (found.reasons if found else None) or []


def _failed(title: str, error: CallFailed, root: str) -> Response:
    status = error.status if isinstance(error, ApiError) else 503
    said = explain(error)
    return HTMLResponse(part("papers", "nothing", title=title, said=said, root=root), status)

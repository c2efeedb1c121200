"""One decision in full, as it was answered."""

from typing import Final

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client.models import Record
from services.dashboard import charts, markup
from services.dashboard.formatting import field_title, model_title, moment, percent
from services.dashboard.frame import frame
from services.dashboard.gate import root_of, session_of
from services.dashboard.live import Loader
from services.dashboard.watch import Watch

_PAGE: Final = Markup(
    '<div class="lp-grid lp-two"><section class="lp-card" aria-label="Decision">'
    '<div class="lp-verdict">{ring}<div><h2 class="lp-{kind}" data-figure="prediction">'
    '{prediction}</h2><span class="lp-muted">with a confidence of <b data-figure="confidence">'
    "{confidence}</b></span></div></div>{split}{filled}{warnings}</section>{application}</div>"
    '{about}<div class="lp-actions"><a class="lp-button lp-plain" href="{root}/history">'
    "All decisions</a></div>"
)


def in_full(record: Record, root: str) -> Markup:
    """Everything that is recorded of one decision."""
    approved = record.prediction == "Approved"
    model = record.model_info
    return _PAGE.format(
        ring=charts.ring(
            record.confidence, approved=approved, label=f"Confidence {percent(record.confidence)}"
        ),
        kind="yes" if approved else "no",
        prediction=record.prediction,
        confidence=percent(record.confidence),
        split=charts.split(record.probability),
        filled=markup.listed(
            "Missing, and filled in by the model", [field_title(name) for name in record.imputed]
        ),
        warnings=markup.listed("Worth a second look", record.warnings, kind="warned"),
        application=markup.card(
            "The application, as understood", markup.application_pairs(record.input_data)
        ),
        about=markup.card(
            "Who decided, when, for whom",
            markup.pairs(
                (
                    ("Decided", moment(record.timestamp)),
                    ("Recorded", moment(record.recorded_at)),
                    ("Asked by", record.client),
                    ("Model", model_title(model.name)),
                    ("Bundle", model.version),
                    ("Its accuracy in cross-validation", percent(model.accuracy)),
                    ("Decision", record.prediction_id),
                    ("Request", record.request_id),
                )
            ),
        ),
        root=root,
    )


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/history/{prediction_id}")
    def page(request: Request, prediction_id: str) -> None:
        session, root = session_of(request.scope), root_of(request.scope)

        async def fetch() -> Markup:
            return in_full(await session.api.record(prediction_id), root)

        with frame(
            request,
            title="One decision",
            lead="The record of what was asked and what was answered.",
            watch=watch,
        ):
            Loader("record", fetch)

"""Models: how good they are, and whether they can be told apart at all."""

import asyncio
import re
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import ApiError, CallFailed
from loan_predictor_client.models import CrossValidation, Interval, ModelComparison
from services.dashboard import charts, markup
from services.dashboard.charts import Ranged
from services.dashboard.formatting import count, model_title, percent
from services.dashboard.frame import frame
from services.dashboard.gate import root_of, session_of
from services.dashboard.live import Loader
from services.dashboard.watch import Watch

_PICTURES: Final = {
    "roc.png": "ROC curves: how well approvals are ranked above rejections.",
    "calibration.png": "Calibration: whether a probability of 80 % comes true 8 times in 10.",
}
_PICTURE_LINK: Final = re.compile(r"\]\(img/([\w.-]+)\)")
_MAX_AGE: Final = "private, max-age=3600"


def comparison(compared: ModelComparison, root: str) -> Markup:
    """The models beside each other and beside the rules that need no model."""
    names = {name: model.title for name, model in compared.models.items()} | {
        name: model_title(name) for name in compared.baselines
    }
    measured: dict[str, CrossValidation] = {
        name: found.cross_validation
        for group in (compared.models, compared.baselines)
        for name, found in group.items()
    }
    data, how = compared.data, compared.evaluation
    return markup.join(
        (
            Markup(
                '<div class="lp-note lp-key"><h2>{} decides</h2>'
                '<p data-figure="reason">{}</p></div>'
            ).format(names[compared.champion], compared.champion_reason),
            markup.card(
                "Accuracy, with 95 % intervals",
                charts.intervals(
                    [
                        Ranged(names[name], found.accuracy, name in compared.baselines)
                        for name, found in measured.items()
                    ]
                ),
                Markup('<p class="lp-help">{}</p>').format(
                    f"{how.repeats} times {how.folds}-fold cross-validation over"
                    f" {count(data.rows)} applications, {percent(data.approved_share)} of them"
                    " approved. In grey: rules that need no model."
                ),
                aside=f"bundle {compared.version}",
            ),
            markup.card(
                "What follows",
                Markup('<div class="lp-grid lp-two">{}</div>').format(
                    markup.join(
                        markup.listed(model.title, model.verdict)
                        for model in compared.models.values()
                    )
                ),
            ),
            markup.card("All measures", _measures(names, measured)),
            markup.card(
                "Curves",
                Markup('<div class="lp-pictures">{}</div>').format(
                    markup.join(
                        Markup(
                            '<figure><img src="{}/pictures/{}" alt="{}" loading="lazy">'
                            "<figcaption>{}</figcaption></figure>"
                        ).format(root, name, caption, caption)
                        for name, caption in _PICTURES.items()
                    )
                ),
            ),
        )
    )


def _measures(names: dict[str, str], measured: dict[str, CrossValidation]) -> Markup:
    return markup.table(
        ("Model", "Accuracy", "Balanced accuracy", "AUC", "Brier score", "Log-loss"),
        (
            (
                names[name],
                *(
                    _interval(interval)
                    for interval in (
                        found.accuracy,
                        found.balanced_accuracy,
                        found.auc,
                        found.brier,
                        found.log_loss,
                    )
                ),
            )
            for name, found in measured.items()
        ),
        caption="Means in cross-validation with 95 % intervals",
    )


def _interval(interval: Interval) -> Markup:
    return Markup('{:.3f} <small class="lp-muted">{:.3f}&ndash;{:.3f}</small>').format(
        interval.mean, interval.low, interval.high
    )


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/models")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)

        async def fetch() -> Markup:
            api = session.api
            compared, text = await asyncio.gather(api.compare(), api.model_card())
            # The page has its own heading of the first level, and shows pictures by its own route.
            text = _PICTURE_LINK.sub(rf"]({root}/pictures/\1)", text)
            document.set_content(re.sub(r"^#", "##", text, flags=re.MULTILINE))
            card.set_visibility(True)
            return comparison(compared, root)

        with frame(
            request,
            title="Models",
            lead="Measured honestly: with intervals, and beside rules that need no model.",
            watch=watch,
        ):
            Loader("models", fetch)
            with ui.element("details").classes("lp-card") as card:
                ui.html("The model card", sanitize=False, tag="summary")
                document = ui.markdown("").classes("lp-document")
                # Wide tables scroll within it, by keyboard, too.
                document.props('tabindex=0 role=region aria-label="The model card"')
            card.set_visibility(False)


def pictures_router() -> APIRouter:
    """The route that passes the pictures of the model card through."""
    router = APIRouter(include_in_schema=False)

    @router.get("/pictures/{name}")
    async def picture(request: Request, name: str) -> Response:
        """One picture."""
        try:
            content = await session_of(request.scope).api.picture(name)
        except CallFailed as error:
            status = error.status if isinstance(error, ApiError) else 503
            return PlainTextResponse(str(error), status)
        return Response(content, media_type="image/png", headers={"cache-control": _MAX_AGE})

    return router

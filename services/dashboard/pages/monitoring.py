"""Monitoring: whether the models still hold, for whom, and how sure that is."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import (
    ApiError,
    AsyncLoanPredictorClient,
    CallFailed,
    Cohorts,
    InvalidRequest,
)
from loan_predictor_client.models import ModelPerformance
from services.dashboard.authentication import root_of, session_of
from services.dashboard.forms import FormField, Option
from services.dashboard.frame import frame
from services.dashboard.live import Loader
from services.dashboard.templating import part
from services.dashboard.watch import Watch
from shared.pictures.formats import count, model_title

_OF: Final = "of"
_SEPARATOR: Final = "/"
_SINCE: Final = FormField("since", "Decided since (month)", type="month")
_UNTIL: Final = FormField(
    "until", "Decided before (month)", type="month", help="The month after the last one."
)


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/monitoring")
    def page(request: Request) -> None:
        api, root = session_of(request.scope).api, root_of(request.scope)
        parameters = dict(request.query_params)

        async def fetch() -> Markup:
            try:
                return await overview(api, parameters, root)
            except InvalidRequest as error:
                fields = _fields((), "", parameters)
                return part("monitoring", "refused", fields=fields, error=error, root=root)

        with frame(request, "monitoring", watch=watch):
            Loader("monitoring", fetch)


async def overview(
    api: AsyncLoanPredictorClient, parameters: Mapping[str, str], root: str
) -> Markup:
    """All that is reported of the model that ``parameters`` name, or else of the busiest one."""
    cohorts = cohorts_of(parameters)
    found = (await api.live_performance(Cohorts(since=cohorts.since, until=cohorts.until))).models
    shown = _shown(found, cohorts)
    if shown is None:
        return part("monitoring", "nothing", fields=_fields(found, "", parameters), root=root)
    cohorts = Cohorts(
        since=cohorts.since, until=cohorts.until, model=shown.model, bundle=shown.bundle
    )
    months, vintages, drift, fairness = await asyncio.gather(
        api.live_performance(cohorts, by="month"),
        api.vintages(cohorts),
        api.drift(cohorts),
        api.fairness(cohorts),
    )
    return part(
        "monitoring",
        "overview",
        fields=_fields(found, _name_of(shown), parameters),
        parameters=cohorts.parameters(),
        model=shown,
        months=months.models,
        vintages=vintages,
        drift=drift.models[0],
        fairness=fairness.models[0],
        screen=fairness.screen,
        root=root,
    )


def cohorts_of(parameters: Mapping[str, str]) -> Cohorts:
    """The decisions that an address selects."""
    bundle, _, model = parameters.get(_OF, "").partition(_SEPARATOR)
    return Cohorts(
        since=parameters.get("since") or None,
        until=parameters.get("until") or None,
        model=model or None,
        bundle=bundle or None,
    )


def _shown(found: Sequence[ModelPerformance], cohorts: Cohorts) -> ModelPerformance | None:
    if cohorts.model:
        wanted = (cohorts.bundle, cohorts.model)
        found = [each for each in found if (each.bundle, each.model) == wanted]
    return max(found, key=_decisions, default=None)


def _fields(
    found: Sequence[ModelPerformance], shown: str, parameters: Mapping[str, str]
) -> list[tuple[FormField, str]]:
    """The fields by which an address is chosen, each with its value."""
    options = [
        Option(
            _name_of(each),
            f"{model_title(each.model)}, {each.bundle}: {count(_decisions(each))} decisions",
        )
        for each in sorted(found, key=_decisions, reverse=True)
    ]
    if not options and parameters.get(_OF):
        # The choice stays while the months are corrected.
        options = [Option(parameters[_OF], parameters[_OF])]
    return [
        *([(FormField(_OF, "Model", options=options), shown)] if options else []),
        (_SINCE, parameters.get("since", "")),
        (_UNTIL, parameters.get("until", "")),
    ]


def _name_of(model: ModelPerformance) -> str:
    return f"{model.bundle}{_SEPARATOR}{model.model}"


def _decisions(model: ModelPerformance) -> int:
    return model.approved.decisions + model.refused.decisions


def report_router() -> APIRouter:
    """The route of the report to be printed."""
    router = APIRouter(include_in_schema=False)

    @router.get("/monitoring/report")
    async def report(request: Request) -> Response:
        """The history service's report on the decisions that the address selects."""
        parameters = request.query_params
        cohorts = Cohorts(**{name: parameters.get(name) or None for name in Cohorts().__dict__})
        try:
            return HTMLResponse(await session_of(request.scope).api.monitoring_report(cohorts))
        except CallFailed as error:
            return PlainTextResponse(
                str(error), error.status if isinstance(error, ApiError) else 503
            )

    return router

"""Statistics: how recorded decisions came out; the page refreshes itself."""

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client.models import Analytics, Statistics
from services.dashboard.authentication import root_of, session_of
from services.dashboard.frame import frame
from services.dashboard.inputs import by_value
from services.dashboard.live import Loader, Region
from services.dashboard.ranges import Range, last_days, range_fields, range_of, trend_of
from services.dashboard.templating import NOTHING, part
from services.dashboard.watch import Watch
from shared.pictures.formats import model_title

REFRESH_S: Final = 5.0


def overview(statistics: Statistics, analytics: Analytics, range_: Range) -> Markup:
    """All numbers of both answers."""
    groups = {
        "model": [(name, model_title(name), s) for name, s in statistics.by_model.items()],
        "property area": by_value("Property_Area", analytics.by_property_area),
        "credit history": by_value("Credit_History", analytics.by_credit_history),
    }
    return part(
        "statistics",
        "overview",
        statistics=statistics,
        analytics=analytics,
        groups=groups,
        points=trend_of(analytics, range_.unit),
        range=range_,
        now=datetime.now(UTC),
    )


def range_form(range_: Range, root: str, *, models: Collection[str] = ()) -> Markup:
    """The fields of the range, open if it is chosen."""
    specs = range_fields(range_, models)
    return part("statistics", "form", specs=specs, range=range_, last=last_days(), root=root)


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/statistics")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)
        range_ = range_of(request.query_params)
        knows_models = False

        async def fetch() -> Markup:
            nonlocal knows_models
            if not knows_models:
                # Once: what is being typed must stay.
                models = (await session.api.statistics()).by_model
                form.show(range_form(range_, root, models=models))
                knows_models = True
            if range_.faults:
                return NOTHING
            statistics, analytics = await asyncio.gather(
                session.api.statistics(range_.selection),
                session.api.analytics(range_.selection, group_by=range_.unit),
            )
            return overview(statistics, analytics, range_)

        with frame(request, "statistics", watch=watch):
            form = Region("range", range_form(range_, root))
            Loader("statistics", fetch, every_s=REFRESH_S)

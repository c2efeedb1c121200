"""Statistics: how recorded decisions came out; the page refreshes itself."""

import asyncio
from datetime import UTC, datetime
from typing import Final

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client.models import Analytics, Statistics
from services.dashboard.frame import frame
from services.dashboard.gate import session_of
from services.dashboard.inputs import by_value
from services.dashboard.live import Loader
from services.dashboard.templating import part
from services.dashboard.watch import Watch
from shared.pictures.formats import model_title

REFRESH_S: Final = 5.0


def overview(statistics: Statistics, analytics: Analytics) -> Markup:
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
        now=datetime.now(UTC),
    )


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/statistics")
    def page(request: Request) -> None:
        session = session_of(request.scope)

        async def fetch() -> Markup:
            api = session.api
            return overview(*await asyncio.gather(api.statistics(), api.analytics()))

        with frame(request, "statistics", watch=watch):
            Loader("statistics", fetch, every_s=REFRESH_S)

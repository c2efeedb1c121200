"""Statistics: how all decisions came out; the page keeps itself up to date."""

import asyncio
from datetime import UTC, datetime
from typing import Final

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client.models import Analytics, Day, Statistics, Summary
from services.dashboard import charts, markup
from services.dashboard.formatting import count, credit_history, model_title, moment, percent
from services.dashboard.frame import frame
from services.dashboard.gate import session_of
from services.dashboard.live import Loader
from services.dashboard.watch import Watch

REFRESH_S: Final = 5.0
_MISSING: Final = "missing"


def overview(statistics: Statistics, analytics: Analytics) -> Markup:
    """All figures of both answers."""
    if not statistics.total_predictions:
        return markup.empty("No decisions yet", "Figures show up here with the first decision.")
    sure = analytics.confidence_analysis
    return markup.join(
        (
            markup.card(
                "All decisions",
                markup.figures(_totals(statistics)),
                aside=f"as of {moment(datetime.now(UTC))}",
            ),
            Markup('<div class="lp-grid lp-two">{}{}{}{}{}{}</div>').format(
                markup.card(
                    "Approval rate over time",
                    charts.trend(analytics.daily_trend),
                    _days(analytics.daily_trend),
                    aside="by UTC day",
                ),
                markup.card(
                    "Confidence",
                    charts.histogram(analytics.confidence_histogram),
                    markup.pairs(
                        (
                            ("Below 60 %", count(sure.low)),
                            ("60 to 80 %", count(sure.medium)),
                            ("80 % and above", count(sure.high)),
                        )
                    ),
                    aside="decisions by the lower end of each range",
                ),
                markup.card(
                    "Approval by model",
                    charts.rate_bars(
                        (name, model_title(name), summary)
                        for name, summary in statistics.by_model.items()
                    ),
                ),
                markup.card(
                    "Approval by property area",
                    charts.rate_bars(
                        (name, "Not given" if name == _MISSING else name, summary)
                        for name, summary in analytics.by_property_area.items()
                    ),
                ),
                markup.card(
                    "Approval by credit history",
                    charts.rate_bars(
                        (name, credit_history(name).capitalize(), summary)
                        for name, summary in sorted(
                            analytics.by_credit_history.items(), key=_by_merit
                        )
                    ),
                ),
                markup.card(
                    "The last 24 hours",
                    markup.figures(_totals(analytics.last_24_hours, prefix="recent-")),
                ),
            ),
        )
    )


def _by_merit(group: tuple[str, Summary]) -> int:
    """Good, bad, unknown, and then whatever a newer service may tell apart."""
    return {"1": 0, "0": 1, _MISSING: 2}.get(group[0], 3)


def _totals(summary: Summary, *, prefix: str = "") -> list[tuple[str, str, str]]:
    return [
        (f"{prefix}total", "Decisions", count(summary.total_predictions)),
        (f"{prefix}approved", "Approved", count(summary.approved)),
        (f"{prefix}rejected", "Rejected", count(summary.rejected)),
        (f"{prefix}rate", "Approval rate", percent(summary.approval_rate)),
        (f"{prefix}confidence", "Average confidence", percent(summary.average_confidence)),
    ]


def _days(days: list[Day]) -> Markup:
    table = markup.table(
        ("Day", "Decisions", "Approved", "Approval rate"),
        (
            (
                f"{day.date:%d %b %Y}",
                count(day.total_predictions),
                count(day.approved),
                percent(day.approval_rate),
            )
            for day in reversed(days)
        ),
        caption="Decisions by day, the latest first",
    )
    return Markup("<details><summary>Figures by day</summary>{}</details>").format(table)


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/statistics")
    def page(request: Request) -> None:
        session = session_of(request.scope)

        async def fetch() -> Markup:
            api = session.api
            return overview(*await asyncio.gather(api.statistics(), api.analytics()))

        with frame(
            request,
            title="Statistics",
            lead="How recorded decisions came out. The figures refresh themselves.",
            watch=watch,
        ):
            Loader("statistics", fetch, every_s=REFRESH_S)

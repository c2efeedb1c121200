"""Roll-out: which models decide, what waits, the two arms, and the buttons that change it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Final

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import AsyncLoanPredictorClient, CallFailed
from loan_predictor_client.models import (
    BundleList,
    RolloutEntry,
    RolloutReport,
    RolloutStatus,
    ShadowReport,
)
from services.dashboard.authentication import root_of, session_of
from services.dashboard.evidence import attempted
from services.dashboard.frame import frame
from services.dashboard.live import Loader, Region, Values, explain, signed_out
from services.dashboard.sessions import SignedOut
from services.dashboard.templating import part
from services.dashboard.watch import Watch

REFRESH_S: Final = 2.0
_COMPARE_S: Final = 20.0
"""How old comparisons may get while nothing changes: they read more than the state does."""

Change = Callable[[AsyncLoanPredictorClient, int, str], Awaitable[RolloutEntry]]
_CHANGES: Final[Mapping[str, Change]] = {
    "promote": lambda api, epoch, reason: api.promote(epoch=epoch, reason=reason),
    "roll back": lambda api, epoch, reason: api.roll_back(epoch=epoch, reason=reason),
    "approve": lambda api, epoch, _: api.approve_rollout(epoch),
}


class _Comparisons:
    """The comparisons that a page shows, read again every ``_COMPARE_S`` and after a change."""

    def __init__(self) -> None:
        self._found: tuple[ShadowReport, RolloutReport | None] | None = None
        self._epoch = 0
        self._expire_at_s = 0.0

    async def of(
        self, api: AsyncLoanPredictorClient, status: RolloutStatus
    ) -> tuple[ShadowReport, RolloutReport | None]:
        """Of shadows, and of the arms; the latter is None if no candidate had a share."""
        epoch = status.active.epoch if status.active else 0
        if self._found is None or epoch != self._epoch or monotonic() >= self._expire_at_s:
            shadows, report = await asyncio.gather(
                api.shadow_report(), attempted(api.rollout_report())
            )
            self._found, self._epoch = (shadows, report.value), epoch
            self._expire_at_s = monotonic() + _COMPARE_S
        return self._found


def state(
    status: RolloutStatus,
    report: RolloutReport | None,
    shadows: ShadowReport,
    bundles: BundleList,
) -> Markup:
    """What decides, who follows, how arms and shadows compare, and what came before."""
    return part(
        "rollout",
        "state",
        status=status,
        report=report,
        shadows=shadows,
        bundles=bundles.bundles,
    )


def form(status: RolloutStatus) -> Markup:
    """The buttons that make sense now."""
    return part("rollout", "form", status=status)


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/rollout")
    def page(request: Request) -> None:
        session = session_of(request.scope)
        offered: list[object] = []
        comparisons = _Comparisons()

        async def fetch() -> Markup:
            api = session.api
            status, bundles = await asyncio.gather(api.rollout(), api.bundles())
            shadows, report = await comparisons.of(api, status)
            # Only when it changes: somebody may be writing a reason.
            offer = [status.epoch, status.active, status.proposed]
            if offer != offered:
                offered[:] = offer
                buttons.show(form(status))
            return state(status, report, shadows, bundles)

        async def change(values: Values) -> None:
            make = _CHANGES[values["change"]]
            try:
                entry = await make(session.api, int(values["epoch"]), values["reason"].strip())
                notice.show(part("rollout", "changed", entry=entry))
            except SignedOut:
                notice.show(signed_out())
            except CallFailed as error:
                notice.show(explain(error))

        with frame(request, "rollout", watch=watch):
            notice = Region("notice", spoken=True)
            buttons = Region("change")
            Region("more", part("rollout", "more", root=root_of(request.scope)))
            Loader("rollout", fetch, every_s=REFRESH_S)
            buttons.on_submit(change)

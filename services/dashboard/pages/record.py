"""Record: one decision in full, as it was answered."""

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import CallFailed
from services.dashboard.evidence import evidence_of
from services.dashboard.frame import frame
from services.dashboard.gate import root_of, session_of
from services.dashboard.live import Loader, Region, explain, signed_out
from services.dashboard.sessions import SignedOut
from services.dashboard.templating import part
from services.dashboard.watch import Watch

_ERASE = "erase"


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/history/{prediction_id}")
    def page(request: Request, prediction_id: str) -> None:
        session, root = session_of(request.scope), root_of(request.scope)

        async def fetch(*, asked: bool = False) -> Markup:
            evidence = await evidence_of(session.api, prediction_id, asked=asked)
            return part("record", "record", evidence=evidence, root=root)

        async def pressed(what: str) -> None:
            try:
                if what == _ERASE:
                    erasure = await session.api.erase(prediction_id)
                    loader.region.show(part("record", "erased", erasure=erasure, root=root))
                else:
                    loader.region.show(await fetch(asked=True))
            except SignedOut:
                notice.show(signed_out())
            except CallFailed as error:
                notice.show(explain(error))

        with frame(request, "record", watch=watch):
            loader = Loader("record", fetch)
            notice = Region("notice", spoken=True)
            loader.region.on_press(pressed)

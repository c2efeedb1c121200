"""What if: a period decided again by another rule, started, followed and shown."""

import asyncio
from contextlib import suppress
from typing import Final

from fastapi import Request
from markupsafe import Markup
from nicegui import ui
from pydantic import ValidationError

from loan_predictor_client import AsyncLoanPredictorClient, CallFailed
from loan_predictor_client.models import WhatIfStatus
from services.dashboard.authentication import root_of, session_of
from services.dashboard.batches import is_identifier
from services.dashboard.frame import frame
from services.dashboard.live import Loader, Region, Values, explain, signed_out
from services.dashboard.sessions import Session, SignedOut
from services.dashboard.templating import part
from services.dashboard.watch import Watch
from services.dashboard.what_ifs import COSTS, order_of, rule_fields, unreadable_fields

REFRESH_S: Final = 0.5
LIST_S: Final = 2.0
_AT_WORK: Final = ("queued", "running")


async def form(api: AsyncLoanPredictorClient, root: str) -> Markup:
    """The form, which begins with the candidate of the roll-out in force, if it has one."""
    bundles, status = await asyncio.gather(api.bundles(), api.rollout())
    candidate = status.active and status.active.rollout.candidate
    chosen = f"{candidate.bundle}/{candidate.model}" if candidate else ""
    return part(
        "what_if", "form", rule=rule_fields(bundles.bundles), costs=COSTS, chosen=chosen, root=root
    )


def state(asked: WhatIfStatus, root: str) -> Markup:
    """How a what-if stands."""
    return part("what_if", "state", asked=asked, ended=asked.state not in _AT_WORK, root=root)


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/rollout/what-if")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)
        identifier = request.query_params.get("id", "")
        with frame(request, "what_if", watch=watch):
            if is_identifier(identifier):
                _follow(session, identifier, root)
            else:
                _ask(session, root)


def _ask(session: Session, root: str) -> None:
    async def ask(values: Values) -> None:
        try:
            asked = await session.api.ask_what_if(order_of(values))
        except ValidationError as error:
            notice.show(part("what_if", "unreadable", names=unreadable_fields(error)))
        except SignedOut:
            notice.show(signed_out())
        except CallFailed as error:
            notice.show(explain(error))
        else:
            # NiceGUI itself adds the path below which the dashboard is served.
            ui.navigate.to(f"/rollout/what-if?id={asked.id}")

    async def fetch() -> Markup:
        return part("what_if", "asked", what_ifs=(await session.api.what_ifs()).items, root=root)

    notice = Region("notice", spoken=True)
    # Once: somebody may be filling it in.
    Loader("order", lambda: form(session.api, root)).region.on_submit(ask)
    Loader("asked", fetch, every_s=LIST_S)


def _follow(session: Session, identifier: str, root: str) -> None:
    async def fetch() -> Markup:
        asked = await session.api.what_if(identifier)
        if asked.state in _AT_WORK:
            ui.timer(REFRESH_S, loader.load, once=True)
        return state(asked, root)

    async def cancel(_: str) -> None:
        # The page says by itself how it stands.
        with suppress(CallFailed, SignedOut):
            await session.api.cancel_what_if(identifier)
        await loader.load()

    loader = Loader("what-if", fetch)
    loader.region.on_press(cancel)

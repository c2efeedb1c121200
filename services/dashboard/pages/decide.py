"""Decide: one application, decided by the champion or shown to all models."""

from collections.abc import Sequence
from typing import Final

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import CallFailed, InvalidRequest
from loan_predictor_client.models import Fault
from services.dashboard.frame import frame
from services.dashboard.gate import root_of, session_of
from services.dashboard.inputs import DEFAULTS, SECTIONS
from services.dashboard.live import Region, Values, explain, loading, signed_out
from services.dashboard.sessions import SignedOut
from services.dashboard.templating import part
from services.dashboard.watch import Watch

_NAMES: Final = frozenset(field.name for fields in SECTIONS.values() for field in fields)


def application_of(values: Values) -> dict[str, object]:
    """The application in the values of the form; an empty field is missing."""
    return {name: values[name].strip() or None for name in values if name in _NAMES}


def form(values: Values, faults: Sequence[Fault] = ()) -> Markup:
    """The form with these values, each fault beside its field."""
    return part("decide", "form", sections=SECTIONS, values=values, faults=faults)


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)
        with (
            frame(request, "decide", watch=watch),
            ui.element("div").classes("lp-grid lp-decide"),
        ):
            application = Region("application", form(DEFAULTS))
            result = Region("result", part("decide", "nothing_yet"), spoken=True)

        async def answer(values: Values) -> Markup:
            body = application_of(values)
            if values.get("ask") == "all":
                return part("decide", "comparison", benchmark=await session.api.benchmark(body))
            return part("decide", "decision", decision=await session.api.predict(body), root=root)

        async def ask(values: Values) -> None:
            result.show(loading())
            faults: tuple[Fault, ...] = ()
            try:
                shown = await answer(values)
            except InvalidRequest as error:
                shown, faults = part("decide", "nothing_yet"), error.validation_errors
            except SignedOut:
                shown = signed_out()
            except CallFailed as error:
                shown = explain(error)
            result.show(shown)
            application.show(form(values, faults))
            ui.run_javascript(_FOCUS_FAULT if faults else _SHOW_RESULT)

        application.on_submit(ask)


_FOCUS_FAULT: Final = "document.querySelector('[aria-invalid=true]')?.focus()"
# On a wide page both are visible side by side.
_SHOW_RESULT: Final = """if (innerWidth < 900)
  document.querySelector('[data-region=result]').scrollIntoView({block: 'start'});"""

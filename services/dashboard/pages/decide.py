"""Decide: one application, decided by the champion or shown to all models."""

from collections.abc import Sequence
from typing import Final

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import CallFailed, Filters, InvalidRequest
from loan_predictor_client.models import Fault
from services.dashboard.forms import FormField
from services.dashboard.frame import frame
from services.dashboard.gate import root_of, session_of
from services.dashboard.inputs import MUST_BE_CHOSEN, NOT_KNOWN, SECTIONS
from services.dashboard.live import Region, Values, explain, loading, signed_out
from services.dashboard.sessions import Session, SignedOut
from services.dashboard.templating import NOTHING, part
from services.dashboard.watch import Watch
from shared.files.spellings import without_groups

_LOAN_ID: Final = "Loan_ID"
_FIELDS: Final = tuple(field for fields in SECTIONS.values() for field in fields)
_UNCHOSEN: Final = f"must be chosen; {NOT_KNOWN} is a choice, too"


def application_of(values: Values) -> dict[str, object]:
    """The application in the values of the form; what is empty or not known is missing."""
    return {field.name: _given(field, values.get(field.name, "")) for field in _FIELDS}


def _given(field: FormField, text: str) -> str | None:
    text = text.strip()
    if field.is_number:
        text = without_groups(text)
    return None if not text or (field.options and text == NOT_KNOWN) else text


def unchosen(values: Values) -> list[Fault]:
    """The fields that need a choice and have none."""
    return [
        Fault(field=field.name, message=_UNCHOSEN)
        for field in _FIELDS
        if field.name in MUST_BE_CHOSEN and not values.get(field.name)
    ]


def form(values: Values, faults: Sequence[Fault] = ()) -> Markup:
    """The form with these values, each fault beside its field."""
    return part("decide", "form", sections=SECTIONS, values=values, faults=faults)


async def decided_before(session: Session, loan_id: str, root: str) -> Markup:
    """A warning if ``loan_id`` has a decision already; nothing where the history cannot say."""
    if not loan_id.strip():
        return NOTHING
    try:
        found = await session.api.history(Filters(loan_id=loan_id.strip()), limit=1)
    except (CallFailed, SignedOut):
        return NOTHING
    return part("decide", "decided_before", records=found.items, root=root)


async def _answer(session: Session, values: Values, root: str) -> tuple[Markup, list[Fault]]:
    """What the form is answered with, and the faults that keep it from being sent."""
    application = application_of(values)
    faults = unchosen(values)
    if faults:
        report = await session.api.validate(application)
        return part("decide", "nothing_yet"), faults + report.validation_errors
    if values.get("ask") == "all":
        return part("decide", "comparison", benchmark=await session.api.benchmark(application)), []
    return part(
        "decide", "decision", decision=await session.api.predict(application), root=root
    ), []


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)
        with (
            frame(request, "decide", watch=watch),
            ui.element("div").classes("lp-grid lp-decide"),
        ):
            with ui.element("div").classes("lp-stack"):
                before = Region("decided-before", spoken=True)
                application = Region("application", form({}))
            result = Region("result", part("decide", "nothing_yet"), spoken=True)

        async def changed(name: str, value: str) -> None:
            if name == _LOAN_ID:
                before.show(await decided_before(session, value, root))

        async def ask(values: Values) -> None:
            result.show(loading())
            faults: Sequence[Fault] = ()
            try:
                shown, faults = await _answer(session, values, root)
            except InvalidRequest as error:
                shown, faults = part("decide", "nothing_yet"), error.validation_errors
            except SignedOut:
                shown = signed_out()
            except CallFailed as error:
                shown = explain(error)
            result.show(shown)
            application.show(form(values, faults))
            ui.run_javascript(_FOCUS_FAULT if faults else _SHOW_RESULT)

        application.on_change(changed)
        application.on_submit(ask)


_FOCUS_FAULT: Final = "document.querySelector('[aria-invalid=true]')?.focus()"
# On a wide page both are visible side by side.
_SHOW_RESULT: Final = """if (innerWidth < 900)
  document.querySelector('[data-region=result]').scrollIntoView({block: 'start'});"""

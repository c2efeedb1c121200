"""Decide: one application, decided by the champion or shown to all models."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, NamedTuple
from uuid import UUID, uuid4

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import CallFailed, Filters, InvalidRequest
from loan_predictor_client.models import Application, Explanation, Fault
from services.dashboard.authentication import root_of, session_of
from services.dashboard.evidence import Attempt, attempted, explained
from services.dashboard.forms import FormField
from services.dashboard.frame import frame
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
    # Until now, because the form may be sent while this is looked up.
    earlier = Filters(loan_id=loan_id.strip(), until=datetime.now(UTC))
    try:
        found = await session.api.history(earlier, limit=1)
    except (CallFailed, SignedOut):
        return NOTHING
    return part("decide", "decided_before", records=found.items, root=root)


class _Answer(NamedTuple):
    """What the form is answered with."""

    shown: Markup
    faults: Sequence[Fault] = ()
    application: Application | None = None
    """As the service read it."""
    why: Markup = NOTHING
    prediction_id: UUID | None = None


class _Page(NamedTuple):
    """An open page, to which the same application is the same decision."""

    session: Session
    root: str
    identifier: str

    def key_of(self, application: Mapping[str, object]) -> str:
        """The Idempotency-Key: who presses twice, or again after an outage, decides once."""
        return f"dashboard-{sha256(f'{self.identifier} {application}'.encode()).hexdigest()}"


async def _answer(page: _Page, values: Values, before: UUID | None) -> _Answer:
    session = page.session
    application = application_of(values)
    faults = unchosen(values)
    if faults:
        report = await session.api.validate(application)
        return _Answer(part("decide", "nothing_yet"), faults + report.validation_errors)
    if values.get("ask") == "all":
        benchmark = await session.api.benchmark(application)
        shown = part("decide", "comparison", benchmark=benchmark)
        return _Answer(shown, application=benchmark.input_data)
    decision = await session.api.predict(application, idempotency_key=page.key_of(application))
    explanation = await explained(session.api, decision, asked=False)
    shown = part(
        "decide",
        "decision",
        decision=decision,
        explanation=explanation,
        again=decision.prediction_id == before,
        root=page.root,
    )
    why = _why(explanation, decision.input_data) if explanation.value else NOTHING
    return _Answer(
        shown, application=decision.input_data, why=why, prediction_id=decision.prediction_id
    )


async def _safe_answer(page: _Page, values: Values, before: UUID | None) -> _Answer:
    """The answer, or in its place what went wrong; ``before`` is the decision that is shown."""
    try:
        return await _answer(page, values, before)
    except InvalidRequest as error:
        return _Answer(part("decide", "nothing_yet"), error.validation_errors)
    except SignedOut:
        return _Answer(signed_out())
    except CallFailed as error:
        return _Answer(explain(error))


def _why(explanation: Attempt[Explanation], application: Application, model: str = "") -> Markup:
    return part("decide", "why", explanation=explanation, application=application, model=model)


def _outdated(answered: _Answer, *, edited: bool) -> Markup:
    """A note if the answer is not on what the form shows: it was ``edited`` since it was sent."""
    return part("decide", "outdated") if edited and answered.application else NOTHING


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)
        opened = _Page(session, root, uuid4().hex)
        answered = _Answer(part("decide", "nothing_yet"))
        edited = False
        with frame(request, "decide", watch=watch):
            with ui.element("div").classes("lp-grid lp-decide"):
                with ui.element("div").classes("lp-stack"):
                    before = Region("decided-before", spoken=True)
                    form_region = Region("application", form({}))
                with ui.element("div").classes("lp-stack"):
                    outdated = Region("outdated", spoken=True)
                    result = Region("result", answered.shown, spoken=True)
            why = Region("why", spoken=True)

        async def changed(name: str, value: str) -> None:
            nonlocal edited
            edited = True
            outdated.show(_outdated(answered, edited=edited))
            if name == _LOAN_ID:
                before.show(await decided_before(session, value, root))

        async def ask(values: Values) -> None:
            nonlocal answered, edited
            edited = False
            outdated.show(NOTHING)
            result.show(loading())
            why.show(NOTHING)
            corrected = bool(answered.faults)
            answered = await _safe_answer(opened, values, answered.prediction_id)
            result.show(answered.shown)
            why.show(answered.why)
            outdated.show(_outdated(answered, edited=edited))
            if answered.faults or corrected:
                # Otherwise the form stays, with what was typed since it was sent.
                form_region.show(form(values, answered.faults))
            ui.run_javascript(_FOCUS_FAULT if answered.faults else _SHOW_RESULT)

        async def pressed(what: str) -> None:
            application, model = answered.application, what.removeprefix("why:")
            if application is None:
                return
            try:
                asked = session.api.explain(application, model=model)
            except SignedOut:
                why.show(signed_out())
            else:
                why.show(_why(await attempted(asked), application, model))
                ui.run_javascript(_SHOW_WHY)

        form_region.on_change(changed)
        form_region.on_submit(ask)
        result.on_press(pressed)


_FOCUS_FAULT: Final = "document.querySelector('[aria-invalid=true]')?.focus()"
# On a wide page both are visible side by side.
_SHOW_RESULT: Final = """if (innerWidth < 900)
  document.querySelector('[data-region=result]').scrollIntoView({block: 'start'});"""
_SHOW_WHY: Final = "document.querySelector('[data-region=why]').scrollIntoView({block: 'nearest'});"

"""Decide: an application in, a decision out, or the opinion of all models."""

from collections.abc import Mapping, Sequence
from typing import Final

from fastapi import Request
from markupsafe import Markup
from nicegui import ui

from loan_predictor_client import CallFailed, InvalidRequest
from loan_predictor_client.models import Benchmark, Decision, Fault
from services.dashboard import charts, markup
from services.dashboard.formatting import amount, field_title, model_title, moment, percent
from services.dashboard.frame import frame
from services.dashboard.gate import root_of, session_of
from services.dashboard.live import SIGNED_OUT, Region, Values, explain
from services.dashboard.markup import UNITS, Field, Option
from services.dashboard.sessions import SignedOut
from services.dashboard.watch import Watch
from shared.contract.events import EXAMPLE

_UNKNOWN: Final = Option("", "Not given")


def _choice(name: str, *values: str, help: str = "") -> Field:  # noqa: A002
    options = [Option(value, value) for value in values]
    return Field(name, field_title(name), options=(*options, _UNKNOWN), help=help)


def _quantity(name: str, *, help: str = "", required: bool = False) -> Field:  # noqa: A002
    return Field(name, field_title(name), unit=UNITS[name], help=help, required=required)


FIELDS: Final[Mapping[str, Sequence[Field]]] = {
    "Income": (
        _quantity("ApplicantIncome", required=True),
        _quantity("CoapplicantIncome", help="Empty means that none was declared."),
    ),
    "Loan": (
        _quantity("LoanAmount"),
        _quantity("Loan_Amount_Term"),
        Field(
            "Credit_History",
            field_title("Credit_History"),
            options=(
                Option("1", "Met its guidelines"),
                Option("0", "Did not meet them"),
                _UNKNOWN,
            ),
        ),
        _choice("Property_Area", "Urban", "Semiurban", "Rural"),
    ),
    "Applicant": (
        _choice("Dependents", "0", "1", "2", "3+"),
        _choice("Education", "Graduate", "Not Graduate"),
        _choice("Self_Employed", "No", "Yes"),
        Field("Loan_ID", field_title("Loan_ID"), help="Your own number, to find it again."),
    ),
    "Recorded to watch fairness, never scored": (
        _choice("Gender", "Female", "Male"),
        _choice("Married", "Yes", "No"),
    ),
}
"""The form, by its sections."""

DEFAULTS: Final[Values] = {name: str(value) for name, value in EXAMPLE.items()} | {
    "Loan_ID": "",
    "Gender": "",
    "Married": "",
}
_NAMES: Final = [field.name for fields in FIELDS.values() for field in fields]

_FORM: Final = Markup(
    '<form class="lp-card" novalidate aria-label="Application">{fault}{sections}'
    '<div class="lp-actions">'
    '<button class="lp-button" type="submit" name="ask" value="one">Decide</button>'
    '<button class="lp-button lp-plain" type="submit" name="ask" value="all">'
    "Ask all four models</button></div>"
    '<p class="lp-help">A decision is recorded. Asking all models is not.</p></form>'
)


def application_of(values: Values) -> dict[str, object]:
    """The application that a form's values say; an empty field is missing."""
    return {name: values[name].strip() or None for name in _NAMES if name in values}


def form(values: Values, faults: Sequence[Fault] = ()) -> Markup:
    """The form with these values, each fault beside its field."""
    sections = markup.join(
        Markup('<fieldset><legend>{}</legend><div class="lp-fields{}">{}</div></fieldset>').format(
            title,
            "" if any(spec.unit for spec in specs) else " lp-tight",
            markup.join(
                markup.field(spec, value=values.get(spec.name, ""), faults=faults) for spec in specs
            ),
        )
        for title, specs in FIELDS.items()
    )
    elsewhere = [f"{fault.field} {fault.message}" for fault in faults if fault.field not in _NAMES]
    count = len(faults)
    fault = (
        markup.listed(
            f"{count} field{'s' if count > 1 else ''} to mend before this can be decided",
            elsewhere or ["Each is named below."],
            kind="bad",
        )
        if faults
        else markup.EMPTY
    )
    return _FORM.format(fault=fault, sections=sections)


NOTHING_YET: Final = markup.empty(
    "No decision yet",
    "Fill in what is known and decide. Whatever is missing is filled in by the model, and said so.",
)


def decided(decision: Decision, root: str) -> Markup:
    """A decision with everything that was answered."""
    approved = decision.prediction == "Approved"
    model = decision.model_info
    return Markup(
        '<section class="lp-card" aria-label="Decision"><div class="lp-verdict">{ring}<div>'
        '<h2 class="lp-{kind}" data-figure="prediction">{prediction}</h2>'
        '<span class="lp-muted">with a confidence of '
        '<b data-figure="confidence">{confidence}</b></span></div></div>{split}{filled}{warnings}'
        '{facts}<div class="lp-actions"><a class="lp-button lp-plain"'
        ' href="{root}/history/{id}">See the record</a></div></section>'
    ).format(
        ring=charts.ring(
            decision.confidence,
            approved=approved,
            label=f"Confidence {percent(decision.confidence)}",
        ),
        kind="yes" if approved else "no",
        prediction=decision.prediction,
        confidence=percent(decision.confidence),
        split=charts.split(decision.probability),
        filled=markup.listed(
            "Missing, and filled in by the model", [field_title(name) for name in decision.imputed]
        ),
        warnings=markup.listed("Worth a second look", decision.warnings, kind="warned"),
        facts=markup.pairs(
            (
                ("Model", model_title(model.name)),
                ("Its accuracy in cross-validation", percent(model.accuracy)),
                ("Bundle", model.version),
                ("Decided", moment(decision.timestamp)),
            )
        ),
        root=root,
        id=decision.prediction_id,
    )


def compared(benchmark: Benchmark) -> Markup:
    """All models side by side, below what they say together."""
    consensus = benchmark.consensus
    approved = consensus.prediction == "Approved"
    rows = markup.join(
        Markup(
            '<div class="lp-stack" style="gap:8px" data-model="{name}"><header class="lp-actions">'
            "<h3>{title}</h3>{tag}</header>{split}"
            '<span class="lp-help">answered in {ms} ms</span></div>'
        ).format(
            name=name,
            title=model_title(name),
            tag=markup.verdict_tag(result.prediction),
            split=charts.split(result.probability),
            ms=f"{result.prediction_time_ms:.2f}",
        )
        for name, result in benchmark.results.items()
    )
    return Markup(
        '<section class="lp-card" aria-label="All models"><div class="lp-verdict">{ring}<div>'
        '<h2 class="lp-{kind}" data-figure="consensus">{prediction}</h2>'
        '<span class="lp-muted"><b data-figure="agree">{agree}</b> of {total} models agree</span>'
        "</div></div>{warnings}{rows}"
        '<p class="lp-help">Nothing of this was recorded.</p></section>'
    ).format(
        ring=charts.ring(
            consensus.agreement,
            approved=approved,
            label=f"{percent(consensus.agreement)} of the models agree",
        ),
        kind="yes" if approved else "no",
        prediction=consensus.prediction,
        agree=consensus.models_agree,
        total=consensus.total_models,
        warnings=markup.listed("Worth a second look", benchmark.warnings, kind="warned"),
        rows=rows,
    )


def register(watch: Watch) -> None:
    """Register the page."""

    @ui.page("/")
    def page(request: Request) -> None:
        session, root = session_of(request.scope), root_of(request.scope)
        with (
            frame(
                request,
                title="Decide",
                lead=f"Incomes are per month, the loan in thousands: {amount(128)} means 128,000.",
                watch=watch,
            ),
            ui.element("div").classes("lp-grid lp-decide"),
        ):
            application = Region("application", form(DEFAULTS))
            result = Region("result", NOTHING_YET, spoken=True)

        async def answer(values: Values) -> Markup:
            body = application_of(values)
            if values.get("ask") == "all":
                return compared(await session.api.benchmark(body))
            return decided(await session.api.predict(body), root)

        async def ask(values: Values) -> None:
            result.show(markup.WAITING)
            faults: tuple[Fault, ...] = ()
            try:
                shown = await answer(values)
            except InvalidRequest as error:
                shown, faults = NOTHING_YET, error.validation_errors
            except SignedOut:
                shown = SIGNED_OUT
            except CallFailed as error:
                shown = explain(error)
            result.show(shown)
            application.show(form(values, faults))
            ui.run_javascript(_FOCUS_FAULT if faults else _SHOW_RESULT)

        application.on_submit(ask)


_FOCUS_FAULT: Final = "document.querySelector('[aria-invalid=true]')?.focus()"
# Where both fit side by side nothing has to move.
_SHOW_RESULT: Final = """if (innerWidth < 900)
  document.querySelector('[data-region=result]').scrollIntoView({block: 'start'});"""

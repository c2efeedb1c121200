"""Small pieces of HTML; whatever is not markup already is escaped."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from loan_predictor_client.models import Application, Fault
from services.dashboard.formatting import NONE, NOT_GIVEN, amount, credit_history, field_title
from shared.contract.events import Prediction

EMPTY: Final = Markup("")
WAITING: Final = Markup(
    '<div class="lp-wait" role="status"><span class="lp-hidden">Loading</span></div>'
)


def join(parts: Iterable[Markup]) -> Markup:
    """The parts one after the other."""
    return EMPTY.join(parts)


def card(title: str, *content: Markup, aside: Markup | str = EMPTY) -> Markup:
    """A card with a heading; ``aside`` stands opposite of it."""
    return Markup(
        '<section class="lp-card"><header><h2>{}</h2><span class="lp-muted lp-small">{}</span>'
        "</header>{}</section>"
    ).format(title, aside, join(content))


def verdict_tag(prediction: Prediction) -> Markup:
    """A decision's outcome as a tag."""
    kind = "yes" if prediction == "Approved" else "no"
    return Markup('<span class="lp-tag lp-{}">{}</span>').format(kind, prediction)


def note(title: str, *lines: str, kind: str = "") -> Markup:
    """A box that stands out: ``kind`` is warned, bad or nothing."""
    content = join(Markup("<p>{}</p>").format(line) for line in lines)
    return Markup('<div class="lp-note lp-{}"><strong>{}</strong>{}</div>').format(
        kind, title, content
    )


def listed(title: str, lines: Sequence[str], *, kind: str = "") -> Markup:
    """A box with a list; nothing where there is nothing to list."""
    if not lines:
        return EMPTY
    items = join(Markup("<li>{}</li>").format(line) for line in lines)
    return Markup('<div class="lp-note lp-{}"><strong>{}</strong><ul>{}</ul></div>').format(
        kind, title, items
    )


def empty(title: str, text: str) -> Markup:
    """What is said where there is nothing yet."""
    return Markup('<div class="lp-card lp-empty"><h2>{}</h2><p>{}</p></div>').format(title, text)


def pairs(values: Iterable[tuple[str, object]]) -> Markup:
    """Names and values side by side."""
    return Markup('<dl class="lp-pairs">{}</dl>').format(
        join(
            Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, value)
            for name, value in values
        )
    )


def figures(values: Iterable[tuple[str, str, str]]) -> Markup:
    """Large figures, given as (key, name, figure)."""
    return Markup('<dl class="lp-figures">{}</dl>').format(
        join(
            Markup('<div class="lp-figure"><dt>{}</dt><dd data-figure="{}">{}</dd></div>').format(
                name, key, figure
            )
            for key, name, figure in values
        )
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str) -> Markup:
    """A table whose rows become cards where there is no room; the first cell heads its row."""

    def row(cells: Sequence[object]) -> Markup:
        first = Markup('<th scope="row">{}</th>').format(cells[0])
        others = join(
            Markup('<td data-label="{}"{}>{}</td>').format(
                name, Markup(' class="lp-nothing"') if cell == NONE else EMPTY, cell
            )
            for name, cell in zip(head[1:], cells[1:], strict=True)
        )
        return Markup("<tr>{}{}</tr>").format(first, others)

    return Markup(
        '<table class="lp-rows"><caption class="lp-hidden">{}</caption><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table>"
    ).format(
        caption,
        join(Markup('<th scope="col">{}</th>').format(name) for name in head),
        join(map(row, rows)),
    )


class Option(NamedTuple):
    """One choice of a field: its value, and what is read."""

    value: str
    text: str


class Field(NamedTuple):
    """One field of a form. With ``options`` it is a choice, otherwise a line of text."""

    name: str
    label: str
    options: Sequence[Option] = ()
    unit: str = ""
    help: str = ""
    kind: str = "text"
    required: bool = False


def field(spec: Field, *, value: str, faults: Sequence[Fault]) -> Markup:
    """A field with its label, and below it what is wrong with it."""
    wrong = [fault.message for fault in faults if fault.field == spec.name]
    described = [f"{spec.name}-fault"] if wrong else []
    described += [f"{spec.name}-help"] if spec.help else []
    common = Markup(' id="{n}" name="{n}"{invalid}{described}{required}').format(
        n=spec.name,
        invalid=Markup(' aria-invalid="true"') if wrong else EMPTY,
        described=Markup(' aria-describedby="{}"').format(" ".join(described))
        if described
        else EMPTY,
        required=Markup(' aria-required="true"') if spec.required else EMPTY,
    )
    if spec.options:
        control = _choice(spec, value, common)
    else:
        mode = Markup(' inputmode="decimal"') if spec.unit else EMPTY
        control = Markup('<input type="{}" value="{}"{}{} autocomplete="off">').format(
            spec.kind, value, mode, common
        )
        if spec.unit:
            control = Markup(
                '<div class="lp-with-unit">{}<span class="lp-unit" aria-hidden="true">{}</span>'
                "</div>"
            ).format(control, spec.unit)
    return Markup(
        '<div class="lp-field{wrong}"><label for="{n}">{label}{spoken}</label>{control}'
        "{fault}{help}</div>"
    ).format(
        wrong=" lp-wrong" if wrong else "",
        n=spec.name,
        label=spec.label,
        spoken=Markup('<span class="lp-hidden"> ({})</span>').format(spec.unit)
        if spec.unit
        else EMPTY,
        control=control,
        fault=Markup('<span class="lp-error" id="{}-fault">{}</span>').format(
            spec.name, "; ".join(wrong)
        )
        if wrong
        else EMPTY,
        help=Markup('<span class="lp-help" id="{}-help">{}</span>').format(spec.name, spec.help)
        if spec.help
        else EMPTY,
    )


def _choice(spec: Field, value: str, common: Markup) -> Markup:
    options = join(
        Markup('<option value="{}"{}>{}</option>').format(
            option.value, Markup(" selected") if option.value == value else EMPTY, option.text
        )
        for option in spec.options
    )
    return Markup("<select{}>{}</select>").format(common, options)


def application_pairs(application: Application) -> Markup:
    """An application with its units."""
    values: list[tuple[str, object]] = []
    for name, value in application.model_dump().items():
        unit = UNITS.get(name)
        if name == "Credit_History":
            shown: object = credit_history(value)
        elif unit:
            shown = amount(value, unit)
        else:
            shown = NOT_GIVEN if value is None else value
        values.append((field_title(name), shown))
    return pairs(values)


UNITS: Final = {
    "ApplicantIncome": "per month",
    "CoapplicantIncome": "per month",
    "LoanAmount": "thousand",
    "Loan_Amount_Term": "months",
}
"""What a quantity is measured in."""

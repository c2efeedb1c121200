"""The inputs of an application as people see them, derived from their definition."""

from collections.abc import Iterable, Mapping
from typing import Final, get_args

from loan_predictor_client import Application
from loan_predictor_client.models import Attribute, Characteristic, ModelScorecard, Summary
from services.dashboard.formatting import NOT_GIVEN, amount, points
from services.dashboard.forms import FormField, Option
from shared.contract.application import COUNTS_AS_ZERO, FIELDS, Field, Section
from shared.pictures.formats import field_title

_FIELDS: Final = {field.name: field for field in FIELDS}
_MISSING: Final = "missing"
"""The history service's name for the group of decisions without a value."""
_AFTER_A_NUMBER: Final = {"thousands": "thousand"}
_SECTIONS_BY_USE: Final = {
    "identifier": "Application",
    "monitored": "Recorded to watch fairness, never scored",
    "recorded": "Recorded, never scored",
}


MUST_BE_CHOSEN: Final = frozenset({"Credit_History"})
"""Categories that decide so much that leaving one out is a choice of its own, ``NOT_KNOWN``."""
NOT_KNOWN: Final = "not known"
NONE_DECLARED: Final = "none declared"
"""For a missing input that counts as zero."""


def filled_in(imputed: Iterable[str]) -> list[str]:
    """The missing inputs that the model fills in."""
    return [name for name in imputed if name not in COUNTS_AS_ZERO]


def field_text(value: object, name: str) -> str:
    """A value of the input ``name`` in words, with its unit."""
    field = _FIELDS.get(name)
    if value is None:
        return NONE_DECLARED if name in COUNTS_AS_ZERO else NOT_GIVEN
    if field is None:
        return str(value)
    if isinstance(value, int | float) and not field.allowed:
        return amount(value, _AFTER_A_NUMBER.get(field.unit or "", field.unit or ""))
    return field.labels_by_value.get(str(value), str(value))


def application_pairs(application: Application) -> list[tuple[str, str]]:
    """Each input's title and value."""
    return [
        (field_title(name), field_text(value, name))
        for name, value in application.model_dump().items()
    ]


def point_lines(scorecard: ModelScorecard) -> list[tuple[str, str, str]]:
    """Each attribute of a scorecard: its characteristic, what it is, and its points."""
    lines = []
    for each in scorecard.characteristics:
        if each.coefficient is not None:
            name = each.name[0].upper() + each.name[1:]
            coefficient = f"{each.coefficient:+.2g}".replace("-", "\u2212")
            lines.append((name, f"times its value ({each.unit})", coefficient))
        lines += [
            (each.name, _attribute_text(attribute, each), points(attribute.points))
            for attribute in each.attributes
        ]
    return lines


def _attribute_text(attribute: Attribute, characteristic: Characteristic) -> str:
    if attribute.value is not None:
        value = None if attribute.value == _MISSING else attribute.value
        return field_text(value, characteristic.inputs[0])
    limits = (
        (word, limit) for word, limit in (("above", attribute.above), ("up to", attribute.up_to))
    )
    unit = characteristic.unit or ""
    return (
        ", ".join(f"{word} {amount(limit)}" for word, limit in limits if limit is not None)
        + f" {unit}"
    )


def by_value(name: str, groups: Mapping[str, Summary]) -> list[tuple[str, str, Summary]]:
    """Groups of decisions by the value of an input, in its order: (value, title, summary)."""
    labels = _FIELDS[name].labels_by_value | {_MISSING: NOT_GIVEN.capitalize()}
    order = [value for value in labels if value in groups]
    order += [value for value in groups if value not in labels]
    return [(value, labels.get(value, value), groups[value]) for value in order]


def _form_field(field: Field) -> FormField:
    options = [Option(value, label) for value, label in field.labels_by_value.items()]
    must_be_chosen = field.name in MUST_BE_CHOSEN
    if must_be_chosen:
        options = [Option("", "Choose\u2026"), *options, Option(NOT_KNOWN, NOT_KNOWN.capitalize())]
    elif options and not field.required:
        options.insert(0, Option("", NOT_GIVEN.capitalize()))
    help_ = [field.help] if field.help else []
    if field.unit == "thousands" and isinstance(field.example, int):
        help_.append(f"{amount(field.example)} means {amount(field.example * 1000)}.")
    return FormField(
        field.name,
        field.title,
        options=options,
        unit=field.unit or "",
        help=" ".join(help_),
        is_number=field.kind in ("number", "integer"),
        required=field.required or must_be_chosen,
    )


def _sections(fields: Iterable[Field]) -> dict[str, list[FormField]]:
    first, *last = _SECTIONS_BY_USE.values()
    sections: dict[str, list[FormField]] = {
        title: [] for title in (first, *get_args(Section), *last)
    }
    for field in fields:
        sections[_SECTIONS_BY_USE.get(field.use, field.section)].append(_form_field(field))
    return {title: fields for title, fields in sections.items() if fields}


SECTIONS: Final = _sections(FIELDS)
"""The form of an application: its fields by the title of their section."""

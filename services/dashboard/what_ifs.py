"""What-ifs: the form of an order, the order in it, and what the pictures show."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from loan_predictor_client.models import Estimated, RegisteredBundle, Swaps, WhatIf
from services.dashboard.forms import FormField, Option
from shared.pictures.formats import (
    field_title,
    model_title,
    percent,
    percentage_points,
    value_title,
)

_ON_RECORD: Final = Option("", "the probabilities on record")
_EVERYTHING: Final = Option("", "all decisions")
_BANDS: Final = 20
"""So many bands a probability has."""
_COST: Final = "cost-"
_COSTS: Final = {
    "approved_good": "Approved, turned out good",
    "approved_bad": "Approved, turned out bad",
    "rejected_good": "Refused, turned out good",
    "rejected_bad": "Refused, turned out bad",
    "referred": "Decided by a person",
}
_RULE: Final = (
    FormField("arm", "Scored by"),
    FormField(
        "threshold", "Approved from", unit="%", is_number=True, help="the model's own, if empty"
    ),
    FormField("low", "Referred from", unit="%", is_number=True, help="instead of a threshold"),
    FormField("high", "Referred to below", unit="%", is_number=True),
    FormField("decided_by", "Of the decisions of"),
    FormField("since", "Decided since (UTC)", type="date"),
    FormField("until", "Decided before (UTC)", type="date"),
)
COSTS: Final = tuple(
    FormField(f"{_COST}{name}", title, is_number=True) for name, title in _COSTS.items()
)
_TITLES: Final = {field.name: field.label for field in _RULE}


def rule_fields(bundles: Sequence[RegisteredBundle]) -> list[FormField]:
    """The fields of the rule; any model of the registered bundles may score."""
    arms = [
        Option(f"{bundle.version}/{model}", f"{model_title(model)} of {bundle.version}")
        for bundle in bundles
        for model in bundle.models
    ]
    options = {"arm": (_ON_RECORD, *arms), "decided_by": (_EVERYTHING, *arms)}
    return [field._replace(options=options.get(field.name, ())) for field in _RULE]


def order_of(values: Mapping[str, str]) -> WhatIf:
    """The order in a form; raises ``ValidationError``, whose places are names of fields."""
    given = {name: value.strip() for name, value in values.items() if value.strip()}
    order: dict[str, Any] = {name: given.get(name) for name in ("since", "until")}
    order |= {name: _arm(given[name]) for name in ("arm", "decided_by") if name in given}
    shares = {
        name: _number(given[name], 100) for name in ("threshold", "low", "high") if name in given
    }
    order["threshold"] = shares.pop("threshold", None)
    order["refer"] = shares or None
    order["costs"] = {
        name.removeprefix(_COST): _number(value)
        for name, value in given.items()
        if name.startswith(_COST)
    } or None
    return WhatIf.model_validate(order)


def unreadable_fields(error: ValidationError) -> list[str]:
    """The labels of the fields that do not hold what they are for."""
    names = [str(fault["loc"][-1]) for fault in error.errors()]
    return [_TITLES.get(name) or _COSTS.get(name) or name for name in names]


def _arm(text: str) -> dict[str, str]:
    bundle, _, model = text.partition("/")
    return {"bundle": bundle, "model": model}


def _number(text: str, whole: float = 1) -> float | str:
    """What cannot be read is left for validation to find."""
    try:
        return float(text.rstrip("% ")) / whole
    except ValueError:
        return text


Points = list[Estimated | None]


def bands_of(swaps: Swaps) -> list[str]:
    """The lower end of each band from the first with any decision to the last."""
    return [percent(low / _BANDS, 0) for low in _places(swaps)]


def shares_by_band(swaps: Swaps) -> dict[str, Points]:
    """The shares that come out otherwise, by what they come out as; a band without any has none."""
    shares = {
        "newly approved": [band.newly_approved_share for band in swaps.bands],
        "newly refused": [band.newly_refused_share for band in swaps.bands],
        "referred": [band.referred_share for band in swaps.bands],
    }
    places = [_place(band.low) for band in swaps.bands]
    found = {name: dict(zip(places, each, strict=True)) for name, each in shares.items()}
    return {
        name: [each.get(place) for place in _places(swaps)]
        for name, each in found.items()
        if any(share and share.value for share in each.values())
    }


def _places(swaps: Swaps) -> Sequence[int]:
    return range(_place(swaps.bands[0].low), _place(swaps.bands[-1].low) + 1)


def _place(low: float) -> int:
    return round(low * _BANDS)


def changes_by_group(swaps: Swaps) -> list[tuple[str, Estimated, str]]:
    """The change of the approval share of all and of each group: its name, and the same as text."""
    groups = [("All decisions", swaps.all.difference)] + [
        (
            f"{field_title(attribute.attribute)}: {value_title(group.group, attribute.attribute)}",
            group.difference,
        )
        for attribute in swaps.attributes
        for group in attribute.groups
    ]
    return [
        (name, change, f"{percentage_points(change.value)} points")
        for name, change in groups
        if change
    ]


def ends_of(points: Sequence[Estimated | None]) -> list[float]:
    """The ends of all intervals, and 0."""
    return [0.0, *(end for point in points if point for end in (point.low, point.high))]

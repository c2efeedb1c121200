"""A scorecard as people in credit read one: characteristics, their attributes, and points.

Logarithms are shown as the quantities that they are of, and features of one category as its values.
"""

from collections.abc import Callable
from math import exp
from typing import Any, Final

from services.scoring.registry import RowOf
from services.scoring.scorecard import Linear, LinearFeature, Table, TableFeature, points
from shared.contract.application import FIELDS, Field

_FIELDS: Final = {field.name: field for field in FIELDS}
_MISSING: Final = "missing"

_QUANTITIES: Final[dict[str, tuple[str, str, Callable[[float], float]]]] = {
    "Log_Loan_to_Income": ("Loan amount divided by total income", "months of income", exp),
}
"""Of a logarithm: its quantity, the unit of that, and the way back to it."""


def characteristics(scorecard: Table | Linear, row_of: RowOf) -> list[dict[str, Any]]:
    """Every characteristic that changes the score, with the points of each of its attributes."""
    shown: dict[str, dict[str, Any]] = {}
    for each in scorecard.features:
        field = _FIELDS[each.inputs[0]]
        characteristic = (
            _category(field, scorecard, row_of) if field.allowed else _quantity(each, field)
        )
        shown[characteristic["name"]] = {"inputs": each.inputs, **characteristic}
    return list(shown.values())


def _category(field: Field, scorecard: Table | Linear, row_of: RowOf) -> dict[str, Any]:
    own = [each.feature for each in scorecard.features if each.inputs == (field.name,)]
    attributes = []
    for value in (*field.allowed, None):
        row = row_of({"ApplicantIncome": 1, field.name: value})
        found = points(scorecard, row)
        shown = _MISSING if value is None else str(value)
        attributes.append({"value": shown, "points": sum(found[name] for name in own)})
    return {"name": field.title, "unit": None, "attributes": attributes}


def _quantity(feature: TableFeature | LinearFeature, field: Field) -> dict[str, Any]:
    name, unit, original = _QUANTITIES.get(feature.feature, (field.title, field.unit, float))
    if isinstance(feature, LinearFeature):
        logarithm = f"natural logarithm of {name}" if original is exp else name
        return {
            "name": logarithm,
            "unit": unit,
            "attributes": [],
            "coefficient": feature.coefficient,
        }
    edges = [None, *map(original, feature.cuts), None]
    return {
        "name": name,
        "unit": unit,
        "attributes": [
            {"above": above, "up_to": up_to, "points": value}
            for above, up_to, value in zip(edges, edges[1:], feature.points, strict=False)
        ],
    }

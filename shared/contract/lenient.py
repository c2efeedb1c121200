"""Readers that are lenient in form, each with the JSON schema that says exactly how lenient.

A schema that is wider than its reader promises what is refused; a narrower one hides what is
understood. Both stand side by side here, and tests/robustness holds them against each other.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_before_validator_function

MAX_DEPENDENTS: Final = 99

Schema = dict[str, Any]
_Read = Callable[[object], object]


class Lenient:
    """Annotates a type: ``read`` brings a value into its form, ``also`` tells what else is read."""

    def __init__(self, read: _Read, *also: Schema) -> None:
        self._read = read
        self._also = also

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Read before the type itself checks."""
        return no_info_before_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> Schema:
        """What the type takes of itself, or else what is read into it."""
        return {"anyOf": [handler(core), *self._also]}


_MAX_NUMBER_LENGTH: Final = 32
# Words for what is no number are let through, to be refused by their proper name.
_NUMBER: Final = re.compile(
    r" *(?:(?:-(?=[0-9.]*[1-9]))?[0-9]+(?:\.[0-9]+)?|[+-]?(?:nan|inf|infinity)) *", re.IGNORECASE
)
_MORE_THAN_ZERO: Final = r"0+\.0*[1-9][0-9]*"

INCOME: Final = rf"0*[1-9][0-9]{{0,4}}(?:\.[0-9]+)?|0*100000(?:\.0+)?|{_MORE_THAN_ZERO}"
INCOME_OR_NONE: Final = r"0*[0-9]{1,5}(?:\.[0-9]+)?|0*100000(?:\.0+)?"
AMOUNT: Final = rf"0*[1-9][0-9]*(?:\.[0-9]+)?|{_MORE_THAN_ZERO}"
TERM: Final = rf"0*(?:[1-9][0-9]?|[1-5][0-9][0-9])(?:\.[0-9]+)?|0*600(?:\.0+)?|{_MORE_THAN_ZERO}"


def decimal(pattern: str) -> Lenient:
    """Reads a string of plain decimals, and no boolean, as a number.

    ``pattern`` matches the strings within the bounds of the type, which checks them itself.
    """
    schema = {"type": "string", "pattern": f"^ *(?:{pattern}) *$", "maxLength": _MAX_NUMBER_LENGTH}
    return Lenient(_read_decimal, schema)


def _read_decimal(value: object) -> object:
    # Pydantic would read true as the number 1, and "1_000" as 1000.
    if isinstance(value, bool):
        raise PydanticCustomError("number", "must be a number, not a boolean")
    if isinstance(value, str) and (len(value) > _MAX_NUMBER_LENGTH or not _NUMBER.fullmatch(value)):
        raise PydanticCustomError("number", "must be a number in plain decimals, such as 1508.5")
    return value


def category(
    *values: str | int,
    numbers: Mapping[float, str | int] | None = None,
    booleans: Mapping[bool, str | int] | None = None,
) -> Lenient:
    """Reads any letter case, between any spaces, and ``numbers`` or ``booleans`` where named."""
    strings: list[Schema] = [{"type": "string", "pattern": _any_case(map(str, values))}]
    # JSON schema takes 1.0 for 1, and true for neither.
    others: list[Schema] = [{"enum": [*known]} for known in (numbers, booleans) if known]
    return Lenient(_reader(values, numbers or {}, booleans or {}), *strings, *others)


def _any_case(values: Iterable[str]) -> str:
    """A pattern of the values: JSON schema has no other way to say any letter case."""
    spelled = "|".join(
        "".join(f"[{c.upper()}{c.lower()}]" if c.isalpha() else c for c in value)
        for value in values
    )
    return f"^ *(?:{spelled}) *$"


def _reader(
    values: Iterable[str | int],
    by_number: Mapping[float, str | int],
    by_boolean: Mapping[bool, str | int],
) -> _Read:
    # Not casefold(), to which the long s is an s: the pattern above knows ASCII only.
    by_name = {str(value).lower(): value for value in values}
    expected = ", ".join(map(str, by_name.values()))

    def read(value: object) -> object:
        found: object = None
        if isinstance(value, str):
            found = by_name.get(value.strip(" ").lower())
        elif isinstance(value, bool):
            found = by_boolean.get(value)
        elif isinstance(value, int | float):
            found = by_number.get(value)
        if found is None:
            raise PydanticCustomError(
                "category", "must be one of: {expected}", {"expected": expected}
            )
        return found

    return read


_SMALL_COUNT: Final = re.compile(r" *[0-9]{1,2} *")
_read_band: Final = _reader(("0", "1", "2", "3+"), {0: "0", 1: "1", 2: "2", 3: "3+"}, {})


def _read_dependents(value: object) -> object:
    # People are counted in whole numbers or their strings; from three on the data set stops.
    if isinstance(value, str) and _SMALL_COUNT.fullmatch(value):
        value = int(value)
    if isinstance(value, int | float) and 3 < value <= MAX_DEPENDENTS and value == int(value):
        value = 3
    return _read_band(value)


def dependents() -> Lenient:
    """Reads a number of people as the data set's band."""
    return Lenient(
        _read_dependents,
        {"type": "string", "pattern": r"^ *(?:[0-9]{1,2}|3\+) *$"},
        {"type": "integer", "minimum": 0, "maximum": MAX_DEPENDENTS},
    )

"""Readers that are lenient in form, each with the JSON schema that says exactly how lenient.

A schema that is wider than its reader promises what is refused; a narrower one hides what is
accepted. Both stand side by side here, and tests/robustness holds them against each other.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_before_validator_function

MAX_COUNT: Final = 99
"""The greatest number that an open category such as 3+ stands for."""

Schema = dict[str, Any]
_Read = Callable[[object], object]

_BLANK: Final[Schema] = {"type": "string", "pattern": "^ *$"}


class Lenient:
    """Annotates a type or an optional one: ``read`` brings a value into its form.

    ``also`` are the schemas of what the type alone would refuse. Where ``optional``, a blank
    string is missing.
    """

    def __init__(self, read: _Read, *also: Schema, optional: bool) -> None:
        self._read = read
        self._also = (*also, _BLANK) if optional else also

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Read before the type itself checks."""
        return no_info_before_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> Schema:
        """What the type takes of itself, or else what is read into it."""
        own = handler(core)
        return {"anyOf": [*own.get("anyOf", [own]), *self._also]}


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip(" "))


# By ranges, not by categories of Unicode: these are the same to every reader of the schema and do
# not change with the version of a library.
_VISIBLE: Final = (
    r"!-~\u00a1-\u00ac\u00ae-\u05ff\u0606-\u061b\u061d-\u06dc\u06de-\u070e\u0710-\u088f"
    r"\u0892-\u08e1\u08e3-\u167f\u1681-\u180d\u180f-\u1fff\u2010-\u2027\u2030-\u205e"
    r"\u2070-\u2fff\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufefe\uff00-\uffef"
)


VISIBLE: Final = f"^[{_VISIBLE}]+$"
"""The pattern of visible characters: no white space, control or format characters."""


def visible(max_length: int) -> StringConstraints:
    """Restricts a string to visible characters of the basic plane, at least one."""
    return StringConstraints(min_length=1, max_length=max_length, pattern=VISIBLE)


def text(*, optional: bool) -> Lenient:
    """Reads a string as it stands."""

    def read(value: object) -> object:
        return None if optional and _is_blank(value) else value

    return Lenient(read, optional=optional)


_MAX_NUMBER_LENGTH: Final = 32
_NOT_PLAIN: Final = "must be a number in plain decimals, such as 1508.5"
# Words for what is no number are let through, to be refused by their proper name.
_NUMBER: Final = re.compile(
    r" *(?:(?:-(?=[0-9.]*[1-9]))?[0-9]+(?:\.[0-9]+)?|[+-]?(?:nan|inf|infinity)) *", re.IGNORECASE
)


def number(low: int, high: int, *, above: bool, whole: bool, optional: bool) -> Lenient:
    """Reads a string of plain decimals, and no boolean, as a number from ``low`` to ``high``.

    With ``above``, ``low`` itself is excluded. The type checks the bounds; here they make the
    pattern of the strings that are within them.
    """

    def read(value: object) -> object:
        # Pydantic would read true as the number 1, and "1_000" as 1000.
        if isinstance(value, bool):
            raise PydanticCustomError("number", "must be a number, not a boolean")
        if isinstance(value, str) and (
            len(value) > _MAX_NUMBER_LENGTH or not _NUMBER.fullmatch(value)
        ):
            if optional and _is_blank(value):
                return None
            raise PydanticCustomError(
                "number", "must be a number in plain decimals, such as 1508.5"
            )
        # Added to 0.0, minus zero is zero and every other number itself.
        return value + 0.0 if isinstance(value, float) else value

    schema = {
        "type": "string",
        "pattern": f"^ *(?:{_decimals(low, high, above=above, whole=whole)}) *$",
        "maxLength": _MAX_NUMBER_LENGTH,
    }
    return Lenient(read, schema, optional=optional)


_NO_FRACTION: Final = r"(?:\.0+)?"


def _decimals(low: int, high: int, *, above: bool, whole: bool) -> str:
    """A pattern of the decimals from ``low``, or above it, to ``high``; neither is negative."""
    lowest = low + 1 if above else low
    if whole:
        return f"0*(?:{_integers(lowest, high)}){_NO_FRACTION}"
    forms = [f"0*{high}{_NO_FRACTION}"]
    if lowest < high:
        forms.append(rf"0*(?:{_integers(lowest, high - 1)})(?:\.[0-9]+)?")
    if above:
        forms.append(rf"0*{low}\.0*[1-9][0-9]*")
    return "|".join(forms)


def _integers(low: int, high: int) -> str:
    """A pattern of the integers from ``low`` to ``high``, without leading zeros."""
    shortest, longest = len(str(low)), len(str(high))
    return "|".join(
        pattern
        for digits in range(shortest, longest + 1)
        for pattern in _of_length(
            digits,
            low if digits == shortest else 10 ** (digits - 1),
            high if digits == longest else 10**digits - 1,
        )
    )


def _of_length(digits: int, low: int, high: int) -> list[str]:
    """Patterns of the integers from ``low`` to ``high``, each written in so many digits."""
    block = 10 ** (digits - 1)
    first, last = low // block, high // block
    if low % block == 0 and (high + 1) % block == 0:
        return [f"[{first}-{last}]" + "[0-9]" * (digits - 1)]
    if first == last:
        return [f"{first}{rest}" for rest in _of_length(digits - 1, low % block, high % block)]
    cut = (first + 1) * block if low % block else last * block
    return [*_of_length(digits, low, cut - 1), *_of_length(digits, cut, high)]


_WHOLE: Final = re.compile(rf"[0-9]+{_NO_FRACTION}")
_AS_BOOLEAN: Final = {"Yes": True, "No": False, 0: False, 1: True}


def category(values: Sequence[str | int], *, optional: bool) -> Lenient:
    """Reads any letter case, between any spaces, and numbers for the values that are numbers.

    Where the values are Yes and No, or 0 and 1, booleans are read too. A last value that ends in
    ``+`` stands for every greater number up to ``MAX_COUNT``.
    """
    # Not casefold(), to which the long s is an s: the pattern knows ASCII only.
    by_name = {str(value).lower(): value for value in values}
    by_number: dict[float, str | int] = {
        int(name): value for name, value in by_name.items() if name.isdigit()
    }
    by_boolean = (
        {_AS_BOOLEAN[value]: value for value in values} if set(values) <= set(_AS_BOOLEAN) else {}
    )
    last = str(values[-1])
    if last.endswith("+"):
        by_number |= dict.fromkeys(range(int(last[:-1]), MAX_COUNT + 1), values[-1])
    expected = ", ".join(map(str, values))

    def read(value: object) -> object:
        found: object = None
        if isinstance(value, str):
            name = value.strip(" ").lower()
            found = by_name.get(name)
            if found is None and _WHOLE.fullmatch(name):
                found = by_number.get(float(name))
        elif isinstance(value, bool):
            found = by_boolean.get(value)
        elif isinstance(value, int | float):
            found = by_number.get(value)
        if found is None and not (optional and _is_blank(value)):
            raise PydanticCustomError(
                "category", "must be one of: {expected}", {"expected": expected}
            )
        return found

    spelled = [_any_case(name) for name in by_name if not name.isdigit()]
    also: list[Schema] = []
    if by_number:
        low, high = int(min(by_number)), int(max(by_number))
        spelled.append(f"0*(?:{_integers(low, high)}){_NO_FRACTION}")
        # JSON schema takes 1.0 for 1, and true for neither.
        also.append({"type": "integer", "minimum": low, "maximum": high})
    if by_boolean:
        also.append({"type": "boolean"})
    also.insert(0, {"type": "string", "pattern": f"^ *(?:{'|'.join(spelled)}) *$"})
    return Lenient(read, *also, optional=optional)


def _any_case(name: str) -> str:
    """A pattern of ``name``: JSON schema has no other way to say any letter case."""
    return "".join(
        f"[{c.upper()}{c}]" if c.isalpha() else c if c.isalnum() or c == " " else f"[{c}]"
        for c in name
    )

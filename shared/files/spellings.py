"""Spellings that the contract refuses, and what a person may say is meant by them.

None is applied unless it is chosen: ``4,583`` is four thousand to one lender and four and a half to
another, and amounts that look like full currency may be thousands.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from functools import cache, partial
from itertools import islice
from typing import Final, NamedTuple

from shared.contract.application import FIELDS, Field
from shared.contract.parsing import read_input
from shared.files.applications import ApplicationFile

_FIELDS: Final = {field.name: field for field in FIELDS}


@dataclass(frozen=True)
class Spelling:
    """A way to read some cells of a file, as a question to the person who knows the file."""

    key: str
    question: str


def descriptions() -> dict[str, str]:
    """All spellings by their keys, whether or not a file has them, and what each reads."""
    notations = {key: notation.reads for key, notation in _NOTATIONS.items()}
    values = {_value_key(each): _values_read(each) for each in FIELDS if each.kind == "category"}
    scales = {
        _scale_key(each): f"reads {each.name} as {scale.unit}, not {each.unit}"
        for each in FIELDS
        if (scale := _SCALES.get(each.unit or ""))
    }
    return notations | values | scales


def offered(file: ApplicationFile) -> list[Spelling]:
    """The spellings that ``file`` has."""
    cells = {field: Counter(_cells(file, field.name)) for field in FIELDS}
    return [*_offered_notations(cells), *_offered_values(cells), *_offered_scales(cells)]


def applied(file: ApplicationFile, keys: Collection[str]) -> ApplicationFile:
    """``file`` with the cells of these spellings read as they are meant."""
    meant = cache(partial(spelt, keys))
    rows = tuple(
        replace(row, cells={name: cell and meant(name, cell) for name, cell in row.cells.items()})
        for row in file.rows
    )
    return replace(file, rows=rows)


def spelt(keys: Collection[str], name: str, cell: str) -> str:
    """``cell``, in the column of an input, in the contract's spelling of what is meant by it."""
    field = _FIELDS.get(name)
    if field is None:
        return cell
    if field.kind == "category":
        return (
            _value(field, cell) if _value_key(field) in keys and not _is_read(field, cell) else cell
        )
    if field.kind == "text":
        return cell
    for key, notation in _NOTATIONS.items():
        if key in keys:
            cell = notation.plain(cell)
    number = _number(cell)
    if _scale_key(field) in keys and number is not None:
        return f"{(number * _SCALES[field.unit or ''].factor).normalize():f}"
    return cell


def notation_of(name: str, cell: str) -> str | None:
    """The spelling that alone makes a faulty ``cell`` of an input one that is read, if any does.

    None of another unit: that is a question about all cells of a column.
    """
    scales = {_scale_key(field) for field in FIELDS}
    for key in (key for key in descriptions() if key not in scales):
        meant = spelt([key], name, cell)
        if meant != cell and _is_read(_FIELDS[name], meant):
            return key
    return None


def _cells(file: ApplicationFile, name: str) -> Iterable[str]:
    return (cell for row in file.rows if (cell := row.cells.get(name)) is not None)


def _is_read(field: Field, cell: str) -> bool:
    try:
        read_input(field.name, cell)
    except ValueError:
        return False
    return True


# --- How numbers are written -------------------------------------------------------------------


class _Notation(NamedTuple):
    what: str
    reads: str
    plain: Callable[[str], str]


_SIGN: Final = r"(?:[$€£¥₹]|[a-z]{2,3}\.?)"
_WITH_SIGN: Final = re.compile(rf"{_SIGN}\s*(\d.*)|(\d.*\d|\d)\s*{_SIGN}", re.IGNORECASE)
_GROUPED: Final = re.compile(r"\d{1,3}(?:[,'\s]\d{3})+(?:\.\d+)?")
_WITH_COMMA: Final = re.compile(r"\d+,\d{1,2}")


def _without_sign(cell: str) -> str:
    found = _WITH_SIGN.fullmatch(cell)
    return (found[1] or found[2]) if found else cell


def without_groups(cell: str) -> str:
    """A number without the commas, apostrophes or spaces between its thousands: 12,000 is 12000."""
    return re.sub(r"[,'\s]", "", cell) if _GROUPED.fullmatch(cell) else cell


def _with_point(cell: str) -> str:
    return cell.replace(",", ".") if _WITH_COMMA.fullmatch(cell) else cell


_NOTATIONS: Final = {
    "currency": _Notation("has a currency sign", "reads $128 and 128 USD as 128", _without_sign),
    "groups": _Notation("groups thousands", "reads 4,583, 4'583 and 4 583 as 4583", without_groups),
    "comma": _Notation("has a decimal comma", "reads 128,5 as 128.5", _with_point),
}


def _offered_notations(cells: Mapping[Field, Counter[str]]) -> Iterable[Spelling]:
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for field, found in cells.items():
        if field.kind in ("category", "text"):
            continue
        for cell, times in found.items():
            plain, changing = _plain(cell)
            if _number(plain) is None:
                continue
            for key in changing:
                counts[key] += times
                examples.setdefault(key, f"{cell} {_NOTATIONS[key].what}: read it as {plain}?")
    for key, times in counts.items():
        yield Spelling(key, f"{examples[key]} ({_times(times)})")


def _plain(cell: str) -> tuple[str, list[str]]:
    """The number in ``cell`` in plain decimals, and the notations that it took."""
    changing = []
    for key, notation in _NOTATIONS.items():
        plain = notation.plain(cell)
        if plain != cell:
            changing.append(key)
            cell = plain
    return cell, changing


def _number(cell: str) -> Decimal | None:
    try:
        number = Decimal(cell)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


# --- In which unit ------------------------------------------------------------------------------


class _Scale(NamedTuple):
    is_likely: Callable[[Decimal], bool]
    range: str
    unit: str
    factor: Decimal


_SCALES: Final[Mapping[str, _Scale]] = {
    "thousands": _Scale(lambda v: v > 10_000, "over 10,000", "full amounts", Decimal("0.001")),
    "months": _Scale(lambda v: v <= 40, "at most 40", "years", Decimal(12)),
}
"""By the unit of the contract, the other unit that people give."""
_LIKELY_SHARE: Final = 0.9


def _scale_key(field: Field) -> str:
    return f"{field.name} unit"


def _offered_scales(cells: Mapping[Field, Counter[str]]) -> Iterable[Spelling]:
    for field, found in cells.items():
        scale = _SCALES.get(field.unit or "")
        if scale is None:
            continue
        numbers = [(_number(_plain(cell)[0]), times) for cell, times in found.items()]
        total = sum(times for number, times in numbers if number is not None)
        likely = sum(times for n, times in numbers if n is not None and scale.is_likely(n))
        if likely and likely >= _LIKELY_SHARE * total:
            yield Spelling(
                _scale_key(field),
                f"{field.title}: {likely:,} of {total:,} are {scale.range}. Are these {scale.unit}"
                f" rather than {field.unit}?",
            )


# --- Values of a category ------------------------------------------------------------------------

_WORDS: Final[Mapping[tuple[object, ...], Mapping[str, str]]] = {
    ("Yes", "No"): dict.fromkeys(("true", "t", "1"), "Yes")
    | dict.fromkeys(("false", "f", "0"), "No"),
    (0, 1): dict.fromkeys(("true", "t", "yes", "y"), "1")
    | dict.fromkeys(("false", "f", "no", "n"), "0"),
}
_AND_MORE: Final = re.compile(r"(\d+) *(?:\+|(?:or|and) more)")
_NEAR: Final = 0.8
_MOST_LISTED: Final = 10


def _value_key(field: Field) -> str:
    return f"{field.name} values"


def _values_read(field: Field) -> str:
    words = _WORDS.get(field.allowed, {})
    listed = "".join(
        f"{' or '.join(word for word in words if words[word] == value)} as {value}, "
        for value in dict.fromkeys(words.values())
    )
    values = ", ".join(map(str, field.allowed))
    return f"reads {listed}what comes near one of {values} as that value"


def _offered_values(cells: Mapping[Field, Counter[str]]) -> Iterable[Spelling]:
    for field, found in cells.items():
        if field.kind != "category":
            continue
        meant = {
            cell: _value(field, cell)
            for cell in found
            if not _is_read(field, cell) and _value(field, cell) != cell
        }
        if meant:
            labels = dict(zip(map(str, field.allowed), field.labels, strict=False))
            listed = [
                f"{cell} as {labels.get(value, value)} ({_times(found[cell])})"
                for cell, value in islice(meant.items(), _MOST_LISTED)
            ]
            if len(meant) > _MOST_LISTED:
                listed.append(f"and {len(meant) - _MOST_LISTED:,} more")
            yield Spelling(_value_key(field), f"{field.title}: read {', '.join(listed)}?")


def _value(field: Field, cell: str) -> str:
    """The value of the category that ``cell`` comes near; ``cell`` itself if there is none."""
    folded = cell.casefold()
    values = [str(value) for value in field.allowed]
    if folded in (words := _WORDS.get(field.allowed, {})):
        return words[folded]
    initials = {value[0].casefold(): value for value in values}
    if len(initials) == len(values) and folded in initials:
        return initials[folded]
    more = _AND_MORE.fullmatch(folded)
    if more:
        last = values[-1].removesuffix("+")
        return values[-1] if last != values[-1] and int(more[1]) >= int(last) else cell
    squeezed = {_squeezed(value): value for value in values}
    near = get_close_matches(_squeezed(cell), squeezed, n=1, cutoff=_NEAR)
    return squeezed[near[0]] if near else cell


def _squeezed(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()


def _times(number: int) -> str:
    return f"{number:,} cell{'s' if number > 1 else ''}"

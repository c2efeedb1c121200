"""A reader of numbers and its JSON schema take the same strings, whatever the bounds are."""

import re
from typing import Annotated, Any

import pydantic
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.contract.lenient import number

_BOUNDS = st.tuples(st.integers(0, 2000), st.integers(1, 2000)).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)


def _accepts(adapter: TypeAdapter[Any], value: str) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


@given(_BOUNDS, st.booleans(), st.booleans(), st.data())
def test_string_is_read_exactly_if_the_pattern_matches(
    bounds: tuple[int, int], above: bool, whole: bool, data: st.DataObject
) -> None:
    """Near the bounds above all: one too many digits, leading zeros, fractions of zero."""
    low, high = bounds
    limits = pydantic.Field(gt=low if above else None, ge=None if above else low, le=high)
    reader = number(low, high, above=above, whole=whole, optional=False)
    kind: Any = Annotated[int if whole else float, limits, reader]
    adapter = TypeAdapter[Any](kind)
    [pattern] = [
        form["pattern"] for form in adapter.json_schema()["anyOf"] if form["type"] == "string"
    ]
    near = st.sampled_from([low, high]).flatmap(lambda end: st.integers(max(0, end - 2), end + 2))
    whole_part = data.draw(near | st.integers(0, 10 * high))
    zeros = data.draw(st.sampled_from(["", "0", "000"]))
    fraction = data.draw(st.sampled_from(["", ".0", ".00", ".5", ".05", "."]))
    text = data.draw(st.sampled_from(["{}", " {} ", "-{}"])).format(
        f"{zeros}{whole_part}{fraction}"
    )
    assert bool(re.fullmatch(pattern, text)) == _accepts(adapter, text), (text, pattern)

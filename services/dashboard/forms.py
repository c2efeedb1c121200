"""The fields of a form, as the template ``components/form.html`` draws them."""

from collections.abc import Sequence
from typing import NamedTuple


class Option(NamedTuple):
    """One choice of a field: its value and its label."""

    value: str
    text: str


class FormField(NamedTuple):
    """One field of a form: a choice if it has ``options``, otherwise a line of text."""

    name: str
    label: str
    options: Sequence[Option] = ()
    unit: str = ""
    help: str = ""
    type: str = "text"
    is_number: bool = False
    required: bool = False

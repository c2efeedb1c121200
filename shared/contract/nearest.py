"""The name that was probably meant by an unknown one."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_ALIKE: Final = 0.7
"""At least so alike are a misspelt name and the one that is meant, on a scale to 1."""
_MAX_LENGTH: Final = 64
"""Of a longer name, only the beginning is compared: comparing takes time in its length."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that is near to ``name``, whatever its letter case and separators."""
    plain = {_plain(other): other for other in known}
    near = get_close_matches(_plain(name[:_MAX_LENGTH]), plain, n=1, cutoff=_ALIKE)
    return plain[near[0]] if near else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()

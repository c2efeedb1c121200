"""The metrics and labels that a PromQL expression names.

A reader of words, not a parser: promtool checks the grammar.
"""

import re
from typing import Final, NamedTuple

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_RANGE: Final = re.compile(r"\[[^\]]*\]")
_GROUPING: Final = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)")
_DURATION: Final = re.compile(r"\b\d+(?:ms|[smhdwy])\b")
_KEYWORDS: Final = {"and", "or", "unless", "offset", "bool", "inf", "nan"}


class Asked(NamedTuple):
    """Labels used with each metric, and labels that results are grouped by."""

    labels_by_metric: dict[str, set[str]]
    grouped_by: set[str]


def asked_for(expression: str) -> Asked:
    """Return everything that ``expression`` names; strings (label values) do not count."""
    text = _DURATION.sub("", _RANGE.sub("", _STRING.sub('""', expression)))
    grouped_by = {label for _, labels in _GROUPING.findall(text) for label in _words(labels)}
    text = _GROUPING.sub(" ", text)
    found: dict[str, set[str]] = {}
    for selector in _SELECTOR.finditer(text):
        name, matchers = selector.groups()
        is_function = text[selector.end() :].lstrip().startswith("(")
        if not is_function and name.lower() not in _KEYWORDS:
            found.setdefault(name, set()).update(_MATCHER.findall(matchers or ""))
    return Asked(found, grouped_by)


def _words(labels: str) -> list[str]:
    return re.findall(r"\w+", labels)

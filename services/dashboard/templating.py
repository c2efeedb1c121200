"""The HTML: one environment of templates that escapes every value and knows every name.

A page's template is a file of macros, one for each part of the page that the server fills. What
several pages show is in ``templates/components``.
"""

from inspect import isfunction
from pathlib import Path
from typing import Final, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from services.dashboard import formatting, inputs, outcomes, waterfall
from services.dashboard.theme import asset
from shared.contract.application import FIELDS

NOTHING: Final = Markup()

_ENVIRONMENT: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_ENVIRONMENT.filters |= {
    name: function
    for module in (formatting, inputs, outcomes, waterfall)
    for name, function in vars(module).items()
    if isfunction(function) and not name.startswith("_")
}
_ENVIRONMENT.globals |= {
    "asset": asset,
    "INPUTS": FIELDS,
    "NONE": formatting.NONE,
    "OUTCOMES": tuple(outcomes.OUTCOME_TITLES),
}


def part(page: str, name: str, /, **values: object) -> Markup:
    """One part of a page: the macro ``name`` of its template, applied to ``values``."""
    return cast("Markup", getattr(_ENVIRONMENT.get_template(f"{page}.html").module, name)(**values))


def page_heading(page: str) -> tuple[str, str]:
    """The title of a page and its first sentence, which its template sets."""
    module = _ENVIRONMENT.get_template(f"{page}.html").module
    return module.title, module.lead  # type: ignore[attr-defined]  # the names that it sets

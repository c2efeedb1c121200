"""The HTML: one environment of templates that escapes every value and knows every name.

A page's template is a file of macros, one for each part of the page that the server fills. What
several pages show is in ``templates/components``.
"""

from pathlib import Path
from typing import Final, cast

from markupsafe import Markup

from services.dashboard import formatting, inputs, outcomes, waterfall, what_ifs
from services.dashboard.theme import asset
from shared.contract.application import FIELDS
from shared.pictures.templating import environment

NOTHING: Final = Markup()

_ENVIRONMENT: Final = environment(
    Path(__file__).parent / "templates",
    *(formatting, inputs, outcomes, waterfall, what_ifs),
    asset=asset,
    INPUTS=FIELDS,
    OUTCOMES=tuple(outcomes.OUTCOME_TITLES),
    ALL_NUMBERS=False,
    SUBHEADING="h3",
)


def part(page: str, name: str, /, **values: object) -> Markup:
    """One part of a page: the macro ``name`` of its template, applied to ``values``."""
    return cast("Markup", getattr(_ENVIRONMENT.get_template(f"{page}.html").module, name)(**values))


def page_heading(page: str) -> tuple[str, str]:
    """The title of a page and its first sentence, which its template sets."""
    module = _ENVIRONMENT.get_template(f"{page}.html").module
    return module.title, module.lead  # type: ignore[attr-defined]  # the names that it sets

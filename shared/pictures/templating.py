"""Templates that escape every value, and know pictures and how numbers are written."""

from collections.abc import Callable, Iterable
from inspect import isfunction
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined

from shared.pictures import axes, formats, monitoring

_FOLDER: Final = Path(__file__).parent
STYLE: Final = (_FOLDER / "pictures.css").read_text(encoding="utf-8")
"""The style sheet of the pictures. Its colours are variables of the page that shows them."""


def environment(folder: Path, *modules: ModuleType, **names: Any) -> Environment:
    """An environment of the templates in ``folder``, and of the pictures below ``pictures/``.

    The public functions of ``modules`` are filters; ``names`` are known everywhere.
    """
    made = Environment(
        loader=ChoiceLoader(
            (
                FileSystemLoader(folder),
                PrefixLoader({"pictures": FileSystemLoader(_FOLDER / "templates")}),
            )
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= functions_of((formats, monitoring, *modules))
    made.globals |= {
        "axis": axes.axis,
        "path": axes.path,
        "slots": axes.slots,
        "APART": monitoring.APART,
        "areas_of": monitoring.areas_of,
        "NONE": formats.NONE,
        "EMPTY_PERIOD": formats.EMPTY_PERIOD,
        "NO_OUTCOMES": formats.NO_OUTCOMES,
        **names,
    }
    return made


def functions_of(modules: Iterable[ModuleType]) -> dict[str, Callable[..., Any]]:
    """The public functions of ``modules``, by name."""
    return {
        name: function
        for module in modules
        for name, function in vars(module).items()
        if isfunction(function) and not name.startswith("_")
    }

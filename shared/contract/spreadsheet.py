"""Cells of CSV files that people open in a spreadsheet program."""

from typing import Final

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def neutralised(cell: object) -> object:
    """``cell``, after an apostrophe if it is a text that a spreadsheet would run as a formula.

    Source: OWASP, CSV Injection.
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell


def original(cell: str) -> str:
    """The text that ``neutralised`` made ``cell`` of."""
    text = cell.removeprefix("'")
    return text if text.startswith(FORMULA_STARTS) else cell

"""Ranges of time, from ``since`` to before ``until``."""

from datetime import date


def check_range(since: date | None, until: date | None) -> None:
    """Raise ``ValueError`` if nothing can be in the range; both ends are days, or both moments."""
    if since is not None and until is not None and since >= until:
        raise ValueError("since must be earlier than until")

"""What a rate limit is; ``shared.access.rate_limit`` counts against it."""

from typing import Final

from limits import RateLimitItem, parse_many

UNLIMITED: Final = "unlimited"
Limits = tuple[RateLimitItem, ...]
"""All of them apply at once; an empty tuple is no limit."""


def parse_limits(text: str) -> Limits:
    """Limits in slowapi's notation, e.g. ``200/hour;1000/day``; ``unlimited`` is no limit.

    Raises ``ValueError`` for anything else.
    """
    try:
        return () if text == UNLIMITED else tuple(parse_many(text))
    except ValueError:
        raise ValueError("must be a limit such as 100/hour or 200/hour;1000/day") from None

"""How the processes report on themselves."""

import logging


def configure_logging(level: str) -> None:
    """Send this process's log to standard error, one line per event, from ``level`` up."""
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    # Each request to another service would otherwise be a line of its own.
    logging.getLogger("httpx").setLevel(logging.WARNING)

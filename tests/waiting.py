"""Waiting for something to come true."""

import asyncio
import time
from collections.abc import Awaitable, Callable

_POLL_S = 0.02


async def eventually(
    condition: Callable[[], bool], *, timeout_s: float = 20, poll_s: float = _POLL_S
) -> None:
    """Return once ``condition`` holds; raises ``TimeoutError`` when it does not in time."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  the condition is of any kind, it cannot notify
            await asyncio.sleep(poll_s)


async def eventually_said(ask: Callable[[], Awaitable[bool]], *, timeout_s: float = 20) -> None:
    """Return once asking is answered with yes; raises ``TimeoutError`` when it is not in time."""
    async with asyncio.timeout(timeout_s):
        while not await ask():  # noqa: ASYNC110  whoever is asked cannot notify
            await asyncio.sleep(_POLL_S)


def until(condition: Callable[[], bool], *, timeout_s: float = 20, poll_s: float = _POLL_S) -> None:
    """As ``eventually``, for a test without an event loop."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"it did not come true within {timeout_s:g} s")
        time.sleep(poll_s)

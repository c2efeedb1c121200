"""Much work on the event loop: done in turns, between which everything else goes on."""

import asyncio
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Final, TypeVar

TURN_S: Final = 0.001
"""After how long the work pauses; a turn takes this and the rest of the item it is at."""

T = TypeVar("T")
R = TypeVar("R")


async def in_turns(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``work`` on each item, in their order; the event loop is never held for long."""
    done = []
    pause_s = perf_counter() + TURN_S
    for item in items:
        done.append(work(item))
        if perf_counter() > pause_s:
            await asyncio.sleep(0)
            pause_s = perf_counter() + TURN_S
    return done

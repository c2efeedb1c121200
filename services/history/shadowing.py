"""Whether what is stored is to be scored by shadows, too."""

from time import monotonic
from typing import Final
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.contract.rollout import Rollout

ASK_AGAIN_S: Final = 1.0
"""For so long a change of the roll-out may go unnoticed."""

_ACTIVE: Final = """
SELECT content FROM rollouts
WHERE epoch = (SELECT max(epoch) FROM rollout_states WHERE state = 'active')
"""


class Shadowing:
    """The roll-out in force in one database, if it has shadows."""

    def __init__(self) -> None:
        self._epoch: int | None = None
        self._ask_again_at_s = 0.0

    async def find(self, connection: asyncpg.Connection) -> int | None:
        """Its epoch; looked up at most each ``ASK_AGAIN_S``."""
        now_s = monotonic()
        if now_s >= self._ask_again_at_s:
            content = await connection.fetchval(_ACTIVE)
            rollout = None if content is None else Rollout.model_validate_json(content)
            self._epoch = rollout.epoch if rollout is not None and rollout.shadows else None
            self._ask_again_at_s = now_s + ASK_AGAIN_S
        return self._epoch


_KNOWN: Final[WeakKeyDictionary[AsyncEngine, Shadowing]] = WeakKeyDictionary()


def shadowing(engine: AsyncEngine) -> Shadowing:
    """What is known of the database of ``engine``."""
    return _KNOWN.setdefault(engine, Shadowing())

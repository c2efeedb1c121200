"""An eye on both services, one for all open pages."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from markupsafe import Markup

from loan_predictor_client import AsyncLoanPredictorClient, CallFailed
from loan_predictor_client.calls import Service
from services.dashboard import markup

EVERY_S: Final = 2.0
_LOSSES: Final[dict[Service, str]] = {
    "inference": "Decisions and models are not available: the inference service does not answer.",
    "history": "History and statistics are not available: the history service does not answer.",
}


class Watch:
    """Which services are away, as of at most ``EVERY_S`` and a call ago.

    Nobody is asked while no page is open.
    """

    def __init__(self, client: AsyncLoanPredictorClient) -> None:
        self._client = client
        self._away: frozenset[Service] = frozenset()
        self._wanted_s = float("-inf")

    def notice(self) -> Markup:
        """What to say above every page; empty while all is well."""
        self._wanted_s = time.monotonic()
        if not self._away:
            return markup.EMPTY
        lines = [_LOSSES[service] for service in sorted(self._away)]
        return markup.note(
            "Part of the system is away", *lines, "This page recovers by itself.", kind="warned"
        )

    async def look(self) -> None:
        """Ask both once, side by side."""
        services: tuple[Service, ...] = ("inference", "history")
        alive = await asyncio.gather(*(self._is_usable(service) for service in services))
        self._away = frozenset(
            service for service, usable in zip(services, alive, strict=True) if not usable
        )

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look again and again while the block runs."""

        async def keep_looking() -> None:
            while True:
                if time.monotonic() - self._wanted_s < 2 * EVERY_S:
                    await self.look()
                await asyncio.sleep(EVERY_S)

        looking = asyncio.create_task(keep_looking())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait([looking])

    async def _is_usable(self, service: Service) -> bool:
        try:
            return (await self._client.health(service)).status != "down"
        except CallFailed:
            return False

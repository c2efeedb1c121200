"""The state of both services, watched once for all open pages."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from markupsafe import Markup

from loan_predictor_client import AsyncLoanPredictorClient, CallFailed
from loan_predictor_client.calls import Service
from services.dashboard.templating import NOTHING, part

EVERY_S: Final = 2.0


class Watch:
    """Which services are away, as of at most ``EVERY_S`` and a call ago.

    No service is called while no page is open.
    """

    def __init__(self, client: AsyncLoanPredictorClient) -> None:
        self._client = client
        self._away: frozenset[Service] = frozenset()
        self._wanted_s = float("-inf")

    def notice(self) -> Markup:
        """The notice above every page; empty while all is well."""
        self._wanted_s = time.monotonic()
        return part("notices", "services_away", services=self._away) if self._away else NOTHING

    async def look(self) -> None:
        """Check both once, concurrently."""
        services: tuple[Service, ...] = ("inference", "history")
        alive = await asyncio.gather(*(self._is_usable(service) for service in services))
        self._away = frozenset(
            service for service, usable in zip(services, alive, strict=True) if not usable
        )

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Keep looking while the block runs."""

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

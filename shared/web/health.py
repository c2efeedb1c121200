"""Liveness, readiness and health: /livez, /readyz and /health."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import Any, Final, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

CHECK_TIMEOUT_S: Final = 1.0
TOLERATED_OUTAGE_S: Final = 3.0
"""How long a required check must have failed before a service that was ready is not."""

DRAINING: Final = "draining"
"""Key of the lifespan's state that ``shared.web.server`` sets when it is about to stop."""


@dataclass(frozen=True)
class Check:
    """A dependency of the service; ``ping`` raises when it is not usable."""

    name: str
    ping: Callable[[], Awaitable[object]]
    required: bool = True
    """Whether the service cannot work at all without it."""
    tolerant: bool = True
    """Whether the service stays ready through the first seconds of an outage."""


class CheckResult(BaseModel):
    """What one check found."""

    status: Literal["up", "down"]
    required: bool
    detail: Any = None


class Health(BaseModel):
    """How the service is: ``degraded`` works, with something optional down.

    ``draining`` finishes the requests it has, before it ends.
    """

    status: Literal["ok", "degraded", "down", "draining"]
    service: str
    version: str
    checks: dict[str, CheckResult]


class Live(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class OutageTolerance:
    """Tolerates short outages, so that readiness does not flap on one slow ping.

    A check is down until it has succeeded once. From then on it is down only while it has failed
    for ``tolerated_s`` with no success between; two failures at least, so that a rare probe does
    not count one as an outage.
    """

    def __init__(self, *, tolerated_s: float = TOLERATED_OUTAGE_S) -> None:
        self._tolerated_s = tolerated_s
        self._failing_since_s: dict[str, float | None] = {}

    def is_down(self, name: str, result: CheckResult) -> bool:
        """Record what the check ``name`` has just found; whether it counts as down."""
        if result.status == "up":
            self._failing_since_s[name] = None
            return False
        if name not in self._failing_since_s:
            return True
        now_s = monotonic()
        since_s = self._failing_since_s[name]
        if since_s is None:
            since_s = self._failing_since_s[name] = now_s
        return now_s - since_s >= self._tolerated_s


async def _run(check: Check) -> CheckResult:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            detail = await check.ping()
    except Exception as error:  # noqa: BLE001  whatever a driver raises, it means: not usable
        reason = str(error) or type(error).__name__
        return CheckResult(status="down", required=check.required, detail=reason)
    return CheckResult(status="up", required=check.required, detail=detail)


async def _run_all(checks: Sequence[Check]) -> dict[str, CheckResult]:
    """Run all checks at once, each for at most ``CHECK_TIMEOUT_S``."""
    results = await asyncio.gather(*(_run(check) for check in checks))
    return {check.name: result for check, result in zip(checks, results, strict=True)}


def health_router(
    *,
    service: str,
    version: str,
    checks: Callable[[Request], Sequence[Check]],
    tolerated_outage_s: float = TOLERATED_OUTAGE_S,
) -> APIRouter:
    """The routes /livez (the process answers), /readyz (it can work) and /health (all checks)."""
    router = APIRouter(tags=["health"])
    tolerance = OutageTolerance(tolerated_s=tolerated_outage_s)

    async def examine(request: Request) -> tuple[Health, bool]:
        """The health of this moment, and whether the service is ready, outages tolerated."""
        examined = checks(request)
        results = await _run_all(examined)
        unready = [
            tolerance.is_down(check.name, results[check.name])
            if check.tolerant
            else results[check.name].status == "down"
            for check in examined
            if check.required
        ]
        draining = bool(request.scope.get("state", {}).get(DRAINING))
        health = Health(
            status="draining" if draining else _status_of(results.values()),
            service=service,
            version=version,
            checks=results,
        )
        return health, not draining and not any(unready)

    @router.get("/livez")
    async def livez() -> Live:
        """Say that the process answers, whatever it depends on."""
        return Live()

    @router.get("/readyz", responses={503: {"model": Health}})
    async def readyz(request: Request, response: Response) -> Health:
        """Say whether the service can do its work: 200 if so, 503 if not.

        A service that was ready stays so through the first seconds of an outage.
        """
        health, ready = await examine(request)
        if not ready:
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return health

    @router.get("/health")
    async def health(request: Request) -> Health:
        """Return the state of everything the service depends on; always 200."""
        health, _ = await examine(request)
        return health

    return router


def _status_of(results: Iterable[CheckResult]) -> Literal["ok", "degraded", "down"]:
    down = [result for result in results if result.status == "down"]
    if not down:
        return "ok"
    return "down" if any(result.required for result in down) else "degraded"

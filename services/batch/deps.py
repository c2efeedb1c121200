"""What the handlers work with: built once in the lifespan, found again on every request."""

from dataclasses import dataclass

from anyio import CapacityLimiter
from redis.asyncio import Redis
from starlette.types import Scope

from services.batch.database import Pool
from services.batch.settings import BatchSettings
from services.scoring.store import BundleStore
from shared.observability.metrics import Metrics


@dataclass(frozen=True)
class Resources:
    """The service's state between requests."""

    settings: BatchSettings
    pool: Pool
    redis: Redis
    store: BundleStore
    metrics: Metrics
    checking: CapacityLimiter
    """Uploaded files are in memory one at a time."""


def resources_of(scope: Scope) -> Resources:
    """The resources of the app that serves the request."""
    resources: Resources = scope["state"]["resources"]
    return resources

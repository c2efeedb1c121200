"""What the handlers work with: built once in the lifespan, found again on every request."""

from dataclasses import dataclass

from redis.asyncio import Redis
from starlette.types import Scope

from services.inference.catalogue import Catalogue
from services.inference.idempotency import Idempotency
from services.scoring.metrics import DecisionMetrics
from services.scoring.publisher import Publisher
from services.scoring.registry import Bundle
from shared.observability.metrics import Metrics


@dataclass(frozen=True)
class Resources:
    """The service's state between requests: models that never change, and connections."""

    bundle: Bundle
    catalogue: Catalogue
    publisher: Publisher
    idempotency: Idempotency
    redis: Redis
    figures: DecisionMetrics
    metrics: Metrics


def resources_of(scope: Scope) -> Resources:
    """The resources of the app that serves this request."""
    resources: Resources = scope["state"]["resources"]
    return resources

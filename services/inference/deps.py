"""What the handlers work with: built once in the lifespan, found again on every request."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.asyncio import Redis
from starlette.types import Scope

from services.inference.catalogue import Catalogue, build_catalogue
from services.scoring.decisions import Served
from services.scoring.explain import Explainer
from services.scoring.follower import Follower
from services.scoring.idempotency import Idempotency
from services.scoring.metrics import DecisionMetrics
from services.scoring.publisher import Publisher
from services.scoring.registry import Bundle
from services.scoring.replay import Bundles
from shared.contract.events import Decision, ReasonsFound
from shared.contract.rollout import Rollout
from shared.observability.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class DocumentedBundle(Served):
    """A served bundle and the documents about it."""

    catalogue: Catalogue


def serve(
    metrics: DecisionMetrics,
    bundle: Bundle,
    rollout: Rollout | None = None,
    candidate: Bundle | None = None,
) -> DocumentedBundle:
    """Everything that is served of ``bundle``, which is the default arm of a roll-out if any."""
    return DocumentedBundle(
        bundle=bundle,
        metrics=metrics,
        rollout=rollout,
        candidate=candidate,
        catalogue=build_catalogue(bundle),
    )


@dataclass
class Resources:
    """The service's state between requests.

    ``served`` may be replaced at any time, in one assignment; a handler reads it once.
    """

    served: DocumentedBundle
    follower: Follower[DocumentedBundle]
    bundles: Bundles
    publisher: Publisher
    idempotency: Idempotency
    redis: Redis
    metrics: Metrics
    explainer: Explainer
    store_reasons: Callable[[ReasonsFound], Awaitable[Decision]]

    def deciding(self) -> DocumentedBundle:
        """What decides now; raises ``RolloutNotLoaded``."""
        self.follower.check_decides()
        return self.served


def resources_of(scope: Scope) -> Resources:
    """The resources of the app that serves this request."""
    resources: Resources = scope["state"]["resources"]
    return resources

"""Settings of the inference service, from environment variables of the same names."""

from pydantic import Field

from services.scoring.manifest import (
    MANIFEST_FILE,
    BundleError,
    bundle_folder,
    read_manifest,
)
from services.scoring.settings import DecidingSettings
from shared.access.limits import parse_limits
from shared.settings import CommonSettings, HttpAddress, RateLimit, SecretKey


class InferenceSettings(DecidingSettings, CommonSettings):
    """Where the models are, who may ask them, and how a decision is handed over."""

    history_url: HttpAddress = Field(
        default="http://127.0.0.1:8001", description="The history service, for hand-over by HTTP."
    )
    publish_redis_deadline_s: float = Field(default=0.5, gt=0)
    publish_http_deadline_s: float = Field(default=2.0, gt=0)
    idempotency_deadline_s: float = Field(
        default=0.5, gt=0, description="For each question to Redis about an Idempotency-Key."
    )
    idempotency_budget: int = Field(
        default=100_000,
        ge=0,
        description="Answers kept a day for the repeated requests of one client, and of all"
        " anonymous callers together; 450 bytes of Redis each.",
    )
    internal_api_key: SecretKey | None = Field(
        default=None, description="Key with the scope internal, for hand-over by HTTP."
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Whether callers without a key may ask for decisions; `make run` allows them on"
        " a loopback address.",
    )
    rate_limit_predict: RateLimit = Field(
        default=parse_limits("100/hour"), description="Per address, for anonymous callers."
    )
    rate_limit_explain: RateLimit = Field(
        default=parse_limits("100/hour"), description="Per address, for anonymous callers."
    )
    rate_limit_benchmark: RateLimit = Field(
        default=parse_limits("10/hour"), description="Per address, for anonymous callers."
    )


def bundle_faults(settings: InferenceSettings) -> list[str]:
    """A line if there is no bundle where ``settings`` say; its files are verified when loaded."""
    version = settings.bundle_version
    try:
        read_manifest(bundle_folder(settings.bundle_root, version) / MANIFEST_FILE)
    except BundleError as error:
        return [f"{'BUNDLE_VERSION' if version else 'BUNDLE_ROOT'}: {error}"]
    return []

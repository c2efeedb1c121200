"""Settings of the batch service and its worker, from environment variables of the same names."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from services.scoring.settings import DecidingSettings
from shared.settings import CommonSettings, HttpAddress, SecretKey

_SCHEME: Final = re.compile(r"postgres(?:ql(?:\+asyncpg)?)?://")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?")


def _database_url(value: str) -> str:
    """The form that the driver takes, of any of the spellings that the history service takes."""
    if not _SCHEME.match(value):
        raise ValueError("must start with postgresql:// (or postgres://)")
    return re.sub(r"([?&])ssl=", r"\1sslmode=", _SCHEME.sub("postgresql://", value, count=1))


def _hosts(value: object) -> object:
    if not isinstance(value, str):
        return value
    for host in value.split():
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host} is no host, such as bank.example or bank.example:8443")
    return tuple(value.lower().split())


# pydantic-settings would read it as JSON; it has a form of its own.
Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_hosts)]


class BatchSettings(DecidingSettings, CommonSettings):
    """What a batch may be, how long it is kept, and how it is worked off."""

    database_url: Annotated[str, AfterValidator(_database_url)] = Field(
        default="postgresql://postgres@127.0.0.1:5432/postgres",
        description="postgresql://user:password@host:port/name, or ?host=/socket/folder.",
    )
    database_connect_timeout_s: float = Field(default=3.0, gt=0)
    database_command_timeout_s: float = Field(default=30.0, gt=0)

    history_url: HttpAddress = Field(
        default="http://127.0.0.1:8001", description="The history service, for hand-over by HTTP."
    )
    publish_redis_deadline_s: float = Field(default=0.5, gt=0)
    publish_http_deadline_s: float = Field(default=2.0, gt=0)
    internal_api_key: SecretKey | None = Field(
        default=None, description="Key with the scope internal, for hand-over by HTTP."
    )

    batch_max_bytes: int = Field(default=32 * 1024 * 1024, ge=1, description="Of one file.")
    batch_max_rows: int = Field(default=1_000_000, ge=1, description="Of one file.")
    batch_retention_days: float = Field(
        default=7.0, gt=0, le=3650, description="A batch and its results are deleted after it."
    )
    batch_concurrency: int = Field(
        default=3, ge=1, le=32, description="Batches that one worker works on at a time."
    )
    batch_turn_s: float = Field(
        default=2.0, gt=0, description="How long a batch is worked on before others have a turn."
    )
    batch_lease_s: float = Field(
        default=15.0, gt=0, description="A worker that is silent for so long loses its batches."
    )
    batch_poll_s: float = Field(
        default=0.5, gt=0, le=60, description="Pause between two looks for something to do."
    )
    batch_stream_entries: int = Field(
        default=64,
        ge=1,
        description="No batch adds to a stream with more entries than this that are not stored"
        " yet; an entry holds up to 64 decisions.",
    )
    batch_webhook_hosts: Hosts = Field(
        default=(), description="Hosts that webhooks may go to, between spaces; none by default."
    )
    batch_webhook_secret: SecretStr | None = Field(
        default=None, description="Signs webhooks, as Standard Webhooks describes it."
    )

    metrics_port: int | None = Field(
        default=None, ge=1, le=65535, description="Port of the worker's metrics."
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of that port.")


def webhook_faults(settings: BatchSettings) -> list[str]:
    """A line if webhooks are allowed and could not be signed."""
    if settings.batch_webhook_hosts and not settings.batch_webhook_secret:
        return ["BATCH_WEBHOOK_HOSTS: webhooks have to be signed: set BATCH_WEBHOOK_SECRET"]
    return []

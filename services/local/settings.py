"""Settings of a local run, from environment variables of the same names."""

import socket
from itertools import combinations
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LocalSettings(BaseSettings):
    """Addresses, the data folder, and servers that replace the embedded ones."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: str | None = Field(
        default=None, description="A running PostgreSQL to use instead of the embedded one."
    )
    redis_url: str | None = Field(
        default=None, description="A running Redis to use instead of the embedded one."
    )
    local_host: str = Field(default="127.0.0.1", description="Address that all services bind.")
    inference_port: int = Field(default=8000, ge=1, le=65535)
    history_port: int = Field(default=8001, ge=1, le=65535)
    dashboard_port: int = Field(default=8002, ge=1, le=65535)
    metrics_port: int = Field(
        default=8003, ge=1, le=65535, description="Port of the consumer's metrics; it has no API."
    )
    batch_port: int = Field(default=8004, ge=1, le=65535)
    batch_metrics_port: int = Field(
        default=8005, ge=1, le=65535, description="Port of the batch worker's metrics."
    )
    local_data: Path = Field(default=Path(".local"), description="Folder of data and logs.")

    @property
    def ports(self) -> dict[str, int]:
        """The port of each service, by its variable."""
        return {
            "INFERENCE_PORT": self.inference_port,
            "HISTORY_PORT": self.history_port,
            "DASHBOARD_PORT": self.dashboard_port,
            "METRICS_PORT": self.metrics_port,
            "BATCH_PORT": self.batch_port,
            "BATCH_METRICS_PORT": self.batch_metrics_port,
        }

    @property
    def bundle_store(self) -> Path:
        """Where bundles are published."""
        return self.local_data.resolve() / "published"

    @property
    def key_file(self) -> Path:
        """Where a run keeps the API key that it made for this machine."""
        return self.local_data.resolve() / "api-key"


def run_faults(settings: LocalSettings) -> list[str]:
    """A line for each setting with which no run could listen, whatever else listens."""
    faults = [
        f"{second}: is {port}, and so is {first}"
        for (first, port), (second, other) in combinations(settings.ports.items(), 2)
        if port == other
    ]
    try:
        socket.create_server((settings.local_host, 0)).close()
    except (OSError, UnicodeError):
        faults.append("LOCAL_HOST: is no IPv4 address of this machine, such as 127.0.0.1")
    return faults

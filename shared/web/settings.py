"""Settings of the server of every service, from environment variables of the same names."""

from ipaddress import ip_network
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, IPvAnyNetwork
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

REQUEST_TIMEOUT_S: Final = 10.0
"""By default, from a request's first byte to its last, and from connecting to the first byte."""


def _networks(value: object) -> object:
    if isinstance(value, str):
        return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
    return value


# pydantic-settings would read it as JSON; it has the form that uvicorn uses.
Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_networks)]


class ServerSettings(BaseSettings):
    """How a service leaves and which proxies it trusts, from environment variables."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False
    )

    forwarded_allow_ips: Networks = Field(
        default=(),
        description="Proxies whose X-Forwarded-For is trusted: addresses and networks, separated"
        " by commas. None by default.",
    )
    drain_s: float = Field(
        default=0,
        ge=0,
        description="After SIGTERM, how long to go on serving while /readyz is 503, so that load"
        " balancers notice.",
    )
    request_timeout_s: float = Field(
        default=REQUEST_TIMEOUT_S, gt=0, description="How long a request may take to come in."
    )
    root_path: str = Field(
        default="",
        pattern="^(/.*[^/])?$",
        description="The path prefix under which a gateway serves the app and which it strips.",
    )
    shutdown_grace_s: int = Field(
        default=20, ge=1, description="After that, how long requests in progress may take."
    )

"""Settings of the dashboard, from environment variables of the same names."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from shared.access.limits import parse_limits
from shared.access.passwords import check_entry
from shared.observability.logs import LogSettings
from shared.settings import HttpAddress, RateLimit, SecretKey


class DashboardSettings(LogSettings):
    """Where the services are, the key for them, and who may use the dashboard."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    inference_url: HttpAddress = Field(default="http://127.0.0.1:8000")
    history_url: HttpAddress | None = Field(
        default="http://127.0.0.1:8001",
        description="None where one gateway at INFERENCE_URL stands before all services.",
    )
    batch_url: HttpAddress | None = Field(
        default="http://127.0.0.1:8004", description="The batch service; not used behind a gateway."
    )
    dashboard_api_key: SecretKey | None = Field(
        default=None,
        description="Key with the scopes predict, batch, history:read and replay; never shown.",
    )
    dashboard_password: Annotated[str, AfterValidator(check_entry)] | None = Field(
        default=None,
        repr=False,
        description="scrypt:cost:salt:hash, as make password prints; without it only this machine"
        " may use the dashboard without signing in, and others with an API key of their own.",
    )
    rate_limit_dashboard: RateLimit = Field(
        default=parse_limits("1200/minute"),
        description="Requests of each session, and of each address that has not signed in.",
    )

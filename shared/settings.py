"""Settings that every process reads, from environment variables of the same names."""

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from shared.access.api_keys import ApiKey, parse_keys
from shared.access.rate_limit import Limits, parse_limits
from shared.observability.logs import LogSettings


def _keys(value: object) -> object:
    return parse_keys(value) if isinstance(value, str) else value


def _keys_in_file(value: object) -> object:
    if not isinstance(value, str | Path):
        return value
    try:
        return parse_keys(Path(value).read_text(encoding="ascii"))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def _limits(value: object) -> object:
    return parse_limits(value) if isinstance(value, str) else value


_ORIGIN: Final = re.compile(
    r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?|https?://\[[0-9a-f:]+\](?::[0-9]{1,5})?"
)


def _origins(value: object) -> object:
    if not isinstance(value, str):
        return value
    origins = tuple(value.split())
    for origin in origins:
        # "*" is none either: this is a list of those who may, not of all.
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin} is no origin, such as https://bank.example")
    return origins


# pydantic-settings would read these as JSON; they have a form of their own.
ApiKeys = Annotated[tuple[ApiKey, ...], NoDecode, BeforeValidator(_keys)]
ApiKeysFile = Annotated[tuple[ApiKey, ...], NoDecode, BeforeValidator(_keys_in_file)]
RateLimit = Annotated[Limits, NoDecode, BeforeValidator(_limits)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)]


class CommonSettings(LogSettings):
    """The base of each process's settings; an unusable value stops the start with its name."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        protected_namespaces=(),
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="Hand-over stream, cache and rate-limit counters; redis:// or unix://.",
    )
    api_keys: ApiKeys = Field(
        default=(),
        description="Entries name:limits:sha256:scope,scope between spaces, as make key prints.",
    )
    api_keys_file: ApiKeysFile = Field(
        default=(), description="Path of a file with more such entries, such as a mounted secret."
    )
    rate_limit_other: RateLimit = Field(
        default=parse_limits("200/hour;1000/day"),
        description="Per address, for anonymous callers, where nothing else is said.",
    )
    cors_allow_origins: Origins = Field(
        default=(),
        description="Web pages that may use the API, as origins (https://…) between spaces.",
    )

    @property
    def all_keys(self) -> tuple[ApiKey, ...]:
        """The keys that were given, in the environment and in the file."""
        return self.api_keys + self.api_keys_file

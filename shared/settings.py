"""How a process reads its settings, and those that every service has.

A setting is an environment variable of the same name. Each unusable one is one line, and nothing
is started: neither with a value that cannot be used, nor with one that a misspelt name hides.
"""

import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.access.api_keys import ApiKey, parse_keys
from shared.access.limits import Limits, parse_limits
from shared.contract.errors import message_of
from shared.observability.logs import LogSettings, get_logger
from shared.observability.tracing import http_address
from shared.redis import parse_address, why_unusable

_NEAR: Final = 0.88
"""From this similarity on, a name counts as another one misspelt; no two settings are so near."""
_OTHER_NAMES: Final = frozenset({"API_KEY"})
"""Variables of the product that no process reads as a setting: the key that tools show."""

_log = get_logger(__name__)
S = TypeVar("S", bound=BaseSettings)


class UnusableSettings(Exception):
    """Settings that cannot be used; ``faults`` has one line for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def read_settings(kind: type[S]) -> S:
    """The settings of ``kind`` from the environment; raises ``UnusableSettings``."""
    faults = misspelt({name.upper() for name in kind.model_fields})
    try:
        settings = kind()
    except ValidationError as error:
        unusable = [
            f"{str(fault['loc'][0]).upper()}: {message_of(fault)}" for fault in error.errors()
        ]
        raise UnusableSettings(faults + unusable) from None
    if faults:
        raise UnusableSettings(faults)
    return settings


def read_settings_or_exit(kind: type[S], *checks: Callable[[S], list[str]]) -> S:
    """As ``read_settings``; raises ``SystemExit`` after logging one line per unusable setting.

    Each of ``checks`` returns such lines for settings that are usable in themselves.
    """
    try:
        settings = read_settings(kind)
        if faults := [fault for check in checks for fault in check(settings)]:
            raise UnusableSettings(faults)
        return settings
    except UnusableSettings as error:
        for fault in error.faults:
            name, _, reason = fault.partition(": ")
            _log.critical("unusable setting", setting=name, reason=reason)
        raise SystemExit(2) from None


def misspelt(names: set[str]) -> list[str]:
    """A line for each environment variable that is near one of ``names`` and not one itself."""
    given = {name.upper() for name in os.environ}
    faults = []
    for name in sorted(given - names - _OTHER_NAMES):
        # A setting that is given under its own name was not misspelt.
        near = get_close_matches(name, names - given, n=1, cutoff=_NEAR)
        faults += [f"{name}: there is no such setting; the nearest is {near[0]}"] if near else []
    return faults


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
        # "*" is refused, too: the list names who may.
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin} is no origin, such as https://bank.example")
    return origins


def _key(value: SecretStr) -> SecretStr:
    if not re.fullmatch("[!-~]*", value.get_secret_value()):
        raise ValueError("is no API key as make key prints it: it has other characters")
    return value


HttpAddress = Annotated[str, AfterValidator(http_address)]
SecretKey = Annotated[SecretStr, AfterValidator(_key)]
"""An API key of this process's own, which it sends in a header."""

# pydantic-settings would read these as JSON; they have a form of their own.
ApiKeys = Annotated[tuple[ApiKey, ...], NoDecode, BeforeValidator(_keys)]
ApiKeysFile = Annotated[tuple[ApiKey, ...], NoDecode, BeforeValidator(_keys_in_file)]
RateLimit = Annotated[Limits, NoDecode, BeforeValidator(_limits)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)]


def _redis_url(value: str) -> str:
    parse_address(value)
    return value


class CommonSettings(LogSettings):
    """The base of each process's settings; an unusable value stops the start with its name."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        protected_namespaces=(),
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    redis_url: Annotated[str, AfterValidator(_redis_url)] = Field(
        default="redis://127.0.0.1:6379/0",
        description="Decision stream, cache and rate-limit counts: see ``shared.redis``.",
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
        description="Per address, for anonymous callers, where no other limit applies.",
    )
    cors_allow_origins: Origins = Field(
        default=(),
        description="Web pages that may use the API, as origins (https://…) between spaces.",
    )

    @property
    def all_keys(self) -> tuple[ApiKey, ...]:
        """The keys of the environment and of the file."""
        return self.api_keys + self.api_keys_file


def redis_faults(settings: CommonSettings) -> list[str]:
    """A line if the Redis of ``settings`` answers that it can never be used, for the start."""
    reason = why_unusable(settings.redis_url)
    return [] if reason is None else [f"REDIS_URL: {reason}"]

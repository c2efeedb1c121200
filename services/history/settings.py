"""Settings of the history service and its consumer, from variables of the same names."""

import os
import socket
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from services.scoring.settings import BundleSettings
from shared.contract.events import KEY_PREFIX
from shared.settings import CommonSettings

CACHE_PREFIX = f"{KEY_PREFIX}history"
"""Starts every key of the cache; the consumer invalidates what the API reads."""

_DRIVER = "postgresql+asyncpg"
_ACCEPTED = {"postgres", "postgresql", _DRIVER}
_OPTIONS = {"host", "port", "ssl"}
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def parse_database_url(value: object) -> URL:
    """The one form the engine takes, from any of the spellings that hosts hand out.

    ``postgres://``, ``postgresql://`` and ``postgresql+asyncpg://`` mean the same. The options may
    be ``host=/socket/folder``, ``port`` and libpq's ``sslmode``, which asyncpg calls ``ssl``.
    Raises ``ValueError`` for anything else, without repeating the value: it may hold a password.
    """
    if isinstance(value, URL):
        url = value
    else:
        # A password may hold a colon and a hash, so only the scheme is read by hand.
        scheme, separator, rest = str(value).partition("://")
        if not separator or scheme not in _ACCEPTED:
            raise ValueError("must start with postgresql:// (or postgres://)")
        try:
            url = make_url(f"{_DRIVER}://{rest}")
        except (ArgumentError, ValueError):
            raise ValueError("is not a database URL that can be read") from None
    query = dict(url.query)
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    if unknown := sorted(query.keys() - _OPTIONS):
        raise ValueError(f"has the option {unknown[0]}; only host, port and sslmode are known")
    _check_ssl_mode(query.get("ssl"))
    url = url.set(drivername=_DRIVER, query=query)
    _check_address(url)
    return url


def _check_ssl_mode(mode: object) -> None:
    if mode is not None and mode not in _SSL_MODES:
        raise ValueError(f"has an unknown sslmode; it is one of {', '.join(_SSL_MODES)}")
    if mode in ("verify-ca", "verify-full"):
        # Where the driver looks, too.
        authorities = os.environ.get("PGSSLROOTCERT") or Path.home() / ".postgresql" / "root.crt"
        if not Path(authorities).is_file():
            raise ValueError(f"needs the authority's certificate for sslmode={mode}: PGSSLROOTCERT")


def _check_address(url: URL) -> None:
    try:
        _, options = url.get_dialect()().create_connect_args(url)
        ports = options.get("port", 5432)
        for port in ports if isinstance(ports, list) else [ports]:
            if not 0 < int(port) <= 65535:
                raise ValueError
        (url.host or "").encode("idna")
    except (ArgumentError, ValueError):
        raise ValueError("has a host or a port that cannot be used") from None


# A URL is a tuple to pydantic-settings, which would read it as JSON.
DatabaseUrl = Annotated[URL, NoDecode, BeforeValidator(parse_database_url)]


class HistorySettings(BundleSettings, CommonSettings):
    """Where decisions are stored, how long answers are cached and how the stream is consumed."""

    database_url: DatabaseUrl = Field(
        default=URL.create(
            _DRIVER, username="postgres", host="127.0.0.1", port=5432, database="postgres"
        ),
        description="postgresql://user:password@host:port/name, or ?host=/socket/folder.",
    )
    database_pool_size: int = Field(default=10, ge=1, le=100)
    database_connect_timeout_s: float = Field(default=3.0, gt=0)
    database_command_timeout_s: float = Field(default=30.0, gt=0)

    cache_deadline_s: float = Field(
        default=0.1,
        gt=0,
        description="Longest wait for a connection to the cache, and then for its answer.",
    )
    statistics_ttl_s: int = Field(default=60, ge=1)
    analytics_ttl_s: int = Field(default=120, ge=1)
    list_ttl_s: int = Field(default=30, ge=1)
    record_ttl_s: int = Field(default=300, ge=1)

    fairness_screen: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Ratio of approval rates below which, or above whose reciprocal, groups are"
        " outside the screen; 0.8 is the four-fifths rule of thumb.",
    )

    retention_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="Older decisions are erased; without it all are kept for ever.",
    )
    retention_pause_s: float = Field(
        default=21_600.0, gt=0, description="Pause between two runs that erase old decisions."
    )

    rollout_approvals: int = Field(
        default=1, ge=1, le=2, description="2 has another key approve each change of the roll-out."
    )
    rollout_guard_difference: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="A candidate whose approval share surely differs by more loses its share.",
    )
    rollout_guard_pause_s: float = Field(
        default=5.0, gt=0, description="Pause between two looks at the candidate."
    )

    database_budget_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Largest intended size of the database; exported as a metric only.",
    )

    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port of the consumer's metrics; not exposed by default. The API's"
        " are at /metrics.",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of that port.")

    consumer_name: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        description="Name within the consumer group; consumers on one host may share it.",
    )
    consumer_batch_size: int = Field(default=1000, ge=1, le=1000)
    consumer_block_s: float = Field(
        default=1.0, gt=0, le=60, description="Longest wait of one read of an empty stream."
    )
    consumer_gather_s: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="How long events gather on the stream after a read that brought less than a"
        " batch.",
    )
    consumer_reclaim_idle_s: float = Field(
        default=5.0, gt=0, description="Age at which unacknowledged entries are taken over."
    )
    consumer_max_deliveries: int = Field(
        default=5, ge=1, description="Deliveries after which an unusable entry is put aside."
    )
    consumer_retry_max_s: float = Field(
        default=5.0, gt=0, description="Longest pause between attempts while a server is down."
    )

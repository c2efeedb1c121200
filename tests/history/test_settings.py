"""The settings: every spelling of a database URL means the same."""

import pytest
from pydantic import ValidationError

from services.history.settings import HistorySettings, parse_database_url
from shared.settings import UnusableSettings, read_settings


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_spelling_of_the_scheme_means_the_same(scheme: str) -> None:
    """Hosting providers hand out the first two; the third is the driver's own."""
    url = parse_database_url(f"{scheme}://me:p%40ss@db.example:5433/loans")
    assert url.render_as_string(hide_password=False) == (
        "postgresql+asyncpg://me:p%40ss@db.example:5433/loans"
    )


def test_socket_folder_and_sslmode_in_the_query_are_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A socket folder stays as it is; libpq's sslmode becomes the driver's ssl."""
    monkeypatch.setenv("DATABASE_URL", "postgres://me@/loans?host=/run/pg&sslmode=require")
    assert dict(HistorySettings().database_url.query) == {"host": "/run/pg", "ssl": "require"}


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("db/x?statement_cache_size=0", "has the option statement_cache_size"),
        ("db/x?sslmode=strict", "has an unknown sslmode"),
        ("db/x?sslmode=verify-full", "needs the authority's certificate"),
        ("db/x?sslmode=require&sslmode=disable", "has an unknown sslmode"),
        ("db:99999/x", "has a host or a port that cannot be used"),
        ("/x?host=/run/pg&port=many", "has a host or a port that cannot be used"),
        ("/x?host=one,two", "has a host or a port that cannot be used"),
        (f"{'a' * 64}/x", "has a host or a port that cannot be used"),
    ],
)
def test_unusable_options_of_the_url_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    """At the start, not as an error of each request."""
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://me:hunter2@{address}")
    with pytest.raises(UnusableSettings) as caught:
        read_settings(HistorySettings)
    [fault] = caught.value.faults
    assert fault.startswith(f"DATABASE_URL: {reason}")
    assert "hunter2" not in fault


@pytest.mark.parametrize("url", ["", "mysql://me:hunter2@db/loans", "postgres://me:hunter2@db:x/y"])
def test_unusable_url_is_refused_without_showing_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """The start stops with the setting's name, and the log keeps no secret."""
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(ValidationError) as caught:
        HistorySettings()
    assert "database_url" in str(caught.value)
    assert "hunter2" not in str(caught.value)

"""Settings that have a form of their own, and where keys come from."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.access.api_keys import mint_key
from shared.settings import CommonSettings, UnusableSettings, read_settings


def test_origins_are_a_list_between_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scheme, host and port, as browsers send them."""
    monkeypatch.setenv("CORS_ALLOW_ORIGINS", " https://bank.example  http://127.0.0.1:3000 ")
    settings = CommonSettings()
    assert settings.cors_allow_origins == ("https://bank.example", "http://127.0.0.1:3000")
    monkeypatch.setenv("CORS_ALLOW_ORIGINS", "")
    assert CommonSettings().cors_allow_origins == ()


@pytest.mark.parametrize(
    "origin", ["*", "null", "bank.example", "https://bank.example/", "file://x"]
)
def test_what_is_no_origin_stops_the_start(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    """A list that would match nothing, or everything, is refused at once."""
    monkeypatch.setenv("CORS_ALLOW_ORIGINS", origin)
    with pytest.raises(ValidationError, match="origin"):
        CommonSettings()


def test_keys_come_from_the_environment_and_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted secret beside the environment; both hold hashes alone."""
    entries = [mint_key(name, ["predict"])[1] for name in ("one", "two", "three")]
    file = tmp_path / "api-keys"
    file.write_text("\n".join(entries[1:]) + "\n")
    monkeypatch.setenv("API_KEYS", entries[0])
    monkeypatch.setenv("API_KEYS_FILE", str(file))
    names = [key.caller.name for key in CommonSettings().all_keys]
    assert names == ["one", "two", "three"]


@pytest.mark.parametrize("content", [None, "bank:often"])
def test_unusable_file_of_keys_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    """Rather than a service without keys."""
    file = tmp_path / "api-keys"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("API_KEYS_FILE", str(file))
    with pytest.raises(ValidationError, match="api_keys_file"):
        CommonSettings()


@pytest.mark.parametrize("given", ["RATE_LIMIT_OTHE", "REDIS_ULR", "rate_limits_other"])
def test_misspelt_setting_is_named_with_its_nearest(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """Otherwise the default would apply and seem to be the given value."""
    monkeypatch.setenv(given, "1/hour")
    with pytest.raises(UnusableSettings) as caught:
        read_settings(CommonSettings)
    nearest = "REDIS_URL" if given == "REDIS_ULR" else "RATE_LIMIT_OTHER"
    assert caught.value.faults == [
        f"{given.upper()}: there is no such setting; the nearest is {nearest}"
    ]


def test_variable_beside_the_setting_it_resembles_is_another_program_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hosts set REDIS_URI beside REDIS_URL; nothing is hidden then."""
    monkeypatch.setenv("REDIS_URI", "redis://elsewhere")
    monkeypatch.setenv("REDIS_URL", "redis://here")
    assert read_settings(CommonSettings).redis_url == "redis://here"


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache:6379/0",
        "rediss://me:p%40ss@cache",
        "unix:///run/redis.sock?db=1",
        "redis+cluster://:hunter2@one:7000,two:7001",
        "rediss+cluster://[::1]:7000",
        "redis+sentinel://one,two:26380/loan",
        "redis+sentinel://me:hunter2@one:26379/loan/2",
    ],
)
def test_address_of_redis_is_that_of_a_server_a_cluster_or_sentinels(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    assert read_settings(CommonSettings).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cache:6379",
        "http://:hunter2@cache",
        "redis://:hunter2@cache:port",
        "redis://:hunter2@cache?attempts=3",
        "redis://:hunter2@cache?socket_timeout=9",
        "redis://:hunter2@cache?retry_on_error=x",
        "redis://:hunter2@cache?decode_responses=1",
        "redis://:hunter2@cache?protocol=9",
        "redis://:hunter2@cache/decisions",
        "rediss://:hunter2@cache?ssl_cert_reqs=some",
        "redis+cluster://:hunter2@one,,two",
        "redis+sentinel://:hunter2@one:26379",
        "unix+cluster:///hunter2",
    ],
)
def test_unusable_address_of_redis_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(UnusableSettings) as caught:
        read_settings(CommonSettings)
    [fault] = caught.value.faults
    assert fault.startswith("REDIS_URL: ")
    assert "hunter2" not in fault

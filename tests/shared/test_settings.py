"""Settings that have a form of their own."""

import pytest
from pydantic import ValidationError

from shared.settings import CommonSettings


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
    """A list that would match nothing, or everybody, is told at once."""
    monkeypatch.setenv("CORS_ALLOW_ORIGINS", origin)
    with pytest.raises(ValidationError, match="origin"):
        CommonSettings()

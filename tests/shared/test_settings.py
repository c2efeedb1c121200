"""Where keys come from."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.clients import mint_key
from shared.settings import CommonSettings


def test_keys_come_from_the_environment_and_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted secret beside the environment; both hold hashes alone."""
    entries = [mint_key(name, ["predict"])[1] for name in ("one", "two", "three")]
    file = tmp_path / "api-keys"
    file.write_text("\n".join(entries[1:]) + "\n")
    monkeypatch.setenv("API_KEYS", entries[0])
    monkeypatch.setenv("API_KEYS_FILE", str(file))
    names = [key.client.name for key in CommonSettings().all_keys]
    assert names == ["one", "two", "three"]


@pytest.mark.parametrize("content", [None, "bank:often"])
def test_unusable_file_of_keys_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    """Rather than a service that knows nobody."""
    file = tmp_path / "api-keys"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("API_KEYS_FILE", str(file))
    with pytest.raises(ValidationError, match="api_keys_file"):
        CommonSettings()

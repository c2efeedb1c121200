"""Fresh secrets for clients and for a new installation."""

import io
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from shared.access import keys
from shared.access.api_keys import KEY_SCOPES, Caller, parse_keys
from shared.access.passwords import is_password

_ROOT = Path(__file__).parents[3]
_TEMPLATE = (_ROOT / ".env.example").read_text()


def _values(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z_]+)=\"?(.*?)\"?$", text, re.MULTILINE))


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _clients(entries: str) -> dict[str, Caller]:
    return {key.caller.name: key.caller for key in parse_keys(entries)}


def test_env_template_is_filled_with_keys_that_fit_each_other() -> None:
    """The secrets are those of the entries: for the operator, the services and the dashboard."""
    values = _values(keys.fill(_TEMPLATE))
    assert all(values.values())
    clients = _clients(values["API_KEYS"])
    assert clients["internal"].scopes == {"internal"}
    assert clients["operator"].scopes == set(KEY_SCOPES) - {"internal"}
    digests = [key.digest.hex() for key in parse_keys(values["API_KEYS"])]
    assert digests == [
        _digest(values["API_KEY"]),
        _digest(values["INTERNAL_API_KEY"]),
        _digest(values["DASHBOARD_API_KEY"]),
    ]
    assert clients["dashboard"].scopes == {
        *("predict", "batch", "history:read", "outcomes:write", "replay"),
    }
    assert is_password(values["DASHBOARD_LOGIN"], values["DASHBOARD_PASSWORD"])


def test_env_template_is_filled_anew_each_time_and_fits_a_url() -> None:
    """No two installations share a secret, and no password needs escaping."""
    first, second = (_values(keys.fill(_TEMPLATE)) for _ in range(2))
    for name in (
        "POSTGRES_PASSWORD",
        "REDIS_PASSWORD",
        "API_KEY",
        "INTERNAL_API_KEY",
        "API_KEYS",
        "GRAFANA_PASSWORD",
    ):
        assert first[name] != second[name]
    assert re.fullmatch("[0-9a-f]{48}", first["POSTGRES_PASSWORD"])
    assert re.fullmatch("[0-9a-f]{48}", first["REDIS_PASSWORD"])


def test_template_without_a_secret_is_refused() -> None:
    """Rather than an installation with an empty password."""
    with pytest.raises(ValueError, match="one line REDIS_PASSWORD="):
        keys.fill(_TEMPLATE.replace("REDIS_PASSWORD=\n", ""))


def test_env_command_reads_the_template_and_prints_it_filled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As make env calls it."""
    monkeypatch.setattr("sys.stdin", io.StringIO(_TEMPLATE))
    assert keys.main(["env"]) == 0
    assert _values(capsys.readouterr().out).keys() == _values(_TEMPLATE).keys()


def test_mint_command_prints_the_secret_and_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
    """As make key calls it."""
    assert keys.main(["mint", "bank", "predict,history:read", "1000/hour"]) == 0
    secret, entry = (line.split()[-1] for line in capsys.readouterr().out.splitlines())
    assert _digest(secret) in entry
    assert _clients(entry)["bank"].scopes == {"predict", "history:read"}


def test_mint_command_says_what_is_wrong_with_a_scope(capsys: pytest.CaptureFixture[str]) -> None:
    """With the exit code of a wrong argument."""
    with pytest.raises(SystemExit) as stopped:
        keys.main(["mint", "bank", "everything"])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "unknown scopes ['everything']; there are" in message
    assert all(scope in message for scope in KEY_SCOPES)


@pytest.mark.system
def test_make_key_needs_nothing_but_the_environment(tmp_path: Path) -> None:
    """Where the project is installed a key is made without Docker."""
    installed = tmp_path / "installed"
    installed.touch()
    made = subprocess.run(
        [
            *("make", "--no-print-directory", "key", "NAME=bank", "SCOPES=predict,history:read"),
            *("LIMITS=10/hour", f"INSTALLED={installed}", f"PY={sys.executable}"),
        ],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    secret, entry = (line.split()[-1] for line in made.stdout.splitlines())
    assert _digest(secret) in entry
    [bank] = _clients(entry).values()
    assert bank.name == "bank"
    assert bank.scopes == {"predict", "history:read"}


def test_password_command_prints_the_hash_of_what_was_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never the password itself, and each time with another salt."""
    monkeypatch.setattr("getpass.getpass", lambda _: "correct horse")
    assert keys.main(["password"]) == 0
    assert keys.main(["password"]) == 0
    first, second = capsys.readouterr().out.split()
    assert first != second
    assert is_password("correct horse", first)
    assert not is_password("correct horse ", first)

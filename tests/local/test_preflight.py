"""Before anything starts: one run per folder, no leftovers, free ports."""

import socket
from pathlib import Path

import pytest

from services.local.preflight import check_ports, clear_leftovers, local_key, only_run_in
from services.local.processes import CannotStart, Process
from services.local.settings import LocalSettings, run_faults
from tests.harness import HOST, free_port

_PORTS = tuple(LocalSettings().ports)


def test_second_run_in_the_same_folder_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    """The sentence names the running process and the way out."""
    with only_run_in(tmp_path), pytest.raises(CannotStart) as caught, only_run_in(tmp_path):
        pass
    assert "is running already (process " in str(caught.value)
    assert "set LOCAL_DATA to another folder" in str(caught.value)
    with only_run_in(tmp_path):
        pass


def test_unusable_folder_is_named_with_its_variable(tmp_path: Path) -> None:
    """A file cannot hold the data."""
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(CannotStart, match=r"\(LOCAL_DATA\) cannot be used"), only_run_in(file):
        pass


@pytest.mark.parametrize("variable", _PORTS)
@pytest.mark.parametrize("address", [HOST, "0.0.0.0"])  # noqa: S104 - the case under test
def test_taken_port_is_named_with_its_variable(
    variable: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when what listens there listens on every address."""
    for name in _PORTS:
        monkeypatch.setenv(name, str(free_port()))
    with socket.create_server((address, 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setenv(variable, str(port))
        with pytest.raises(CannotStart) as caught:
            check_ports(LocalSettings())
    assert str(caught.value) == (
        f"Port {port} on {HOST} is taken: stop what listens there, "
        f"or choose another with {variable}."
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "::1", "a..b"])
def test_address_where_this_machine_cannot_listen_is_an_unusable_setting(host: str) -> None:
    """Such as another machine's (RFC 5737), or none at all."""
    [fault] = run_faults(LocalSettings(local_host=host))
    assert fault.startswith("LOCAL_HOST: is no IPv4 address of this machine")


def test_same_port_twice_is_an_unusable_setting() -> None:
    """Only one of the two could listen."""
    for settings, fault in (
        (LocalSettings(history_port=8000), "HISTORY_PORT: is 8000, and so is INFERENCE_PORT"),
        (LocalSettings(dashboard_port=8001), "DASHBOARD_PORT: is 8001, and so is HISTORY_PORT"),
        (LocalSettings(metrics_port=8000), "METRICS_PORT: is 8000, and so is INFERENCE_PORT"),
    ):
        assert run_faults(settings) == [fault]
    assert run_faults(LocalSettings()) == []


def test_free_ports_pass() -> None:
    """And stay free: checking leaves nothing behind."""
    settings = LocalSettings.model_validate({name.lower(): free_port() for name in _PORTS})
    check_ports(settings)
    check_ports(settings)


@pytest.mark.system
def test_leftovers_are_stopped_and_named_and_former_logs_kept(tmp_path: Path) -> None:
    """The log of a run that ended badly is worth more than an empty one."""
    log = tmp_path / "consumer.log"
    consumer = Process(
        "consumer",
        ["sh", "-c", "echo former; exec sleep 60"],
        folder=tmp_path,
        ready=lambda _pid: log.read_text() == "former\n",
    )
    consumer.start()
    assert clear_leftovers(tmp_path) == ["consumer"]
    assert not consumer.running
    assert not log.exists()
    assert (tmp_path / "consumer.log.1").read_text() == "former\n"
    assert clear_leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"two\nlines", b"two words", "lp_\u00e9".encode()]
)
def test_damaged_key_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    """Which says what to do; a run would be useless with it."""
    file = tmp_path / "api-key"
    file.write_bytes(content)
    with pytest.raises(CannotStart, match="holds no API key; delete it") as caught:
        local_key(file)
    assert "lp_" not in str(caught.value).removeprefix(str(file))
    file.unlink()
    secret = local_key(file)
    assert local_key(file) == secret
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(CannotStart, match="cannot be used"):
        local_key(tmp_path)

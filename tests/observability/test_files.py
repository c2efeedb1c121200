"""The files for Grafana, Prometheus and the Alertmanager fit together."""

import json
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.observability.files import DASHBOARDS, FOLDER, PROMETHEUS, panels, read_yaml

_COMPOSE: Final = read_yaml(FOLDER.parents[1] / "docker-compose.yml")
_PROVISIONING: Final = FOLDER / "grafana" / "provisioning"
_SCRIPT: Final = FOLDER / "alertmanager.sh"


def test_scraped_services_share_one_network_with_prometheus() -> None:
    """Each job is a service of the stack, by name."""
    services = _COMPOSE["services"]
    for job in read_yaml(PROMETHEUS)["scrape_configs"]:
        assert "observability" in services[job["job_name"]]["networks"]
        if "dns_sd_configs" in job:
            (found,) = job["dns_sd_configs"]
            assert (found["names"], found["type"]) == ([job["job_name"]], "A")
    assert _COMPOSE["networks"]["observability"]["internal"]
    assert "observability" not in services["gateway"]["networks"]


@pytest.mark.parametrize("name", ["prometheus", "grafana", "alertmanager"])
def test_observers_are_as_confined_as_the_services(name: str) -> None:
    """They are reachable from this machine only, and start only on request."""
    service = _COMPOSE["services"][name]
    assert service["profiles"] == ["observability"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["user"].split(":")[0] != "0"
    assert service["healthcheck"]["test"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert service["mem_limit"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["networks"] == ["observability", "operators"]
    assert ":?" not in str(service)


@pytest.mark.system
def test_grafana_does_not_start_without_a_password() -> None:
    """It would treat an empty password as unset, and use admin for admin."""
    shell, option, script = _COMPOSE["services"]["grafana"]["entrypoint"]
    found = shutil.which(shell)
    assert found
    command = script.replace("$$", "$").replace("/run.sh", "echo started")
    for password, code in (("", 1), ("secret", 0)):
        env = {"PATH": "/usr/bin:/bin", "GF_SECURITY_ADMIN_PASSWORD": password}
        done = subprocess.run(
            [found, option, command], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == code
        assert ("GRAFANA_PASSWORD" in done.stderr) == (code == 1)


def test_dashboards_are_where_grafana_looks() -> None:
    """The first one is its home page."""
    (provider,) = read_yaml(_PROVISIONING / "dashboards" / "dashboards.yml")["providers"]
    grafana = _COMPOSE["services"]["grafana"]
    folder = provider["options"]["path"]
    assert f"./services/observability/grafana/dashboards:{folder}:ro" in grafana["volumes"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in [f"{folder}/{path.name}" for path in DASHBOARDS]
    assert [path.stem for path in DASHBOARDS] == ["models", "service"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_says_what_it_shows_in_which_unit(path: Path) -> None:
    """Its data source is provisioned, and no panel covers another."""
    sources = read_yaml(_PROVISIONING / "datasources" / "datasources.yml")["datasources"]
    prometheus = {"type": "prometheus", "uid": "prometheus"}
    assert prometheus in [{"type": each["type"], "uid": each["uid"]} for each in sources]
    taken: set[tuple[int, int]] = set()
    for panel in panels(path):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == prometheus
        assert panel["targets"]
        cells = _cells(panel["gridPos"])
        assert not cells & taken, panel["title"]
        taken |= cells


def test_dashboards_link_to_each_other() -> None:
    """They use uids that exist once."""
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    uids = [board["uid"] for board in boards]
    assert len(set(uids)) == len(uids)
    assert {link["url"] for board in boards for link in board["links"]} == {
        f"/d/{uid}" for uid in uids
    }


@pytest.mark.system
def test_alertmanager_without_a_receiver_starts_and_says_so(tmp_path: Path) -> None:
    """Alerts are shown, but not sent."""
    done = _start(tmp_path)
    assert done.returncode == 0
    assert "but not sent" in done.stderr
    assert _written(tmp_path)["receivers"] == [{"name": "operator"}]


@pytest.mark.system
def test_alertmanager_is_given_its_receiver_and_no_secret_as_an_argument(tmp_path: Path) -> None:
    """The password is in a private file, and YAML reads any value back unchanged."""
    said = "p'\"$x: #{{"
    done = _start(
        tmp_path,
        ALERT_EMAIL_TO="o'neil@bank.example",
        ALERT_SMTP_HOST="mail.bank.example:587",
        ALERT_SMTP_USER="user: #1",
        ALERT_SMTP_PASSWORD=said,
    )
    assert done.returncode == 0, done.stderr
    secret = tmp_path / "smtp-password"
    assert said not in done.stdout + done.stderr
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == (said, 0o600)
    (receiver,) = _written(tmp_path)["receivers"]
    assert receiver["email_configs"] == [
        {
            "to": "o'neil@bank.example",
            "from": "o'neil@bank.example",
            "smarthost": "mail.bank.example:587",
            "require_tls": True,
            "send_resolved": True,
            "auth_username": "user: #1",
            "auth_password_file": str(secret),
        }
    ]


@pytest.mark.system
def test_alertmanager_with_half_a_receiver_does_not_start(tmp_path: Path) -> None:
    """It would otherwise drop every alert silently."""
    done = _start(tmp_path, ALERT_EMAIL_TO="on-call@bank.example")
    assert done.returncode == 1
    assert "ALERT_SMTP_HOST" in done.stderr


def _start(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a program that prints its environment and arguments instead."""
    program = folder / "alertmanager"
    program.write_text('#!/bin/sh\nenv\necho "$@"\n')
    program.chmod(0o700)
    shell = shutil.which("sh")
    assert shell
    env = {"PATH": "/usr/bin:/bin", "ALERTMANAGER": str(program)}
    return subprocess.run(
        [shell, str(_SCRIPT), "--storage.path=/alertmanager"],
        env=env | {"ALERTMANAGER_CONFIG": str(folder)} | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def _written(folder: Path) -> Any:
    return read_yaml(folder / "alertmanager.yml")


def _cells(place: dict[str, int]) -> set[tuple[int, int]]:
    columns = range(place["x"], place["x"] + place["w"])
    assert columns[-1] < 24
    return {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}

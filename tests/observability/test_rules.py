"""The alerts, checked by promtool where it is installed; `make compose-test` always has it."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.observability.files import ALERTS, PROMETHEUS, RULES
from tests.observability.scenarios import SCENARIOS, Scenario

pytestmark = pytest.mark.system

_PROMTOOL: Final = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    _PROMTOOL is None,
    reason="promtool is not on the PATH (Debian's package prometheus has it)",
)


@needs_promtool
def test_configuration_and_rules_are_valid() -> None:
    """Prometheus accepts them."""
    _promtool("check", "config", str(PROMETHEUS))


@needs_promtool
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_alerts_fire_when_they_should_and_only_then(scenario: Scenario, tmp_path: Path) -> None:
    """Exactly the named alerts fire; before the fault, and too soon after it, none does."""
    file = tmp_path / "scenario.yml"
    file.write_text(scenario.file(RULES))
    _promtool("test", "rules", str(file))


def test_every_alert_has_a_scenario_in_which_it_fires() -> None:
    """The other scenarios are those in which it does not."""
    assert {alert["alert"] for alert in ALERTS} == set().union(*(each.fires for each in SCENARIOS))


def test_every_alert_says_what_it_means_and_where_to_read_on() -> None:
    """The runbook has a section under the alert's name."""
    chapters = (PROMETHEUS.parents[3] / "docs" / "operations.md").read_text().splitlines()
    for alert in ALERTS:
        said = alert["annotations"]
        assert said.keys() == {"summary", "description", "runbook"}, alert["alert"]
        assert said["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"
        assert f"### {alert['alert']}" in chapters
        assert alert["labels"]["severity"] in {"critical", "warning"}


def _promtool(*arguments: str) -> None:
    assert _PROMTOOL
    # Collecting garbage took a third of promtool's time: it does so for want of memory only. It
    # does one thing after another, which more than one processor only slows down.
    env = os.environ | {"GOGC": "off", "GOMEMLIMIT": "512MiB", "GOMAXPROCS": "1"}
    done = subprocess.run(
        [_PROMTOOL, *arguments], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

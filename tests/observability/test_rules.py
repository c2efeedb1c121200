"""The alerts, checked by promtool where it is installed; `make compose-test` always has it."""

import os
import shutil
import subprocess
from collections.abc import Mapping
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
    done = _promtool("check", "config", str(PROMETHEUS))
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What promtool says of each scenario, by its name; one start for all costs a third less."""
    folder = tmp_path_factory.mktemp("scenarios")
    for number, scenario in enumerate(SCENARIOS):
        (folder / f"{number}.yml").write_text(scenario.file(RULES))
    files = [str(folder / f"{number}.yml") for number in range(len(SCENARIOS))]
    _, *said = _promtool("test", "rules", *files).stdout.split("Unit Testing:")
    return {scenario.name: each for scenario, each in zip(SCENARIOS, said, strict=True)}


@needs_promtool
@pytest.mark.timeout(300)  # the first one waits for all of them
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_alerts_fire_when_they_should_and_only_then(
    scenario: Scenario, verdicts: Mapping[str, str]
) -> None:
    """Exactly the named alerts fire; before the fault, and too soon after it, none does."""
    assert verdicts[scenario.name].split()[1:] == ["SUCCESS"], verdicts[scenario.name]


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


def _promtool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    assert _PROMTOOL
    # Collecting garbage took a third of promtool's time: it does so for want of memory only. It
    # does one thing after another, which more than one processor only slows down.
    env = os.environ | {"GOGC": "off", "GOMEMLIMIT": "512MiB", "GOMAXPROCS": "1"}
    return subprocess.run(
        [_PROMTOOL, *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

"""Readers of the files in services/observability."""

import json
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parents[2] / "services" / "observability"
PROMETHEUS: Final = FOLDER / "prometheus" / "prometheus.yml"
RULES: Final = FOLDER / "prometheus" / "rules.yml"
DASHBOARDS: Final = sorted((FOLDER / "grafana" / "dashboards").glob("*.json"))


def read_yaml(path: Path) -> Any:
    """Parse a YAML file."""
    return yaml.safe_load(path.read_text())


_groups: Final = read_yaml(RULES)["groups"]
_rules: Final = [rule for group in _groups for rule in group["rules"]]
GROUPS: Final[list[str]] = [group["name"] for group in _groups]
"""Recording rules first, because alerts use them."""
ALERTS: Final[list[dict[str, Any]]] = [rule for rule in _rules if "alert" in rule]
RECORDED: Final[dict[str, str]] = {
    rule["record"]: rule["expr"] for rule in _rules if "record" in rule
}
"""Expression by name."""


def panels(dashboard: Path) -> list[dict[str, Any]]:
    """Return the panels of a dashboard, without the rows that divide it."""
    found: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def panel_queries() -> dict[str, str]:
    """Return every query of every dashboard, by dashboard, panel and letter."""
    return {
        f"{path.stem}: {panel['title']} ({target['refId']})": target["expr"]
        for path in DASHBOARDS
        for panel in panels(path)
        for target in panel["targets"]
    }

"""Rules and dashboards use only metrics and labels that the code exports."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from shared.observability.metrics import names
from tests.observability.files import ALERTS, DASHBOARDS, RECORDED, panel_queries, panels
from tests.observability.promql import Asked, asked_for
from tests.observability.scenarios import SCENARIOS

_OF_PROMETHEUS: Final = {"up": set[str](), "ALERTS": {"alertname", "alertstate", "severity"}}
_OF_EVERY_TARGET: Final = {"job", "instance"}
_LEGEND: Final = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")

_EXPRESSIONS: Final[Mapping[str, str]] = (
    panel_queries()
    | {alert["alert"]: alert["expr"] for alert in ALERTS}
    | {f"record {name}": expression for name, expression in RECORDED.items()}
)


def _exported() -> dict[str, set[str]]:
    """Return the labels of each series, by the name under which Prometheus stores it."""
    found = dict(_OF_PROMETHEUS)
    for name, metric in names.BY_NAME.items():
        labels = set(metric.labels)
        if isinstance(metric, names.Histogram):
            found |= {f"{name}_sum": labels, f"{name}_count": labels}
            found[f"{name}_bucket"] = labels | {"le"}
        else:
            found[name] = labels
    return found


def _known() -> dict[str, set[str]]:
    """Return exported series, and recorded ones with the labels they are grouped by."""
    recorded = {name: asked_for(expression).grouped_by for name, expression in RECORDED.items()}
    return _exported() | recorded


@pytest.mark.parametrize("where", _EXPRESSIONS)
def test_every_metric_and_label_is_exported(where: str) -> None:
    """The catalogue lists everything that the processes export."""
    asked = asked_for(_EXPRESSIONS[where])
    known = _known()
    assert asked.labels_by_metric.keys() <= known.keys()
    for metric, labels in asked.labels_by_metric.items():
        assert labels <= known[metric] | _OF_EVERY_TARGET, metric
    assert asked.grouped_by <= _labels_of(asked, known)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_every_legend_shows_labels_that_remain(dashboard: Path) -> None:
    """A label that was summed away would be blank."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            asked = asked_for(target["expr"])
            left = asked.grouped_by or _labels_of(asked, _known())
            assert set(_LEGEND.findall(target["legendFormat"])) <= left, target["expr"]


def test_scenarios_consist_of_exported_series() -> None:
    """Otherwise an alert might be shown to fire on series that do not exist."""
    exported = _exported()
    for scenario in SCENARIOS:
        for series in {**scenario.healthy, **scenario.changes}:
            ((metric, labels),) = asked_for(series).labels_by_metric.items()
            assert labels <= exported[metric] | _OF_EVERY_TARGET, series


def test_expressions_are_parsed_correctly() -> None:
    """Strings, functions, ranges and grouping are not metrics."""
    assert asked_for(
        'sum by (job, le) (rate(a_bucket{route!~"/x|b", job="c"}[5m] offset 1h)) / on () d > 0.5'
        ' or label_replace(absent(up{job="e"} == 1), "job", "f", "", "")'
    ) == Asked({"a_bucket": {"route", "job"}, "d": set(), "up": {"job"}}, {"job", "le"})


def _labels_of(asked: Asked, known: Mapping[str, set[str]]) -> set[str]:
    return set().union(*(known[metric] for metric in asked.labels_by_metric)) | _OF_EVERY_TARGET

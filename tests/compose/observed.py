"""The stack as Prometheus sees it, and its rules by promtool; on the stack of ``stack.py``."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from tests.compose.engine import Stack, output_of
from tests.observability.files import ALERTS, FOLDER, RECORDED, panel_queries
from tests.observability.scenarios import SCENARIOS

pytestmark = pytest.mark.system

_T = TypeVar("_T")

_REPLICAS = {
    "inference": 3,
    "history": 1,
    "history-consumer": 2,
    "batch": 1,
    "batch-worker": 2,
    "dashboard": 1,
    "prometheus": 1,
}
_SEEN_WITHIN_S = 60.0
_POLL_S = 1.0
_EMPTY_AT_FIRST = {
    *("models: Approved (B)", "models: Missing inputs, the week before (A)"),
    *("models: Drift over its limit (A)", "models: Approval rates of groups (A)"),
    *("models: Good outcomes (A)", "models: Good outcomes (B)", "models: Expected accuracy (A)"),
    *("service: Alerts (A)", "service: Database (B)", "service: Over the limit (A)"),
}
"""Panels that show a week, a setting that is not set, something that has not happened, or what
needs more decisions or outcomes."""

_GRAFANAS = re.compile(r"\$__\w+")
"""Durations that Grafana inserts."""
_APPLICATION = {"ApplicantIncome": 5849, "LoanAmount": 128, "Credit_History": 1}


async def test_prometheus_sees_every_process_of_the_scaled_stack_and_what_it_decides(
    stack: Stack, http: httpx.AsyncClient, notes: list[str]
) -> None:
    """All are up; Grafana and the Alertmanager, which do not run here, are not targets."""
    scaled = [f"--scale={service}={count}" for service, count in _REPLICAS.items() if count > 1]
    started_s = time.monotonic()
    # The migration does not run again: the schema may be newer than the image knows.
    await asyncio.to_thread(
        stack.compose, "up", "--detach", "--no-deps", *scaled, *_REPLICAS, "gateway"
    )
    await asyncio.to_thread(stack.wait_healthy)
    async with httpx.AsyncClient(base_url=stack.prometheus_url, timeout=10) as prometheus:
        found = await _until(lambda: _targets(prometheus), lambda found: found == _REPLICAS)
        took_s = time.monotonic() - started_s
        notes.append(f"Prometheus sees {sum(found.values())} processes up, after {took_s:.0f} s")

        rules = (await _get(prometheus, "rules"))["groups"]
        named = {rule["name"] for group in rules for rule in group["rules"]}
        assert named == {alert["alert"] for alert in ALERTS} | RECORDED.keys()
        assert all(rule["health"] != "err" for group in rules for rule in group["rules"])

        for _ in range(20):
            answer = await http.post("/predict", json=_APPLICATION)
            assert answer.status_code == 200, answer.text
        started_s = time.monotonic()
        await _until(lambda: _decisions(prometheus), lambda number: number >= 20)
        took_s = time.monotonic() - started_s
        notes.append(f"decisions show in decisions_total after {took_s:.0f} s")

        # A rate needs two samples of a counter.
        empty = await _until(
            lambda: _empty_panels(prometheus), lambda empty: empty <= _EMPTY_AT_FIRST
        )
        notes.append(f"{len(panel_queries()) - len(empty)} queries of panels show something")
        critical = [
            alert["labels"]
            for alert in (await _get(prometheus, "alerts"))["alerts"]
            if alert["state"] == "firing" and alert["labels"]["severity"] == "critical"
        ]
        assert not critical


async def test_who_watches_gets_no_further_than_the_metrics(stack: Stack) -> None:
    """Prometheus reaches no server of the stack and is published to this machine only."""
    found = stack.all_containers()["prometheus"]
    assert found["HostConfig"]["PortBindings"]["9090/tcp"][0]["HostIp"] == "127.0.0.1"
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    networks = {name.rpartition("_")[2] for name in found["NetworkSettings"]["Networks"]}
    assert networks == {"observability", "operators"}


def test_rules_and_configuration_pass_the_images_own_promtool(tmp_path: Path) -> None:
    """One run checks every scenario."""
    tmp_path.chmod(0o755)
    for number, scenario in enumerate(SCENARIOS):
        text = scenario.file(Path("/etc/prometheus/rules.yml"))
        (tmp_path / f"{number:02}.yml").write_text(text)
    promtool = (
        *("docker", "run", "--rm", "--network", "none", "--entrypoint", "promtool"),
        *("--volume", f"{FOLDER / 'prometheus'}:/etc/prometheus:ro"),
        *("--volume", f"{tmp_path}:/scenarios:ro", "prom/prometheus:v3"),
    )
    output_of(*promtool, "check", "config", "/etc/prometheus/prometheus.yml")
    files = (f"/scenarios/{file.name}" for file in tmp_path.iterdir())
    output_of(*promtool, "test", "rules", *files)


async def _until(ask: Callable[[], Awaitable[_T]], accept: Callable[[_T], bool]) -> _T:
    """Return the first acceptable answer; fail with the last one if none comes in time."""
    give_up_at_s = time.monotonic() + _SEEN_WITHIN_S
    while not accept(found := await ask()):
        assert time.monotonic() < give_up_at_s, found
        await asyncio.sleep(_POLL_S)
    return found


async def _empty_panels(prometheus: httpx.AsyncClient) -> set[str]:
    """Return the queries of panels that find nothing; an invalid query fails."""
    return {
        panel
        for panel, query in panel_queries().items()
        if not await _query(prometheus, _GRAFANAS.sub("5m", query))
    }


async def _targets(prometheus: httpx.AsyncClient) -> Counter[str]:
    """Return how many targets of each job are up; targets that are down count separately."""
    active = (await _get(prometheus, "targets"))["activeTargets"]
    return Counter(
        target["labels"]["job"] if target["health"] == "up" else target["health"]
        for target in active
    )


async def _get(prometheus: httpx.AsyncClient, what: str, **query: str) -> Any:
    response = await prometheus.get(f"/api/v1/{what}", params=query)
    assert response.status_code == 200, response.text
    return response.json()["data"]


async def _query(prometheus: httpx.AsyncClient, query: str) -> Any:
    return (await _get(prometheus, "query", query=query))["result"]


async def _decisions(prometheus: httpx.AsyncClient) -> float:
    found = await _query(prometheus, "sum(decisions_total)")
    return float(found[0]["value"][1]) if found else 0.0

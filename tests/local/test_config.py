"""Unusable settings are one line each, before anything starts; and ``make config``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.batch.settings import BatchSettings
from services.dashboard.settings import DashboardSettings
from services.history.settings import HistorySettings
from services.inference.settings import InferenceSettings
from services.local import config
from services.local.components import environment
from services.local.processes import Process
from services.local.settings import LocalSettings
from shared.access.passwords import password_entry
from shared.settings import UnusableSettings
from shared.web.settings import ServerSettings
from tests.harness import events_in
from tests.waiting import until

_HISTORY = {"RETENTION_DAYS": "-1", "DATABASE_URL": "postgresql://db/x?statement_cache_size=0"}
_INFERENCE = {
    "RATE_LIMIT_PREDICT": "lots",
    "RATE_LIMIT_OTHE": "5/hour",
    "HISTORY_URL": "history:8001",
    "BUNDLE_VERSION": "../b-0a1b2c3d",
    "INTERNAL_API_KEY": "lp_é",
}


def _serving(service: str) -> list[str]:
    return ["shared.web.server", f"services.{service}.main:create_app", "--port", "0"]


_PROCESSES = [
    (_serving("inference"), {"DRAIN_S": "inf"}),
    (_serving("inference"), _INFERENCE),
    (_serving("history"), {"REDIS_URL": "nonsense", **_HISTORY}),
    (_serving("batch"), {"BATCH_WEBHOOK_HOSTS": "https://bank.example"}),
    (["services.batch.worker"], {"DATABASE_URL": "mysql://db", "BATCH_LEASE_S": "0"}),
    (_serving("dashboard"), {"DASHBOARD_PASSWORD": "secret"}),
    (["services.history.consumer"], _HISTORY),
    (["services.history.migrate"], _HISTORY),
    (["services.history.audit"], _HISTORY),
    (["services.history.heartbeat"], _HISTORY),
]


@pytest.mark.system
@pytest.mark.parametrize(("command", "unusable"), _PROCESSES)
def test_unusable_settings_of_a_process_are_one_line_each(
    command: list[str], unusable: dict[str, str], tmp_path: Path
) -> None:
    env = os.environ | {"LOG_FORMAT": "json", **unusable}
    process = Process("process", [sys.executable, "-m", *command], folder=tmp_path, env=env)
    process.spawn()
    until(lambda: not process.running)
    assert process.exit_code == 2
    said = events_in(process)
    assert {line["event"] for line in said} == {"unusable setting"}
    assert sorted(line["setting"] for line in said) == sorted(unusable)


@pytest.mark.system
def test_local_run_names_every_process_s_faults_before_it_starts_anything(tmp_path: Path) -> None:
    unusable = {
        "INFERENCE_PORT": "0",
        "RATE_LIMIT_PREDIC": "5/hour",
        "RETENTION_DAYS": "-1",
        "DASHBOARD_PASSWORD": "secret",
        "FORWARDED_ALLOW_IPS": "proxy",
    }
    data = tmp_path / "data"
    env = os.environ | unusable | {"LOCAL_DATA": str(data)}
    done = subprocess.run(
        [sys.executable, "-m", "services.local"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert sorted(line.partition(": ")[0] for line in lines) == sorted(unusable)
    assert not data.exists()


_CROSS_CHECKED = [
    {"BUNDLE_VERSION": "b-00000000"},
    {"BUNDLE_ROOT": "/no/such/folder"},
    {"HISTORY_PORT": "8000"},
    {"LOCAL_HOST": "no-such-host.invalid"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector"},
    {"BATCH_WEBHOOK_HOSTS": "hooks.bank.example"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector", "OTEL_TRACES_SAMPLER_ARG": "often"},
]


@pytest.mark.parametrize("given", _CROSS_CHECKED)
def test_setting_that_only_the_start_would_find_unusable_is_found_by_the_check(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Make run begins with the same check, so nothing is started."""
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnusableSettings):
        config.check_settings()
    assert config.main([]) == 1
    said = capsys.readouterr()
    [line] = said.err.splitlines()
    assert line.startswith(f"{list(given)[-1]}: ")
    assert said.out == ""


def test_settings_in_force_are_printed_without_their_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = password_entry("hunter2")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("RATE_LIMIT_PREDICT", "7/hour")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@db/loans")
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@cache:6379/0")
    monkeypatch.setenv("DASHBOARD_PASSWORD", entry)
    assert config.main([]) == 0
    said = capsys.readouterr().out
    assert "  RATE_LIMIT_PREDICT=7 per 1 hour\n" in said
    assert "  RATE_LIMIT_BENCHMARK=10 per 1 hour  (default)\n" in said
    assert "@db/loans" in said
    assert "@cache:6379/0" in said
    assert "DASHBOARD_PASSWORD=(hidden)" in said
    assert "hunter2" not in said
    assert entry not in said


def test_file_of_the_containers_is_checked_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compose passes on only the names it knows, so a misspelt one would never be missed."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    file = tmp_path / ".env"
    file.write_text("RATE_LIMIT_OTHER=9/hour\nPOSTGRES_PASSWORD=x\n", encoding="utf-8")
    assert config.main([str(file)]) == 0
    assert "  RATE_LIMIT_OTHER=9 per 1 hour\n" in capsys.readouterr().out
    file.write_text(
        "GATEWAY_PROT=9090\nRATE_LIMIT_OTHER=lots\nBUNDLE_VERSION=../b-0a1b2c3d\n"
        "OTEL_EXPORTER_OTLP_ENDPOINT=collector\n",
        encoding="utf-8",
    )
    assert config.main([str(file)]) == 1
    assert [line.partition(": ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "GATEWAY_PROT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "RATE_LIMIT_OTHER",
        "BUNDLE_VERSION",
    ]


@pytest.mark.no_cover
def test_no_setting_is_taken_for_another_one_misspelt(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (
        *(ServerSettings, InferenceSettings, HistorySettings, BatchSettings),
        *(DashboardSettings, LocalSettings),
    )
    usable = {
        name.upper(): str(field.default)
        for kind in kinds
        for name, field in kind.model_fields.items()
        if isinstance(field.default, int | float | str) and field.default != ""
    }
    for name, value in usable.items():
        with monkeypatch.context() as alone:
            alone.setenv(name, value)
            config.check_settings()
    monkeypatch.setenv("INFERENCE_POR", "1")
    with pytest.raises(UnusableSettings):
        config.check_settings()


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("db", False)],  # noqa: S104 - not bound
)
def test_callers_without_a_key_are_allowed_by_default_only_on_a_loopback_address(
    monkeypatch: pytest.MonkeyPatch, host: str, allowed: bool
) -> None:
    def in_force() -> bool:
        env = environment(
            host=host, database_url="", redis_url="", inference_url="", history_url="", api_key="x"
        )
        with monkeypatch.context() as run:
            run.setenv("ALLOW_ANONYMOUS", env["ALLOW_ANONYMOUS"])
            return InferenceSettings().allow_anonymous

    assert in_force() is allowed
    monkeypatch.setenv("ALLOW_ANONYMOUS", str(not allowed))
    assert in_force() is not allowed
    monkeypatch.delenv("ALLOW_ANONYMOUS")
    assert not InferenceSettings().allow_anonymous

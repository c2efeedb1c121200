"""Whose forwarded addresses a service trusts, and how it logs from its first line on."""

import sys
from pathlib import Path

import httpx
import pytest

from services.local import components
from services.local.processes import Process
from tests import keys
from tests.harness import HOST, events_in, free_port
from tests.waiting import until

_LIMIT = 2


@pytest.mark.parametrize(
    ("trusted", "counted_apart"),
    [
        (None, {"192.0.2.{}": False}),
        ("10.0.0.0/8", {"192.0.2.{}": False}),
        (f"{HOST},10.0.0.0/8", {"192.0.2.{}": True, "192.0.3.{}, 10.1.2.3": True}),
        # What the caller itself wrote stands before what the proxy added.
        (HOST, {"192.0.2.{}, 198.51.100.7": False, "2001:db8::{}": False}),
    ],
)
def test_forwarded_address_counts_only_from_a_trusted_proxy(
    redis_url: str, tmp_path: Path, trusted: str | None, counted_apart: dict[str, bool]
) -> None:
    """Whoever calls directly cannot get around its limit by naming other addresses."""
    port = free_port()
    env = components.environment(
        host=HOST,
        database_url="postgresql:///absent",
        redis_url=redis_url,
        inference_url=f"http://{HOST}:{free_port()}",
        history_url=f"http://{HOST}:{free_port()}",
        api_key=keys.SECRET,
    )
    env |= {"RATE_LIMIT_OTHER": f"{_LIMIT}/hour"}
    env |= {} if trusted is None else {"FORWARDED_ALLOW_IPS": trusted}
    process = components.inference(env, host=HOST, port=port, logs=tmp_path)

    def status(forwarded: str) -> int:
        headers = {"x-forwarded-for": forwarded}
        return httpx.get(f"http://{HOST}:{port}/models", headers=headers).status_code

    try:
        process.start()
        for forwarded, apart in counted_apart.items():
            statuses = [status(forwarded.format(number)) for number in range(1, _LIMIT + 2)]
            assert statuses == [200] * _LIMIT + [200 if apart else 429], forwarded
    finally:
        process.stop()
        print(process.log_tail())


def test_everything_that_is_said_from_the_first_line_on_is_an_event(
    redis_url: str, tmp_path: Path
) -> None:
    """Also what uvicorn says before there is an app."""
    process = Process(
        "inference",
        [
            *(sys.executable, "-m", "shared.web.server", "services.inference.main:create_app"),
            *("--port", str(free_port())),
        ],
        folder=tmp_path,
        env={"PATH": "", "REDIS_URL": redis_url},
    )
    process.start()
    until(lambda: "startup complete" in process.log.read_text())
    process.stop()
    events = events_in(process)
    assert all(list(event)[:4] == ["time", "level", "logger", "event"] for event in events)
    assert {event["logger"] for event in events} == {"uvicorn.error"}
    assert sum(event["event"].startswith("Started server process") for event in events) == 1


@pytest.mark.system
def test_app_that_does_not_start_says_so_in_events(tmp_path: Path) -> None:
    """A setting that cannot be used ends the process, with its name in the log and no value."""
    for name, value in (("LOG_LEVEL", "7431"), ("API_KEYS", "7431"), ("DRAIN_S", "-7431")):
        process = components.inference(
            {"PATH": "", name: value}, host=HOST, port=free_port(), logs=tmp_path / name
        )
        process.spawn()
        until(lambda process=process: not process.running)  # type: ignore[misc]
        assert process.exit_code != 0
        *_, event = events_in(process)
        assert event["level"] == "critical"
        assert name.lower() in str(event).lower()
        assert "7431" not in str(event)

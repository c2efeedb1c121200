"""Whom a service believes about the address of its callers."""

from pathlib import Path

import httpx
import pytest

from services.local import services
from tests import keys
from tests.harness import HOST, free_port

_LIMIT = 2


@pytest.mark.parametrize(
    ("trusted", "forwarded", "counted_apart"),
    [
        (None, "192.0.2.{}", False),
        ("10.0.0.0/8", "192.0.2.{}", False),
        (f"{HOST},10.0.0.0/8", "192.0.2.{}", True),
        # What the caller itself wrote stands before what the proxy added.
        (HOST, "192.0.2.{}, 198.51.100.7", False),
        (f"{HOST},10.0.0.0/8", "192.0.2.{}, 10.1.2.3", True),
        (HOST, "2001:db8::{}", False),
    ],
)
def test_forwarded_address_counts_only_from_a_trusted_proxy(
    redis_url: str, tmp_path: Path, trusted: str | None, forwarded: str, counted_apart: bool
) -> None:
    """Whoever calls directly cannot get around its limit by naming other addresses."""
    port = free_port()
    env = services.environment(
        database_url="postgresql:///absent",
        redis_url=redis_url,
        inference_url=f"http://{HOST}:{free_port()}",
        history_url=f"http://{HOST}:{free_port()}",
        api_key=keys.SECRET,
    )
    env |= {"RATE_LIMIT_OTHER": f"{_LIMIT}/hour"}
    env |= {} if trusted is None else {"FORWARDED_ALLOW_IPS": trusted}
    process = services.inference(env, host=HOST, port=port, logs=tmp_path)
    try:
        process.start()
        statuses = [
            httpx.get(
                f"http://{HOST}:{port}/models",
                headers={"x-forwarded-for": forwarded.format(number)},
            ).status_code
            for number in range(1, _LIMIT + 2)
        ]
    finally:
        process.stop()
        print(process.log_tail())
    assert statuses == [200] * _LIMIT + [200 if counted_apart else 429]

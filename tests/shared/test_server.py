"""Whom a service believes about its callers, and how its workers share them."""

import socket
from pathlib import Path

import httpx
import pytest

from services.local import services
from shared.server import listener_beside_others
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


def test_connections_that_come_at_once_are_spread_over_the_workers() -> None:
    """No worker gets all of them, whichever of them is the first to accept."""
    port = free_port()
    with listener_beside_others(HOST, port) as first, listener_beside_others(HOST, port) as second:
        for listener in (first, second):
            listener.listen()
            listener.setblocking(False)
        callers = [socket.create_connection((HOST, port)) for _ in range(64)]
        waiting = [_accept_all(first), _accept_all(second)]
        for connection in (*callers, *waiting[0], *waiting[1]):
            connection.close()
    assert sum(map(len, waiting)) == 64
    assert all(waiting)


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    accepted = []
    while True:
        try:
            accepted.append(listener.accept()[0])
        except BlockingIOError:
            return accepted

"""The whole system on a Redis Cluster, under a Sentinel, and on a Redis that it cannot use."""

import os
import sys
from pathlib import Path

import httpx
import pytest
from redis import RedisCluster
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from loan_predictor_client import LoanPredictorClient, RetryPolicy
from services.local.processes import Process
from shared.contract.application import EXAMPLE
from shared.contract.events import DEAD_LETTER_STREAM, EVENT_FIELD, STREAM
from shared.redis import connect, why_unusable
from tests.harness import HOST, System, events_in, free_port, running_system
from tests.redis_nodes import WATCHED, cluster, node, watched
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.mark.parametrize(("size", "scheme"), [(1, "redis"), (3, "redis+cluster")])
def test_nothing_is_decided_twice_or_lost_on_a_cluster(
    database_url: str, tmp_path: Path, size: int, scheme: str
) -> None:
    """Repeated requests, malformed events, the cache, limits and erasure all work as elsewhere."""
    with (
        cluster(tmp_path, size=size) as nodes,
        running_system(
            database_url=database_url,
            redis_url=f"{scheme}://{HOST}:{nodes[-1].port}",
            logs=tmp_path / "logs",
            settings={"CONSUMER_MAX_DELIVERIES": "2", "CONSUMER_RECLAIM_IDLE_S": "0.2"},
        ) as system,
        RedisCluster(host=HOST, port=nodes[0].port) as redis,
        _client(system) as client,
    ):
        first, second = (_decide(system, key="order-66") for _ in range(2))
        assert second.content == first.content
        assert second.headers["idempotency-replayed"] == "true"

        redis.xadd(STREAM, {EVENT_FIELD: b"malformed"})
        until(lambda: redis.xlen(DEAD_LETTER_STREAM) == 1)
        until(lambda: client.statistics().total_predictions == 1)
        assert redis.xlen(STREAM) == 0
        erased = httpx.delete(
            f"{system.history_url}/history",
            params={"loan_id": EXAMPLE["Loan_ID"]},
            headers={"x-api-key": system.api_key},
        )
        assert erased.json()["erased"] == 1
        assert _decide(system, key="order-66").status_code == 410
        assert client.health("inference").status == "ok"
        assert client.health("history").status == "ok"
        metrics = httpx.get(
            f"{system.history_url}/metrics", headers={"x-api-key": system.api_key}
        ).text
        assert "\nstream_up 1" in metrics
    assert _complaints(system) == ["events cannot be stored", "events put aside"]


async def test_connection_follows_the_stream_to_another_master_of_the_cluster(
    tmp_path: Path,
) -> None:
    """After one failed command, as when a server is restarted."""
    slot = key_slot(STREAM.encode())
    with cluster(tmp_path, size=2) as nodes:
        async with connect(f"redis+cluster://{HOST}:{nodes[0].port}") as redis:
            assert await redis.exists(STREAM) == 0
            heir = nodes[1].client
            for each in (heir, nodes[0].client):
                owner = heir.execute_command("CLUSTER MYID")
                each.execute_command("CLUSTER SETSLOT", slot, "NODE", owner)
            with pytest.raises(RedisConnectionError):
                await redis.exists(STREAM)
            await redis.xadd(STREAM, {EVENT_FIELD: b"later"})
        assert heir.xlen(STREAM) == 1


def test_system_goes_on_after_a_failover(database_url: str, tmp_path: Path) -> None:
    """The Sentinel's new master gets the stream, the answers and the limits."""
    with (
        watched(tmp_path) as (master, sentinel),
        running_system(
            database_url=database_url,
            redis_url=f"redis+sentinel://{HOST}:{sentinel.port}/{WATCHED}",
            logs=tmp_path / "logs",
        ) as system,
        _client(system) as client,
    ):
        _decide(system, key="before")
        until(lambda: client.statistics().total_predictions == 1)
        master.process.kill()
        first = _decide(system, key="during")
        until(lambda: client.statistics().total_predictions == 2)
        until(lambda: client.health("inference").checks["redis"].status == "up")
        # The connection that keeps answers may be made anew a moment later.
        until(lambda: "idempotency-replayed" in _decide(system, key="after").headers)
        assert (
            _decide(system, key="during").json()["prediction_id"] == first.json()["prediction_id"]
        )
        until(lambda: client.statistics().total_predictions == 3)


def test_redis_that_can_never_be_used_is_told_from_one_that_is_away(tmp_path: Path) -> None:
    with (
        node(tmp_path, requirepass="hunter2") as locked,
        cluster(tmp_path, size=2) as nodes,
        watched(tmp_path) as (_, sentinel),
    ):
        away = free_port()
        for url, reason in (
            (f"redis://:wrong@{HOST}:{locked.port}", "the server refuses the user or the password"),
            (f"redis://{HOST}:{locked.port}", "the server refuses the user or the password"),
            (f"redis://:hunter2@{HOST}:{locked.port}/99", "the server has no database 99"),
            (f"redis://:hunter2@{HOST}:{locked.port}", None),
            (f"redis://{HOST}:{away}", None),
            (f"redis://{HOST}:{nodes[0].port}", "names one of 2 masters: write redis+cluster://"),
            (f"redis+cluster://{HOST}:{away},{HOST}:{nodes[1].port}", None),
            (f"redis+cluster://{HOST}:{away}", None),
            (
                f"redis+cluster://:hunter2@{HOST}:{locked.port}",
                "the server is no cluster: write redis://",
            ),
            (f"redis+sentinel://{HOST}:{away},{HOST}:{sentinel.port}/{WATCHED}", None),
            (f"redis+sentinel://{HOST}:{away}/{WATCHED}", None),
            (f"redis+sentinel://{HOST}:{sentinel.port}/x", "no Sentinel knows a master x"),
        ):
            assert why_unusable(url) == reason, url


@pytest.mark.parametrize(
    "command",
    [
        ["shared.web.server", "services.inference.main:create_app", "--port", "0"],
        ["shared.web.server", "services.history.main:create_app", "--port", "0"],
        ["services.history.consumer"],
    ],
)
def test_process_on_a_redis_that_can_never_be_used_ends_with_one_line(
    command: list[str], tmp_path: Path
) -> None:
    """Rather than go on as if its Redis were away."""
    with node(tmp_path, requirepass="hunter2") as locked:
        url = f"redis://:hunter3@{HOST}:{locked.port}"
        process = Process(
            "process",
            [sys.executable, "-m", *command],
            folder=tmp_path,
            env=os.environ | {"REDIS_URL": url, "LOG_FORMAT": "json"},
        )
        process.spawn()
        until(lambda: not process.running)
    [line] = events_in(process)
    assert (process.exit_code, line["setting"]) == (2, "REDIS_URL")
    assert line["reason"] == "the server refuses the user or the password"


def _decide(system: System, *, key: str) -> httpx.Response:
    return httpx.post(
        f"{system.inference_url}/predict",
        json=EXAMPLE,
        headers={"x-api-key": system.api_key, "idempotency-key": key},
        timeout=30,
    )


def _client(system: System) -> LoanPredictorClient:
    return LoanPredictorClient(
        system.inference_url,
        system.history_url,
        api_key=system.api_key,
        retry_policy=RetryPolicy(attempts=1),
    )


def _complaints(system: System) -> list[str]:
    return [
        event["event"]
        for process in (system.inference, system.history, system.consumer)
        for event in events_in(process)
        if event["level"] != "info"
    ]

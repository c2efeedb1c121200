"""The whole stack through its gateway, while containers are killed. `make test` skips this file.

The tests run in this order on one stack: each leaves it whole, the later ones find more data.
"""

import asyncio
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from tests.batch.files import begin, ended, post
from tests.compose.engine import (
    ANONYMOUS_LIMITED_TO,
    BATCH_MAX_BYTES,
    LIMITED_TO,
    ROOT,
    Stack,
    compose_command,
    output_of,
    run,
)
from tests.compose.load import (
    Ledger,
    Verdict,
    drained,
    hold_against,
    loaded,
    now,
    records_since,
)
from tests.raw import connected
from tests.waiting import eventually

pytestmark = pytest.mark.system

_APPLICATION = {"ApplicantIncome": 5849, "LoanAmount": 128, "Credit_History": 1}
_REPLICAS = 3
_FAULTS = (
    *(("kill", service) for service in ("history-consumer", "history", "inference")),
    *(("kill", service) for service in ("redis", "postgres")),
    ("stop", "inference"),
)
_LOAD_BEFORE_S = 2.0
_DOWN_S = 3.0
_LOAD_AFTER_S = 2.0
_OVERSHOOT = 15
"""Each replica may let requests through before it learns the others' counts."""


def test_without_env_file_compose_stops_with_a_sentence(tmp_path: Path) -> None:
    """The message says what to do."""
    empty = tmp_path / "empty.env"
    empty.touch()
    done = run(*compose_command(), "--env-file", str(empty), "config")
    assert done.returncode != 0
    assert "run make env first" in done.stderr


def test_gateway_is_published_on_8080_unless_said_otherwise(stack: Stack, tmp_path: Path) -> None:
    """This holds with what make env writes and nothing else set."""
    plain = tmp_path / "plain.env"
    env = stack.env_file.read_text()
    plain.write_text(re.sub("^GATEWAY_PORT=.*$", "", env, flags=re.MULTILINE))
    said = output_of(*compose_command(), "--env-file", str(plain), "config")
    assert re.search(r"published: \"?8080\"?$", said, re.MULTILINE)


def test_only_the_gateway_is_reachable_from_outside(stack: Stack) -> None:
    """No other container publishes a port."""
    published = {
        service: [port for port, hosts in found["NetworkSettings"]["Ports"].items() if hosts]
        for service, found in stack.all_containers().items()
    }
    assert {service for service, ports in published.items() if ports} == {"gateway"}
    assert published["gateway"] == ["8080/tcp"]


def test_containers_have_no_privileges(stack: Stack) -> None:
    """They are read-only, have no capabilities, and are bounded in memory and logs."""
    for service, found in stack.all_containers().items():
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Memory"] > 0, service
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}, service
        if service != "postgres":
            assert found["Config"]["User"] not in {"", "0", "root"}, service


def test_servers_refuse_clients_without_a_password(stack: Stack) -> None:
    """This holds on the inner network too."""
    ping = ("exec", "-T", "redis", "env", "REDISCLI_AUTH=", "redis-cli", "ping")
    assert "NOAUTH" in stack.compose(*ping)
    psql = ("psql", "-h", "postgres", "-U", "loan", "-w", "-c", "SELECT 1")
    (postgres,) = stack.containers("postgres")
    done = run("docker", "exec", "-e", "PGPASSWORD=wrong", postgres, *psql)
    assert done.returncode != 0
    assert "password authentication failed" in done.stderr


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/", "inference"),
        ("/models", "inference"),
        ("/model-info", "inference"),
        ("/validation-rules", "inference"),
        ("/docs", "inference"),
        ("/openapi.json", "inference"),
        ("/health", "inference"),
        ("/readyz", "inference"),
        ("/history", "history"),
        ("/statistics", "history"),
        ("/analytics", "history"),
        ("/monitoring/performance", "history"),
        ("/docs/history", "history"),
        ("/openapi/history.json", "history"),
        ("/health/history", "history"),
        ("/performance/history", "history"),
        ("/readyz/history", "history"),
        ("/batches", "batch"),
        ("/docs/batch", "batch"),
        ("/openapi/batch.json", "batch"),
        ("/health/batch", "batch"),
        ("/performance/batch", "batch"),
        ("/readyz/batch", "batch"),
        ("/app/login", "dashboard"),
        ("/app/readyz", "dashboard"),
        ("/livez/gateway", "gateway"),
    ],
)
async def test_each_path_leads_to_its_service(
    stack: Stack, http: httpx.AsyncClient, path: str, service: str
) -> None:
    """The request id, which the gateway passes on and gets back, is in that service's log."""
    request_id = f"route-{time.monotonic_ns()}"
    response = await http.get(path, headers={"x-request-id": request_id})
    assert response.status_code == 200, response.text
    if service == "gateway":
        return
    assert response.headers["x-request-id"] == request_id
    (container,) = stack.containers(service)
    await eventually(lambda: request_id in _log(container), poll_s=0.1)


async def test_client_that_names_no_host_is_served(stack: Stack) -> None:
    """HTTP/1.0 requires none, and some health checks use it; the gateway names itself instead."""
    async with connected(stack.url) as connection:
        await connection.send(b"GET /livez HTTP/1.0\r\n\r\n")
        assert (await connection.answer()).status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/internal/predictions", 404),
        ("/history/../internal/predictions", 404),
        ("/metrics", 404),
        ("/app/metrics", 404),
        ("/metrics%0a", 400),
        ("/app/metrics%0a", 400),
        ("/predict%0a", 400),
        ("/models/benchmark%0d%0a", 400),
        ("/history%c2%85", 400),
    ],
)
async def test_inner_routes_are_not_reachable(stack: Stack, path: str, status: int) -> None:
    """Neither a key nor a detour helps; sent by hand, because clients normalise paths."""
    port = httpx.URL(stack.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {path} HTTP/1.0\r\nX-API-Key: {stack.api_key}\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    assert "application/problem+json" in head
    assert json.loads(body)["status"] == status


async def test_gateway_takes_a_file_as_large_as_the_batch_service_does(
    http: httpx.AsyncClient,
) -> None:
    """One setting bounds both, and the answer to a larger one has the form of every error."""
    file = b"ApplicantIncome\n1\n".ljust(BATCH_MAX_BYTES)
    taken = await begin(http, file)
    refused = await post(http, file + b" ")
    assert refused.status_code == 413
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "BodyTooLarge"
    # Its decisions are made now, and not in the midst of a later test.
    assert (await ended(http, taken))["state"] == "done"


async def test_decision_is_found_in_history_exactly_once(http: httpx.AsyncClient) -> None:
    """The record equals the answer."""
    since = now()
    answer = await http.post("/predict", json=_APPLICATION | {"Loan_ID": "once"})
    assert answer.status_code == 200, answer.text
    decision = answer.json()
    await drained(http)
    (record,) = await records_since(http, since)
    assert {member: record[member] for member in decision} == decision
    assert record["client"] == "operator"
    alone = await http.get(f"/history/{decision['prediction_id']}")
    assert alone.json() == record


async def test_anonymous_callers_are_told_apart_by_their_real_address(stack: Stack) -> None:
    """A forged address makes no difference; another real address has a limit of its own."""
    async with httpx.AsyncClient(base_url=stack.url, timeout=30) as anonymous:
        statuses = []
        for number in range(ANONYMOUS_LIMITED_TO + 3):
            claimed = {"x-forwarded-for": f"10.1.2.{number}", "forwarded": f"for=10.1.3.{number}"}
            response = await anonymous.post("/predict", json=_APPLICATION, headers=claimed)
            statuses.append(response.status_code)
        assert statuses == [200] * ANONYMOUS_LIMITED_TO + [429] * 3
        assert (await anonymous.get("/history")).status_code == 401
    elsewhere = """
import json, urllib.request
body = json.dumps({"ApplicantIncome": 5849}).encode()
headers = {"content-type": "application/json"}
asked = urllib.request.Request("http://gateway:8080/predict", body, headers)
print(urllib.request.urlopen(asked).status)
"""
    command = ("docker", "run", "--rm", "--network", stack.network("edge"))
    assert output_of(*command, "loan-predictor-history", "python", "-c", elsewhere) == "200\n"


def test_model_runtime_sends_no_telemetry(stack: Stack) -> None:
    """ONNX Runtime's telemetry is on by default and complains on a read-only system."""
    (container,) = stack.containers("inference")
    assert "startup complete" in _log(container)
    assert "telemetry" not in _log(container)


async def test_replicas_share_the_requests_and_one_rate_limit(
    stack: Stack, http: httpx.AsyncClient, notes: list[str]
) -> None:
    """Three replicas are found by name while the gateway keeps running."""
    scaled = ("up", "--detach", "--scale", f"inference={_REPLICAS}")
    await asyncio.to_thread(stack.compose, *scaled)
    await asyncio.to_thread(stack.wait_healthy)
    await asyncio.sleep(2)

    requests = 90
    for number in range(requests):
        headers = {"x-request-id": f"spread-{number}"}
        response = await http.post("/predict", json=_APPLICATION, headers=headers)
        assert response.status_code == 200, response.text

    def served_by_replica() -> list[int]:
        logs = map(_log, stack.containers("inference"))
        return [len(set(re.findall(r"spread-\d+", log))) for log in logs]

    # A container's log is read a moment after it is written.
    await eventually(lambda: sum(served_by_replica()) >= requests, poll_s=0.1)
    served = served_by_replica()
    notes.append(f"{requests} requests over {_REPLICAS} replicas: {served}")
    assert sum(served) == requests
    assert min(served) >= requests // _REPLICAS // 2

    statuses: Counter[int] = Counter()
    for _ in range(2 * LIMITED_TO):
        response = await http.post(
            "/predict", json=_APPLICATION, headers={"x-api-key": stack.limited_key}
        )
        statuses[response.status_code] += 1
        await asyncio.sleep(0.02)
    notes.append(
        f"a key limited to {LIMITED_TO} an hour, over {_REPLICAS} replicas: {dict(statuses)}"
    )
    assert set(statuses) == {200, 429}
    assert LIMITED_TO <= statuses[200] <= LIMITED_TO + _OVERSHOOT


@pytest.mark.parametrize(("how", "service"), _FAULTS)
async def test_gone_under_load_loses_and_doubles_no_answered_decision(
    stack: Stack, http: httpx.AsyncClient, verdicts: list[Verdict], how: str, service: str
) -> None:
    """Whether killed or stopped as for an update, every answered decision is stored."""
    since = now()
    ledger = Ledger(prefix=f"{service}-{time.time_ns()}")
    async with loaded(http, ledger):
        await asyncio.sleep(_LOAD_BEFORE_S)
        container = stack.containers(service)[0]
        await asyncio.to_thread(output_of, "docker", how, container)
        await asyncio.sleep(_DOWN_S)
        await asyncio.to_thread(output_of, "docker", "start", container)
        await asyncio.to_thread(stack.wait_healthy)
        await asyncio.sleep(_LOAD_AFTER_S)
    await drained(http)
    verdict = hold_against(ledger, await records_since(http, since), fault=f"{how} {service}")
    verdicts.append(verdict)
    assert (verdict.missing, verdict.doubled) == (0, 0)
    assert verdict.stored - verdict.unanswered == verdict.answered
    assert verdict.unanswered <= sum(ledger.failures.values())
    assert verdict.answered > 100
    if (how, service) not in {("kill", "inference"), ("kill", "redis")}:
        # Clients do not notice the absence of what decisions do not need.
        assert not ledger.failures


async def test_an_absent_service_is_answered_with_a_problem_document(
    stack: Stack, http: httpx.AsyncClient
) -> None:
    """It has Retry-After and the caller's own request id."""
    for service, path in (("inference", "/models"), ("history", "/history")):
        containers = stack.containers(service)
        await asyncio.to_thread(output_of, "docker", "stop", *containers)
        response = await http.get(path, headers={"x-request-id": "gone"})
        assert response.status_code in {502, 504}
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["retry-after"] == "1"
        assert response.headers["x-request-id"] == "gone"
        problem = response.json()
        assert (problem["status"], problem["instance"]) == (response.status_code, path)
        assert problem["request_id"] == "gone"
        await asyncio.to_thread(output_of, "docker", "start", *containers)
        await asyncio.to_thread(stack.wait_healthy)


async def test_down_and_up_keeps_the_data(
    stack: Stack, http: httpx.AsyncClient, notes: list[str]
) -> None:
    """Rows, statistics and the schema survive, and the statistics match the rows."""
    before = await _statistics(http)
    await asyncio.to_thread(stack.compose, "down")
    started_s = time.monotonic()
    await asyncio.to_thread(stack.compose, "up", "--detach")
    await asyncio.to_thread(stack.wait_healthy)
    notes.append(f"up again and healthy in {time.monotonic() - started_s:.0f} s")
    assert await _statistics(http) == before
    assert before["total_predictions"] == _rows(stack) > 0
    notes.append(f"rows in PostgreSQL, all of them counted: {before['total_predictions']}")


async def test_second_up_with_a_newer_migration_upgrades_the_schema(
    stack: Stack, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    """The services keep running, and no row is lost."""
    before = _rows(stack)
    newer = tmp_path / "newer.py"
    newer.write_text(_NEWER_MIGRATION.format(head=_head()))
    newer.chmod(0o644)
    await asyncio.to_thread(
        stack.compose,
        *("up", "--detach"),
        override="tests/compose/newer-migration.yml",
        env={"NEWER_MIGRATION": str(newer)},
    )
    await asyncio.to_thread(stack.wait_healthy)
    health = (await http.get("/health/history")).json()
    assert health["checks"]["postgres"]["detail"] == "schema 9999"
    assert _rows(stack) == before
    assert (await http.post("/predict", json=_APPLICATION)).status_code == 200


_NEWER_MIGRATION = '''
"""A migration that the image does not know."""
from alembic import op

revision, down_revision = "9999", "{head}"
branch_labels = depends_on = None


def upgrade():
    op.execute("CREATE TABLE newer (id int)")
'''


def _head() -> str:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "services" / "history" / "migrations"))
    head = ScriptDirectory.from_config(config).get_current_head()
    assert head
    return head


def _log(container: str) -> str:
    done = run("docker", "logs", container)
    return done.stdout + done.stderr


def _rows(stack: Stack) -> int:
    query = "SELECT count(*) FROM predictions"
    psql = ("psql", "-h", "/var/run/postgresql", "-U", "loan", "-d", "loan", "-tAc", query)
    return int(stack.compose("exec", "-T", "postgres", *psql))


async def _statistics(http: httpx.AsyncClient) -> Any:
    response = await http.get("/statistics")
    assert response.status_code == 200, response.text
    return response.json()

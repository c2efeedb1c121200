"""The whole system behind a real PgBouncer that gives each transaction another session."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from loan_predictor_client import Filters, LoanPredictorClient, RetryPolicy
from services.history.migrate import migrate
from services.history.settings import HistorySettings
from services.local.processes import Process
from shared.contract.application import EXAMPLE
from tests import keys
from tests.harness import HOST, System, events_in, free_port, running_system
from tests.waiting import until

_PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
_DECISIONS = 120

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        _PGBOUNCER is None, reason="there is no pgbouncer: apt-get install pgbouncer"
    ),
]


@pytest.fixture
def pooled_url(empty_database_url: str, server_data: Path) -> Iterator[str]:
    """An empty database behind a PgBouncer with fewer sessions than there are connections."""
    assert _PGBOUNCER is not None
    database = make_url(empty_database_url)
    port = free_port()
    server_data.mkdir(parents=True, exist_ok=True)
    file = server_data / "pgbouncer.ini"
    file.write_text(
        f"[databases]\n* = host={database.query['host']} user={database.username}\n"
        f"[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n"
    )
    as_user = ["-u", "nobody"] if os.geteuid() == 0 else []  # it does not run as root
    process = Process(
        "pgbouncer",
        [_PGBOUNCER, *as_user, file],
        folder=server_data,
        ready=lambda _pid: _listens(port),
    )
    process.start()
    yield f"postgresql://{HOST}:{port}/{database.database}"
    process.stop()
    print(process.log_tail())


def test_system_works_behind_a_pooler_of_transactions(
    pooled_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Migrations, storing, reads of every kind, exports, retention, erasure and the audit log."""
    env = os.environ | {"DATABASE_URL": pooled_url}
    url = HistorySettings(database_url=pooled_url).database_url
    for _ in range(2):
        asyncio.run(migrate(url))
    with (
        running_system(
            database_url=pooled_url,
            redis_url=redis_url,
            logs=tmp_path / "logs",
            settings={"RETENTION_DAYS": "30", "RETENTION_PAUSE_S": "0.2"},
        ) as system,
        LoanPredictorClient(
            system.inference_url,
            system.history_url,
            api_key=keys.SECRET,
            retry_policy=RetryPolicy(attempts=1),
        ) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        made = list(
            threads.map(
                lambda number: client.predict(EXAMPLE | {"Loan_ID": f"LP{number}"}),
                range(_DECISIONS),
            )
        )
        until(lambda: client.statistics().total_predictions == _DECISIONS)
        records = list(threads.map(lambda each: client.record(each.prediction_id), made))
        assert [record.confidence for record in records] == [each.confidence for each in made]
        filters = [Filters(loan_id=f"LP{number}") for number in range(_DECISIONS)]
        found = threads.map(lambda each: len(client.history(each).items), filters)
        assert list(found) == [1] * _DECISIONS
        exports = list(threads.map(lambda _: _lines(client), range(16)))
        assert exports == [_DECISIONS] * 16
        assert client.analytics().overall.total_predictions == _DECISIONS
        assert client.health("history").checks["postgres"].status == "up"
        erased = threads.map(lambda number: _erased(system, f"LP{number}"), range(8))
        assert list(erased) == [1] * 8
        audit = [sys.executable, "-m", "services.history.audit"]
        assert "intact: 8 rows" in subprocess.check_output(audit, env=env, text=True)
        processes = (system.inference, system.history, system.consumer)
        said = [event for process in processes for event in events_in(process)]
    assert [event for event in said if event["level"] != "info"] == []


def _erased(system: System, loan_id: str) -> int:
    answer = httpx.delete(
        f"{system.history_url}/history",
        params={"loan_id": loan_id},
        headers={"x-api-key": system.api_key},
        timeout=30,
    )
    erased: int = answer.json()["erased"]
    return erased


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection((HOST, port)).close()
        return True
    return False


def _lines(client: LoanPredictorClient) -> int:
    with client.export() as chunks:
        return b"".join(chunks).count(b"\n")

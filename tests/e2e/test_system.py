"""An application in, a decision out, its record in PostgreSQL exactly once, whatever is killed."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import httpx
import pytest
from pytest import approx  # noqa: PT013 - it reads as a word of the expectation

from services.local.processes import Process
from tests.harness import System
from tests.history.events import MODELS

# The product runs in processes of its own; measuring the clients' coverage would slow them.
pytestmark = [pytest.mark.system, pytest.mark.no_cover]

_CLIENTS = 16
_RECORDED_WITHIN_S = 30.0
_PATHS = ("/predict", *(f"/predict/{model}" for model in MODELS))

Body = dict[str, Any]


@dataclass
class Answers:
    """What clients were told."""

    decisions: list[Body] = field(default_factory=list)
    invalid: list[Body] = field(default_factory=list)
    not_recorded: int = 0

    def add(self, response: httpx.Response) -> None:
        """Keep one answer; only the three kinds that the service promises are accepted."""
        match response.status_code:
            case 200:
                self.decisions.append(response.json())
            case 400:
                self.invalid.append(response.json())
            case 503:
                assert response.headers["retry-after"]
                self.not_recorded += 1
            case status:
                pytest.fail(f"unexpected answer {status}: {response.text}")


@asynccontextmanager
async def _client(system: System) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a deadline well above every promise of the services."""
    async with httpx.AsyncClient(headers={"x-api-key": system.api_key}, timeout=20) as client:
        yield client


@pytest.fixture
async def http(system: System) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the system."""
    async with _client(system) as client:
        yield client


async def test_every_application_is_answered_and_found_exactly_once(
    system: System, http: httpx.AsyncClient, loan_applications: list[Body]
) -> None:
    """All 367 applications, also those with no income but the co-applicant's."""
    answers = await _post_all(http, system, loan_applications)
    assert len(answers.decisions) == len(loan_applications)
    assert answers.not_recorded == 0
    assert answers.invalid == []
    records = await _assert_recorded_exactly_once(http, system, answers)
    assert {record["input_data"]["Loan_ID"] for record in records} == {
        row["Loan_ID"] for row in loan_applications
    }


async def test_record_is_what_the_client_was_answered(
    system: System, http: httpx.AsyncClient, loan_applications: list[Body]
) -> None:
    """Member by member, under the number the client was given."""
    answers = await _post_all(http, system, loan_applications[:5])
    await _assert_recorded_exactly_once(http, system, answers)
    for decision in answers.decisions:
        answer = await http.get(f"{system.history_url}/history/{decision['prediction_id']}")
        record = answer.json()
        assert {member: record[member] for member in decision} == decision


async def test_consumer_killed_under_load_neither_loses_nor_doubles_a_decision(
    system: System, http: httpx.AsyncClient, loan_applications: list[Body]
) -> None:
    """Killed by -9 in the middle of its work, twice, and started again each time."""
    answers = await _post_all(
        http, system, loan_applications, during=_kill_for_a_moment(system.consumer, times=2)
    )
    assert answers.not_recorded == 0
    await _assert_recorded_exactly_once(http, system, answers)


async def _kill_for_a_moment(process: Process, *, times: int = 1) -> None:
    for _ in range(times):
        await asyncio.sleep(0.4)
        await asyncio.to_thread(process.kill)
        await asyncio.sleep(0.6)
        await asyncio.to_thread(process.start)


async def _post_all(
    http: httpx.AsyncClient,
    system: System,
    applications: Sequence[Body],
    *,
    during: Coroutine[None, None, None] | None = None,
) -> Answers:
    """Post every application, to the champion and each model in turn, from several clients.

    ``during`` runs beside it, and the applications are posted again for as long as it takes.
    """
    disturbance = None if during is None else asyncio.create_task(during)
    answers = Answers()
    paths = cycle(_PATHS)

    def still_to_post() -> Iterator[Body]:
        yield from applications
        while disturbance is not None and not disturbance.done():
            yield from applications

    async def post_some(bodies: Iterator[Body]) -> None:
        for body in bodies:
            answers.add(await http.post(f"{system.inference_url}{next(paths)}", json=body))

    bodies = still_to_post()
    async with asyncio.TaskGroup() as clients:
        for _ in range(_CLIENTS):
            clients.create_task(post_some(bodies))
    if disturbance is not None:
        await disturbance
    return answers


async def _assert_recorded_exactly_once(
    http: httpx.AsyncClient, system: System, answers: Answers
) -> list[Body]:
    """Every answered decision is in the history once, nothing else is, and the sums agree.

    A decision refused with 503 may have been stored although nobody could be told: it is the one
    that the history may hold beyond the answers.
    """
    answered = {decision["prediction_id"] for decision in answers.decisions}
    assert len(answered) == len(answers.decisions) > 0
    deadline = time.monotonic() + _RECORDED_WITHIN_S
    while True:
        records = await _all_records(http, system)
        statistics = (await http.get(f"{system.history_url}/statistics")).json()
        stored = Counter(record["prediction_id"] for record in records)
        if answered <= stored.keys() and statistics == _sums(records):
            break
        assert time.monotonic() < deadline, (
            f"{len(answered - stored.keys())} of {len(answered)} answered decisions are missing; "
            f"{len(records)} records; statistics {statistics}, expected {_sums(records)}"
        )
        await asyncio.sleep(0.5)
    assert set(stored.values()) == {1}
    assert len(stored) - len(answered) <= answers.not_recorded
    return records


async def _all_records(http: httpx.AsyncClient, system: System) -> list[Body]:
    """Every record, page by page through the cursors."""
    records: list[Body] = []
    parameters: dict[str, str | int] = {"limit": 100}
    while True:
        answer = await http.get(f"{system.history_url}/history", params=parameters)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        records += page["items"]
        if page["next_cursor"] is None:
            return records
        parameters["cursor"] = page["next_cursor"]


def _sums(records: Sequence[Body]) -> Body:
    """The statistics that these records must have."""
    models = sorted({record["model_info"]["name"] for record in records})
    return _summary(records) | {
        "by_model": {
            model: _summary([r for r in records if r["model_info"]["name"] == model])
            for model in models
        },
        "groups": None,
        "previous": None,
    }


def _summary(records: Sequence[Body]) -> Body:
    approved = sum(record["prediction"] == "Approved" for record in records)
    total = len(records)
    return {
        "total_predictions": total,
        "approved": approved,
        "rejected": total - approved,
        "approval_rate": approx(approved / total if total else None),
        "average_confidence": approx(
            sum(record["confidence"] for record in records) / total if total else None
        ),
    }

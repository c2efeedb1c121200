"""Processes that send requests on one schedule, and a live view of the results."""

import asyncio
import multiprocessing
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkServerProcess
from multiprocessing.queues import Queue
from queue import Empty
from typing import Final

import httpx
from pydantic_core import to_json
from tqdm import tqdm

from services.local.processes import CannotStart
from tests.applications import random_application
from tests.load.results import Results, Sample, percentile
from tests.load.schedule import Schedule

NEVER_SENT: Final = "not sent in time"
PROCESS_ENDED: Final = "lost with its process"
REFUSED: Final = "status 503 with Retry-After"
"""The one refusal that is not an error: nothing was decided, retry later."""

_REPORT_EVERY_S: Final = 0.5
_TIMEOUT_S: Final = 30.0
_START_TIMEOUT_S: Final = 30.0
# Well before the services close an idle connection, since a request sent at that moment would fail.
_LIMITS: Final = httpx.Limits(keepalive_expiry=4.0)
_START_DELAY_S: Final = 0.5

_CEILING_RATE: Final = 20_000.0
_CEILING_S: Final = 1.5
_MS_PER_S: Final = 1000


@dataclass(frozen=True)
class Plan:
    """What to send, and where. ``in_flight`` bounds the open requests of each process.

    Late requests are still sent until ``overrun_s`` after the end of the schedule. ``wants_ids``
    says whether answers are decisions whose ids are to be kept.
    """

    url: str
    key: str | None
    processes: int
    in_flight: int
    overrun_s: float
    wants_ids: bool
    seed: int


def run(
    plan: Plan,
    *,
    rate: float,
    duration_s: float,
    show: bool = True,
    announce: Callable[[Schedule], None] = lambda _: None,
) -> tuple[Schedule, Results]:
    """Send on a schedule that begins once every process is up; return it and all results.

    Calls ``announce`` with the schedule just before it begins. Raises ``CannotStart`` if a process
    does not come up.
    """
    # A server that has imported this module forks each of them: they are up at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    found: Queue[Results] = context.Queue()
    schedules: Queue[Schedule] = context.Queue()
    senders = [
        context.Process(target=_send_share, args=(plan, number, schedules, found), daemon=True)
        for number in range(plan.processes)
    ]
    for process in senders:
        process.start()
    try:
        for _ in senders:
            found.get(timeout=_START_TIMEOUT_S)
        starts_at_s = time.monotonic() + _START_DELAY_S
        schedule = Schedule(starts_at_s, rate, duration_s)
        for _ in senders:
            schedules.put(schedule)
        announce(schedule)
        running = partial(_running, senders)
        return schedule, _gather(schedule, found, running=running, show=show)
    except Empty:
        raise CannotStart("A process that sends requests did not start.") from None
    finally:
        for process in senders:
            process.terminate()
            process.join()


def ceiling(plan: Plan) -> float:
    """Return the requests per second that these processes can send to ``plan.url`` at most.

    Schedules far more than can be sent, and counts how many are answered.
    """
    schedule, results = run(plan, rate=_CEILING_RATE, duration_s=_CEILING_S, show=False)
    if not results.samples:
        return 0.0
    last_s = max(sample.done_s for sample in results.samples)
    return len(results.samples) / (last_s - schedule.starts_at_s)


async def send(
    plan: Plan,
    wait_for_schedule: Callable[[], Schedule],
    *,
    process: int,
    report: Callable[[Results], None],
) -> None:
    """Open the clients, report that, wait for the schedule and send one process's share of it.

    Results are reported every half second.

    A request that finds ``in_flight`` others open waits; its time counts from when it was due.
    Requests still waiting when the overrun ends are not sent.
    """
    rng = random.Random(f"{plan.seed}-{process}")  # noqa: S311 - test data, not a secret
    results = Results()
    async with _open_clients(plan) as idle, asyncio.TaskGroup() as tasks:
        report(results.take())
        schedule = await asyncio.to_thread(wait_for_schedule)
        reporting = tasks.create_task(_report_regularly(results, report))
        async with asyncio.TaskGroup() as requests:
            for number, due_s in schedule.share(process, of=plan.processes):
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                client = await idle.get()
                if time.monotonic() > schedule.ends_at_s + plan.overrun_s:
                    results.errors[NEVER_SENT] += _remaining(plan, schedule, number)
                    idle.put_nowait(client)
                    break
                body = random_application(rng) | {"Loan_ID": f"L{plan.seed}-{number}"}
                request = _send_one(client, plan, due_s, to_json(body), results)
                requests.create_task(request).add_done_callback(partial(_give_back, idle, client))
        reporting.cancel()
    report(results.take())


def _give_back(
    idle: asyncio.LifoQueue[httpx.AsyncClient], client: httpx.AsyncClient, _: asyncio.Task[None]
) -> None:
    idle.put_nowait(client)


@asynccontextmanager
async def _open_clients(plan: Plan) -> AsyncIterator[asyncio.LifoQueue[httpx.AsyncClient]]:
    """Open one client per possible open request, most recently used first.

    A single client would search its pool on every request: with 64 connections that took ten times
    as long as the request itself.
    """
    headers = {"content-type": "application/json"} | ({"x-api-key": plan.key} if plan.key else {})
    certificates = httpx.create_ssl_context()
    idle: asyncio.LifoQueue[httpx.AsyncClient] = asyncio.LifoQueue()
    async with AsyncExitStack() as stack:
        for _ in range(plan.in_flight):
            client = httpx.AsyncClient(
                verify=certificates, headers=headers, timeout=_TIMEOUT_S, limits=_LIMITS
            )
            idle.put_nowait(await stack.enter_async_context(client))
        yield idle


def _remaining(plan: Plan, schedule: Schedule, number: int) -> int:
    """Return how many requests of a share are left, from this one on."""
    return len(range(number, schedule.requests, plan.processes))


async def _send_one(
    client: httpx.AsyncClient, plan: Plan, due_s: float, body: bytes, results: Results
) -> None:
    sent_s = time.monotonic()
    try:
        answer = await client.post(plan.url, content=body)
    except httpx.HTTPError as error:
        results.errors[type(error).__name__] += 1
        return
    done_s = time.monotonic()
    if answer.status_code != 200:
        refused = answer.status_code == 503 and "retry-after" in answer.headers
        results.errors[REFUSED if refused else f"status {answer.status_code}"] += 1
        return
    results.samples.append(Sample(due_s, sent_s, done_s))
    if plan.wants_ids:
        results.ids.append(answer.json()["prediction_id"])


async def _report_regularly(results: Results, report: Callable[[Results], None]) -> None:
    while True:
        await asyncio.sleep(_REPORT_EVERY_S)
        report(results.take())


def _send_share(
    plan: Plan, number: int, schedules: "Queue[Schedule]", found: "Queue[Results]"
) -> None:
    with suppress(KeyboardInterrupt):
        asyncio.run(send(plan, schedules.get, process=number, report=found.put))


def _gather(
    schedule: Schedule, found: "Queue[Results]", *, running: Callable[[], bool], show: bool
) -> Results:
    """Collect what the processes report until each request is accounted for."""
    results = Results()
    with tqdm(total=schedule.requests, unit="req", disable=not show) as bar:
        while results.finished < schedule.requests:
            was_running = running()
            try:
                part = found.get(timeout=_REPORT_EVERY_S)
            except Empty:
                if was_running:
                    continue
                results.errors[PROCESS_ENDED] += schedule.requests - results.finished
                break
            results.add(part)
            bar.update(part.finished)
            if part.samples:
                times = sorted(sample.latency_s for sample in part.samples)
                p99_ms = percentile(times, 99) * _MS_PER_S
                bar.set_postfix_str(f"p99 {p99_ms:.1f} ms, {results.errors.total()} errors")
    return results


def _running(senders: Sequence[ForkServerProcess]) -> bool:
    return any(process.is_alive() for process in senders)

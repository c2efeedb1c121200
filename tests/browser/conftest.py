"""A chromium, and a system with a history to look at."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from loan_predictor_client import LoanPredictorClient
from loan_predictor_client.models import Decision
from shared.contract.events import INTERNAL_PREDICTIONS_PATH, ModelName
from shared.contract.ids import uuid7
from tests import keys
from tests.applications import random_application
from tests.browser.look import Shown
from tests.harness import HOST, System, running_batches, running_dashboard

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_WITHIN_MS = 20_000
_TODAY = 90
_DAYS = 18
_OLD = 2000
_MOST_REPORTS = 500
_MODELS: tuple[ModelName | None, ...] = (
    *(None, None, None),
    *("random_forest", "logistic_regression", "support_vector_machine"),
)


def _chromium() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium")


def pytest_report_header() -> str:
    """Say which browser the tests drive."""
    return f"browser: {_chromium()}"


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """What drives the browser."""
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """One browser for the whole run."""
    path = _chromium()
    if path is None:
        pytest.skip("there is no chromium: apt-get install chromium, or set CHROMIUM")
    expect.set_options(timeout=_WITHIN_MS)
    browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def shown(shared_system: System) -> Iterator[Shown]:
    """A system with decisions of some weeks, its dashboard, and a client to compare with."""
    system = shared_system
    logs = system.inference.log.parent
    with (
        running_batches(system, logs=logs) as (batch_url, _),
        running_dashboard(system, logs=logs, BATCH_URL=batch_url) as url,
        LoanPredictorClient(
            system.inference_url, system.history_url, api_key=system.api_key
        ) as api,
    ):
        _fill(api, system.history_url)
        yield Shown(system=system, url=url, batch_url=batch_url, api=api, logs=logs)


def _fill(api: LoanPredictorClient, history_url: str) -> None:
    """Decisions of today by the API, and the same on days before, which only history can take.

    Of those of the months before, most outcomes are known; the last ones turn out worse.
    """
    rng = random.Random(5)  # noqa: S311 - test data, not a secret
    made = [api.predict(random_application(rng), model=rng.choice(_MODELS)) for _ in range(_TODAY)]
    moved = [
        _moved(rng.choice(made), timedelta(days=day, seconds=rng.randrange(30_000)))
        for day in range(1, _DAYS)
        for _ in range(rng.randrange(25, 90))
    ]
    champion = api.models().champion
    champions = [each for each in made if each.model_info.name == champion]
    old = [_moved(rng.choice(champions), timedelta(days=rng.uniform(40, 300))) for _ in range(_OLD)]
    _store([*moved, *old], history_url)
    total = len(made) + len(moved) + len(old)
    deadline_s = time.monotonic() + 30
    while api.statistics().total_predictions < total:
        assert time.monotonic() < deadline_s, "the decisions were not stored in time"
        time.sleep(0.1)
    reports = [report for each in old if (report := _report(rng, each))]
    for first in range(0, len(reports), _MOST_REPORTS):
        assert api.report_outcomes(reports[first : first + _MOST_REPORTS]).faulty == 0


def _moved(decision: Decision, earlier: timedelta) -> Decision:
    """The same decision, made earlier."""
    then = decision.timestamp - earlier
    return decision.model_copy(
        update={"timestamp": then, "prediction_id": UUID(uuid7(int(then.timestamp() * 1000)))}
    )


def _report(rng: random.Random, decision: Decision) -> dict[str, object] | None:
    """What became of it; None where that is not known."""
    now = datetime.now(UTC)
    seen = decision.timestamp + timedelta(days=rng.uniform(10, 160))
    if decision.prediction == "Rejected" or seen > now:
        return None
    worse = 0.7 if now - decision.timestamp < timedelta(days=190) else 1
    good = rng.random() < worse * decision.probability.approved
    outcome = "repaid" if good else "default"
    return {
        "prediction_id": str(decision.prediction_id),
        "outcome": outcome,
        "observed_at": seen.isoformat(),
    }


def _store(decisions: Sequence[Decision], history_url: str) -> None:
    """Have history record the decisions as if they had been made in their time."""
    event = {"type": "PredictionRecorded", "version": 1, "client": "broker", "request_id": "moved"}
    lines = [
        json.dumps(event | {"decision": json.loads(each.model_dump_json())}) for each in decisions
    ]
    for first in range(0, len(lines), _MOST_REPORTS):
        answer = httpx.post(
            f"{history_url}{INTERNAL_PREDICTIONS_PATH}",
            content="\n".join(lines[first : first + _MOST_REPORTS]),
            headers=keys.HEADERS,
            timeout=30,
        )
        assert answer.status_code == 204, answer.text


@pytest.fixture
def open_context(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Opens a browser window of its own; its pages may call this machine only."""
    contexts: list[BrowserContext] = []
    strangers: list[str] = []
    complaints: list[str] = []

    def open_(
        *, width: int = 1440, height: int = 900, dark: bool = False, base_url: str | None = None
    ) -> BrowserContext:
        context = browser.new_context(
            base_url=base_url,
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            accept_downloads=True,
        )
        context.set_default_timeout(_WITHIN_MS)
        context.on("request", lambda request: _note_stranger(request.url, strangers))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on(
            "page",
            lambda page: page.on("websocket", lambda ws: _note_stranger(ws.url, strangers)),
        )
        contexts.append(context)
        return context

    yield open_
    for context in contexts:
        context.close()
    assert strangers == []
    assert complaints == []


def _note_stranger(url: str, strangers: list[str]) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("data", "blob") and parts.hostname != HOST:
        strangers.append(url)


@pytest.fixture
def page(open_context: Callable[..., BrowserContext], shown: Shown) -> Page:
    """A wide window, with nothing opened yet."""
    return open_context(base_url=shown.url).new_page()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: the folder SCREENSHOTS, or one that is thrown away."""
    given = os.environ.get("SCREENSHOTS")
    folder = Path(given) if given else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder

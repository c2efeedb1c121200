"""Many applications at once: the same decisions as one by one, recorded in slices."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from time import thread_time
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import time_machine
from redis.asyncio import Redis

from services.scoring.decisions import SLICE, Served, Submission, record_many, recorded_event
from services.scoring.engine import decide, decide_many
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.metrics import DecisionMetrics
from services.scoring.publisher import Publisher, redis_sink
from services.scoring.registry import Bundle, load_bundle
from services.training.export import random_applications
from shared.contract.errors import NotRecorded
from shared.contract.parsing import read_application
from shared.observability.metrics.names import DECISIONS
from tests.stream import recorded_events

MODELS = ("gradient_boosting", "logistic_regression", "random_forest", "support_vector_machine")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The shipped bundle."""
    return load_bundle(BUNDLE_ROOT, None)


@pytest.fixture(scope="module")
def applications() -> list[dict[str, Any]]:
    """Random ones, as the API reads them."""
    return [read_application(application) for application in random_applications(1_000)]


@pytest.fixture
def served(bundle: Bundle) -> Served:
    """The bundle with metrics of its own."""
    return Served(bundle, DecisionMetrics())


async def _refuse(_: object) -> None:
    raise ConnectionRefusedError


def _counted(served: Served) -> float:
    """How many decisions the metrics count."""
    values = (each.value for each in served.metrics.samples() if each.metric is DECISIONS)
    return sum(value for value in values if isinstance(value, int | float))


@pytest.mark.parametrize("name", MODELS)
def test_rows_score_the_same_together_as_one_by_one(
    name: str, bundle: Bundle, applications: list[dict[str, Any]]
) -> None:
    """Bit for bit, and in float32 too unless the model is linear."""
    model = bundle.models[name]
    rows = [bundle.row_of(application) for application in applications]
    one_by_one = [model.approval_probability(row) for row in rows]
    together = model.approval_probabilities(np.array(rows))
    assert together.tolist() == one_by_one
    in_float32 = model.approval_probabilities(np.array(rows, dtype=np.float32))
    assert in_float32.tolist() == pytest.approx(one_by_one, abs=1e-6)
    if name != "logistic_regression":
        assert in_float32.tolist() == one_by_one


@pytest.mark.parametrize("name", MODELS)
def test_decisions_are_the_same_together_as_one_by_one(
    name: str, bundle: Bundle, applications: list[dict[str, Any]]
) -> None:
    """Byte for byte: reasons, warnings and all."""
    model = bundle.models[name]
    ids = [str(uuid4()) for _ in applications]
    with time_machine.travel(datetime.now(UTC), tick=False):
        together = decide_many(applications, model=model, bundle=bundle, prediction_ids=ids)
        one_by_one = [
            decide(application, model=model, bundle=bundle, prediction_id=prediction_id)
            for application, prediction_id in zip(applications, ids, strict=True)
        ]
    assert together == one_by_one
    assert {each.prediction for each in together} == {"Approved", "Rejected"}


def test_each_decision_has_an_id_of_its_own(
    bundle: Bundle, applications: list[dict[str, Any]]
) -> None:
    decided = decide_many(applications, model=bundle.champion, bundle=bundle)
    assert len({each.prediction_id for each in decided}) == len(applications)
    assert decide_many([], model=bundle.champion, bundle=bundle) == []


async def test_many_are_recorded_in_order_and_the_loop_goes_on_meanwhile(
    redis: Redis, redis_url: str, served: Served, applications: list[dict[str, Any]]
) -> None:
    """No turn of the event loop takes more than a few milliseconds of the processor."""
    model = served.bundle.champion
    submissions = [Submission("batch", f"batch/1/{line}") for line in range(len(applications))]
    ids = [str(uuid4()) for _ in applications]
    turns: list[float] = []

    async def turn() -> None:
        while True:
            began_s = thread_time()
            await asyncio.sleep(0)
            turns.append(thread_time() - began_s)

    async with Redis.from_url(redis_url) as client:
        publisher = Publisher(stream=redis_sink(client, deadline_s=5), fallback=_refuse)
        turning = asyncio.create_task(turn())
        decided = await record_many(
            applications,
            served,
            submissions,
            model=model,
            publisher=publisher,
            prediction_ids=ids,
        )
        turning.cancel()
    assert [each.prediction_id for each in decided] == ids
    assert await recorded_events(redis) == [
        recorded_event(each.body, submission)
        for each, submission in zip(decided, submissions, strict=True)
    ]
    assert len(turns) > 2 * len(applications) // SLICE
    assert max(turns) < 0.015
    assert _counted(served) == len(applications)


async def test_many_are_refused_unless_all_are_recorded(
    served: Served, applications: list[dict[str, Any]]
) -> None:
    """The slices that were handed over before stay on record, under the ids that were given."""
    handed: list[bytes] = []

    async def take_some(events: Sequence[bytes]) -> None:
        if len(handed) >= 3 * SLICE:
            raise ConnectionRefusedError
        handed.extend(events)

    publisher = Publisher(stream=take_some, fallback=_refuse)
    with pytest.raises(NotRecorded):
        await record_many(
            applications,
            served,
            [Submission("batch", "")] * len(applications),
            model=served.bundle.champion,
            publisher=publisher,
        )
    assert publisher.published == len(handed) == 3 * SLICE
    assert _counted(served) == 3 * SLICE

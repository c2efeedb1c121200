"""A component is ready when it can be used, and one that ends instead says why."""

import os
from pathlib import Path

import pytest

from services.local import components
from services.local.processes import CannotStart
from tests.harness import HOST, free_port

pytestmark = pytest.mark.system


def test_consumer_is_ready_once_it_exposes_its_metrics(tmp_path: Path) -> None:
    """Whether its servers answer or not: it waits for them."""
    environment = os.environ | {
        "REDIS_URL": f"redis://{HOST}:1",
        "DATABASE_URL": f"postgresql://{HOST}:1/loans",
    }
    consumer = components.consumer(environment, host=HOST, metrics_port=free_port(), logs=tmp_path)
    consumer.spawn()
    try:
        assert not consumer.is_ready()
        consumer.wait_ready()
    finally:
        consumer.stop()
    assert not consumer.is_ready()


def test_consumer_that_ends_at_its_start_is_not_reported_as_ready(tmp_path: Path) -> None:
    """The run names its reason."""
    consumer = components.consumer(
        os.environ | {"DATABASE_URL": "mysql://db"},
        host=HOST,
        metrics_port=free_port(),
        logs=tmp_path,
    )
    with pytest.raises(CannotStart, match=r"consumer ended with 2[^$]*DATABASE_URL"):
        consumer.start()

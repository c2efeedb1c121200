"""The inference service writes events by the contract, and history reads them."""

import json
from pathlib import Path

import pytest
from pydantic_core import to_json

from services.history.recorder import decode
from services.scoring.decisions import Submission, recorded_event
from services.scoring.engine import decide
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.registry import load_bundle
from shared.contract.application import EXAMPLE
from shared.contract.parsing import parse_application

_SUBMISSION = Submission("broker", "order-66")
_SAMPLES = (
    Path(__file__).with_name("prediction_recorded_v1.json"),
    Path(__file__).with_name("prediction_recorded_v1_reasons.json"),
)


def _shape(value: object, frozen: object) -> object:
    """Names, order and types of the members that ``frozen`` has, without their values."""
    if isinstance(value, dict) and isinstance(frozen, dict):
        return [(name, _shape(value[name], frozen[name])) for name in value if name in frozen]
    return type(value).__name__


@pytest.mark.parametrize("path", _SAMPLES, ids=lambda path: path.stem)
def test_written_event_has_the_frozen_shape(path: Path) -> None:
    """It has every member of version 1, by name, type and order; newer ones may be among them."""
    bundle = load_bundle(BUNDLE_ROOT, None)
    sample = json.loads(path.read_bytes())
    application = parse_application(to_json(sample["decision"]["input_data"]))
    decision = decide(application, model=bundle.champion, bundle=bundle)
    event = json.loads(recorded_event(decision.body, _SUBMISSION))
    assert _shape(event, sample) == _shape(sample, sample)


def test_history_reads_what_inference_writes() -> None:
    """The published bytes decode to a row of the history."""
    bundle = load_bundle(BUNDLE_ROOT, None)
    decision = decide(parse_application(to_json(EXAMPLE)), model=bundle.champion, bundle=bundle)
    row = decode(recorded_event(decision.body, _SUBMISSION))
    answered = json.loads(decision.body)
    assert str(row[0]) == answered["prediction_id"]
    assert {"broker", "order-66", answered["model_info"]["version"]} <= set(map(str, row))

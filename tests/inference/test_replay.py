"""POST /replay: a recorded decision comes out the same again, or it is said what differs."""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.inference.main import create_app
from services.inference.settings import InferenceSettings
from services.scoring.manifest import BUNDLE_ROOT, read_current_version
from shared.contract.application import EXAMPLE
from tests import keys
from tests.inference.record import RECORDED
from tests.serving import served


async def _decision(client: httpx.AsyncClient, application: Any = EXAMPLE) -> dict[str, Any]:
    response = await client.post("/predict", json=application, headers=keys.HEADERS)
    decision: dict[str, Any] = response.raise_for_status().json()
    return decision


async def _replay(client: httpx.AsyncClient, decision: object) -> dict[str, Any]:
    response = await client.post("/replay", json=decision, headers=keys.HEADERS)
    report: dict[str, Any] = response.raise_for_status().json()
    return report


async def test_answered_decision_comes_out_equal(
    client: httpx.AsyncClient, loan_applications: list[dict[str, object]]
) -> None:
    """Whatever was decided by the served bundle is decided the same again, bit for bit."""
    for application in loan_applications[:20]:
        decision = await _decision(client, application)
        report = await _replay(client, decision)
        assert report["equal"], report
        assert report["differences"] == []
        assert report["prediction_id"] == decision["prediction_id"]


@pytest.mark.parametrize(
    ("member", "value", "cause"),
    [
        ("probability.approved", 0.25, "model"),
        ("prediction_code", 0, "threshold"),
        ("prediction", "Rejected", "threshold"),
    ],
)
async def test_each_member_that_differs_is_named_with_its_cause(
    client: httpx.AsyncClient, member: str, value: object, cause: str
) -> None:
    """An altered record is not equal, and the altered member is named."""
    decision = await _decision(client)
    *parents, name = member.split(".")
    inner = decision
    for parent in parents:
        inner = inner[parent]
    inner[name] = value
    report = await _replay(client, decision)
    assert not report["equal"]
    [difference] = report["differences"]
    assert (difference["member"], difference["recorded"]) == (member, value)
    assert difference["cause"] == cause


async def test_last_digit_is_called_rounding(client: httpx.AsyncClient) -> None:
    """A probability that differs by one millionth is named as a matter of rounding."""
    decision = await _decision(client)
    decision["probability"]["approved"] = round(decision["probability"]["approved"] - 1e-6, 6)
    [difference] = (await _replay(client, decision))["differences"]
    assert difference["cause"] == "rounding"


async def test_decision_of_a_missing_or_altered_bundle_says_so(
    settings: InferenceSettings, tmp_path: Path
) -> None:
    """A bundle that is not there, or whose files were touched, is named instead of compared."""
    version = read_current_version(BUNDLE_ROOT)
    root = tmp_path / "bundles"
    shutil.copytree(BUNDLE_ROOT, root)
    async with served(create_app(settings.model_copy(update={"bundle_root": root}))) as client:
        decision = await _decision(client)
        decision["model_info"]["version"] = "b-00000000"
        report = await _replay(client, decision)
        assert (report["equal"], report["bundle_version"]) == (False, "b-00000000")
        assert "cannot be read" in report["fault"]

        shutil.copytree(root / version, root / "b-00000000")
        manifest = root / "b-00000000" / "manifest.json"
        altered = json.loads(manifest.read_text()) | {"version": "b-00000000"}
        manifest.write_text(json.dumps(altered))
        with (root / "b-00000000" / "random_forest.onnx").open("ab") as model:
            model.write(b" ")
        report = await _replay(client, decision)
        assert "random_forest.onnx is altered" in report["fault"]


async def test_unknown_model_is_named(client: httpx.AsyncClient) -> None:
    """A record of a model that its bundle does not hold cannot be decided again."""
    decision = await _decision(client)
    decision["model_info"]["name"] = "neural_network"
    report = await _replay(client, decision)
    assert report["fault"] == (
        f"The bundle {decision['model_info']['version']} holds no model neural_network."
    )


async def test_input_that_cannot_be_decided_on_is_named(client: httpx.AsyncClient) -> None:
    """A record may hold what this version refuses; that is said, and nothing fails."""
    for field, value in (("LoanAmount", -1), ("Dependents", "4"), ("ApplicantIncome", 0)):
        decision = await _decision(client)
        decision["input_data"] |= {"CoapplicantIncome": None, field: value}
        assert "cannot decide on such an input" in (await _replay(client, decision))["fault"]


async def test_warnings_of_an_earlier_version_make_no_other_decision(
    client: httpx.AsyncClient,
) -> None:
    """They are the service's, not the model's: named as the rules', beside an equal decision."""
    decision = await _decision(client)
    decision["warnings"] = ["In other words"]
    report = await _replay(client, decision)
    assert report["equal"]
    assert [each["cause"] for each in report["differences"]] == ["rules"]


async def test_replaying_needs_its_scope_and_a_whole_decision(client: httpx.AsyncClient) -> None:
    """Without the scope there is no replay; of a partial record every fault is named."""
    assert (await client.post("/replay", json={})).status_code == 401
    response = await client.post("/replay", json={"prediction": "Maybe"}, headers=keys.HEADERS)
    assert response.status_code == 400
    fields = {fault["field"] for fault in response.json()["validation_errors"]}
    assert {"prediction", "input_data", "model_info"} <= fields


async def test_recorded_decisions_of_every_bundle_come_out_equal(
    client: httpx.AsyncClient,
) -> None:
    """Each bundle that was ever published is still there, and decides its frozen records again."""
    recorded = {path.stem: json.loads(path.read_bytes()) for path in RECORDED.glob("*.json")}
    assert recorded.keys() == {path.name for path in BUNDLE_ROOT.iterdir() if path.is_dir()}
    for decisions in recorded.values():
        for decision in decisions:
            report = await _replay(client, decision)
            assert report["equal"], report

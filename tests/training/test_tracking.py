"""Runs in MLflow's file format."""

import json
from pathlib import Path

import pytest

from services.training.tracking import TRACKING_URI, track
from services.training.train import Published


def test_each_model_is_a_run_of_one_experiment(
    trained: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MLflow lays them out; the same bundle again is the same runs."""
    monkeypatch.setenv(TRACKING_URI, (tmp_path / "ml runs").as_uri())
    manifest = trained.manifest
    for _ in range(2):
        assert "experiment loan-predictor" in str(track(manifest))
    [experiment] = tmp_path.glob("ml runs/*")
    assert json.loads((experiment / "meta.yaml").read_text())["experiment_id"] == experiment.name
    found = {}
    for run in (path.parent for path in experiment.glob("*/meta.yaml")):
        meta = json.loads((run / "meta.yaml").read_text())
        assert (meta["run_id"], meta["experiment_id"]) == (run.name, experiment.name)
        assert (run / "artifacts").is_dir()
        name = (run / "tags" / "model").read_text()
        _, value, step = (run / "metrics" / "log_loss").read_text().split()
        assert int(step) == 0
        found[name] = float(value)
        model = manifest.models[name]
        assert {path.name: path.read_text() for path in (run / "params").iterdir()} == (
            model.parameters
        )
    assert found == {
        name: model.cross_validation.log_loss.mean for name, model in manifest.models.items()
    }


def test_nothing_is_tracked_unless_a_folder_is_named(
    trained: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server's address is said to be none."""
    monkeypatch.delenv(TRACKING_URI, raising=False)
    assert track(trained.manifest) is None
    monkeypatch.setenv(TRACKING_URI, "http://127.0.0.1:5000")
    assert "is no address of a folder" in str(track(trained.manifest))

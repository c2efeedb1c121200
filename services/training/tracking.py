"""A training run in MLflow's file format, for those who keep their runs there.

One run for each model, in the experiment ``loan-predictor``: parameters, metrics and tags as plain
files. Nothing of MLflow is needed to write them. MLflow 3 reads them with
``MLFLOW_ALLOW_FILE_STORE=true``, or after ``mlflow migrate-filestore``.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlparse

from services.scoring.manifest import Manifest, TrainedModel

TRACKING_URI: Final = "MLFLOW_TRACKING_URI"
EXPERIMENT: Final = "loan-predictor"
_EXPERIMENT_ID: Final = "418230117605529834"
_LOCAL: Final = 4
_FINISHED: Final = 3


def track(manifest: Manifest) -> str | None:
    """Write a run for each model where ``MLFLOW_TRACKING_URI`` says; return a sentence about it.

    Without that variable nothing is written. The same bundle is the same runs: they are written
    again. Raises ``OSError``.
    """
    uri = os.environ.get(TRACKING_URI)
    if not uri:
        return None
    address = urlparse(uri)
    if address.scheme != "file":
        return f"The run is not tracked: {TRACKING_URI} is no address of a folder (file:///…)."
    root = Path(unquote(address.path)) / _EXPERIMENT_ID
    now = int(time.time() * 1_000)
    if not (root / "meta.yaml").exists():
        meta = {"name": EXPERIMENT, "creation_time": now, "last_update_time": now}
        _write(root / "meta.yaml", _experiment(root) | meta)
    for name, model in manifest.models.items():
        run = hashlib.sha256(f"{manifest.version}/{name}".encode()).hexdigest()[:32]
        _write(root / run / "meta.yaml", _run(root / run, f"{manifest.version} {name}", now))
        # Without it MLflow takes the folder for no run.
        (root / run / "artifacts").mkdir(exist_ok=True)
        for path, value in _files(manifest, name, model, now):
            _write(root / run / path, value)
    return f"Tracked in {root.parent} as the experiment {EXPERIMENT}."


def _experiment(root: Path) -> dict[str, object]:
    return {
        "artifact_location": root.resolve().as_uri(),
        "experiment_id": _EXPERIMENT_ID,
        "lifecycle_stage": "active",
    }


def _run(folder: Path, name: str, now: int) -> dict[str, object]:
    return {
        "artifact_uri": (folder / "artifacts").resolve().as_uri(),
        "experiment_id": _EXPERIMENT_ID,
        "run_id": folder.name,
        "run_uuid": folder.name,
        "run_name": name,
        "user_id": "",
        "start_time": now,
        "end_time": now,
        "status": _FINISHED,
        "lifecycle_stage": "active",
        "source_type": _LOCAL,
        "source_name": "",
        "source_version": "",
        "entry_point_name": "",
        "tags": [],
    }


def _files(
    manifest: Manifest, name: str, model: TrainedModel, now: int
) -> Iterator[tuple[str, str]]:
    for parameter, value in model.parameters.items():
        yield f"params/{parameter}", value
    metrics = {metric: each["mean"] for metric, each in model.cross_validation.model_dump().items()}
    metrics["holdout_accuracy"] = model.holdout.accuracy
    metrics["training_time_s"] = manifest.timings[name].training_time_s
    for metric, number in metrics.items():
        yield f"metrics/{metric}", f"{now} {number} 0\n"
    tags = {
        "mlflow.runName": f"{manifest.version} {name}",
        "bundle": manifest.version,
        "model": name,
        "champion": str(name == manifest.champion),
        "data_sha256": manifest.data.sha256,
    }
    for tag, text in tags.items():
        yield f"tags/{tag}", text


def _write(path: Path, content: str | Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # JSON is YAML.
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")

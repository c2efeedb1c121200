"""What stops the service from starting, and what it must never load."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.inference.settings import InferenceSettings
from services.local import components
from services.scoring.manifest import BUNDLE_ROOT, SCHEMA_VERSION
from services.scoring.registry import load_bundle
from tests.harness import HOST, events_in, free_port
from tests.waiting import until

ROOT = Path(__file__).parents[2]
_LOAD = "import sys; from services.inference.main import create_app; create_app(); "


def _start(root: Path, code: str = _LOAD) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"BUNDLE_ROOT": str(root), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.system
def test_model_runtime_sends_no_telemetry() -> None:
    """The runtime's telemetry is off before the runtime is loaded, without any setting."""
    finished = _start(
        BUNDLE_ROOT,
        "import services.scoring.registry, os; print(os.environ['ORT_DISABLE_TELEMETRY'])",
    )
    assert finished.stdout.strip() == "1", finished.stderr


@pytest.fixture
def copied_root(tmp_path: Path) -> Path:
    """A copy of the shipped bundle, to be spoiled."""
    return Path(shutil.copytree(BUNDLE_ROOT, tmp_path / "bundle"))


def _folder(root: Path) -> Path:
    return root / (root / "CURRENT").read_text().strip()


def test_an_older_bundle_is_served_again_when_it_is_named(
    copied_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By BUNDLE_VERSION alone, whatever CURRENT says; this is how models are rolled back."""
    older = _folder(copied_root)
    shutil.copytree(older, copied_root / "b-00000000")
    (copied_root / "CURRENT").write_text("b-00000000\n")
    _rewrite_manifest(copied_root, version="b-00000000")
    assert load_bundle(copied_root, None).manifest.version == "b-00000000"
    monkeypatch.setenv("BUNDLE_VERSION", older.name)
    named = InferenceSettings().bundle_version
    assert load_bundle(copied_root, named).manifest.version == older.name


@pytest.mark.system
def test_serving_never_imports_the_training_libraries() -> None:
    """The running service knows ONNX Runtime only: no scikit-learn, pandas or joblib."""
    forbidden = ["sklearn", "pandas", "joblib", "scipy", "matplotlib", "skl2onnx", "sqlalchemy"]
    finished = _start(
        BUNDLE_ROOT,
        _LOAD
        + f"print([m for m in {forbidden} if m in sys.modules], 'onnxruntime' in sys.modules)",
    )
    assert finished.stdout.strip() == "[] True", finished.stderr


def _remove_current(root: Path) -> None:
    (root / "CURRENT").unlink()


def _remove_model(root: Path) -> None:
    (_folder(root) / "random_forest.onnx").unlink()


def _alter_model(root: Path) -> None:
    path = _folder(root) / "random_forest.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _remove_manifest(root: Path) -> None:
    (_folder(root) / "manifest.json").unlink()


def _rewrite_manifest(root: Path, **changes: object) -> None:
    path = _folder(root) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _newer_schema(root: Path) -> None:
    _rewrite_manifest(root, schema_version=SCHEMA_VERSION + 1)


def _other_features(root: Path) -> None:
    _rewrite_manifest(root, features=["Shoe_Size"])


@pytest.mark.system
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_remove_current, "CURRENT"),
        (_remove_model, "random_forest.onnx"),
        (_alter_model, "random_forest.onnx is altered"),
        (_remove_manifest, "manifest.json"),
        (_newer_schema, "newer"),
        (_other_features, "other features"),
    ],
)
def test_unusable_bundle_stops_the_start_with_one_clear_line(
    copied_root: Path, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    """Nothing is served from a bundle that is not exactly what was trained for this service."""
    spoil(copied_root)
    env = {"BUNDLE_ROOT": str(copied_root), "PATH": ""}
    process = components.inference(env, host=HOST, port=free_port(), logs=tmp_path)
    process.spawn()
    until(lambda: not process.running)
    assert process.exit_code == 1
    [event] = events_in(process)
    assert event["event"] == "the bundle cannot be used"
    assert reason in event["reason"]

"""The bundle that the product ships."""

import hashlib
import os
from pathlib import Path

import joblib
import pytest

from services.scoring.features import FEATURES, feature_matrix
from services.scoring.manifest import (
    BUNDLE_ROOT,
    MANIFEST_FILE,
    Manifest,
    check_files,
    read_current_version,
    read_manifest,
)
from services.training.card import model_card
from services.training.export import check_parity, open_onnx, random_applications
from services.training.main import DEFAULT_OUTPUT
from services.training.models import parameters
from tests.training.conftest import MODEL_NAMES, unfitted

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def folder() -> Path:
    """The folder of the bundle that is served by default."""
    return BUNDLE_ROOT / read_current_version(BUNDLE_ROOT)


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    """The shipped bundle's manifest."""
    return read_manifest(folder / MANIFEST_FILE)


def test_candidates_are_outside_the_tracked_tree() -> None:
    """Training changes nothing that is served or committed, unless it is asked to promote."""
    assert not DEFAULT_OUTPUT.resolve().is_relative_to(BUNDLE_ROOT.resolve())
    ignored = (Path(__file__).parents[2] / ".gitignore").read_text().splitlines()
    assert f"{DEFAULT_OUTPUT.parts[0]}/" in ignored


def test_shipped_bundle_is_intact_and_of_this_code(folder: Path, manifest: Manifest) -> None:
    """Checksums, features, parameters and card match the code."""
    check_files(folder, manifest)
    assert manifest.version == folder.name
    assert manifest.features == FEATURES
    assert (folder / "MODEL_CARD.md").read_text(encoding="utf-8") == model_card(manifest)
    for name in MODEL_NAMES:
        assert manifest.models[name].parameters == parameters(unfitted(name))


def test_shipped_bundle_is_small(folder: Path) -> None:
    """It is small enough for the repository: no file of 3 MiB, less than 5 MiB in all."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    assert max(sizes) < 3 * MIB
    assert sum(sizes) < 5 * MIB


def test_shipped_models_answer_as_their_references(folder: Path, manifest: Manifest) -> None:
    """The shipped files pass the export gate."""
    features = feature_matrix(random_applications(2000), manifest.imputation)
    for name in MODEL_NAMES:
        reference = joblib.load(folder / f"{name}.joblib")
        check_parity(name, reference, open_onnx((folder / f"{name}.onnx").read_bytes()), features)


def test_shipped_metrics_are_those_of_ten_by_ten_folds(manifest: Manifest) -> None:
    """Models and rule are about equally accurate, and far above the majority class."""
    assert (manifest.evaluation.folds, manifest.evaluation.repeats) == (10, 10)
    rule = manifest.baselines["credit_history_rule"].cross_validation.accuracy.mean
    majority = manifest.baselines["majority_class"].cross_validation.accuracy.mean
    for model in manifest.models.values():
        accuracy = model.cross_validation.accuracy
        assert accuracy.low < rule < accuracy.high
        assert accuracy.low > majority
        assert model.parity.rows == manifest.data.rows + 20_000
        assert model.holdout.rows == 123


def test_shipped_bundle_was_trained_on_the_real_data(manifest: Manifest) -> None:
    """Where the data set is available, its SHA-256 is the manifest's."""
    data = Path(os.environ.get("LOAN_DATA_DIR", "")) / "loans.csv"
    if not data.is_file():
        pytest.skip("LOAN_DATA_DIR has no loans.csv to compare with")
    assert hashlib.sha256(data.read_bytes()).hexdigest() == manifest.data.sha256

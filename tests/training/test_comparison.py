"""A candidate against the bundle that is served."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import accuracy_score
from sklearn.model_selection import RepeatedStratifiedKFold

from services.scoring.features import feature_matrix
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.registry import load_bundle
from services.training.applications import LabelledApplications
from services.training.comparison import comparison
from services.training.export import approvals, open_onnx
from services.training.models import SEED
from services.training.train import Published


@pytest.fixture
def compared(trained: Published, labelled: LabelledApplications) -> str:
    """The small training run against the shipped bundle."""
    candidate = load_bundle(trained.folder.parent, trained.manifest.version)
    return comparison(labelled, trained.out_of_fold, candidate, load_bundle(BUNDLE_ROOT, None))


def _approved(root: Path, version: str, labelled: LabelledApplications) -> npt.NDArray[np.bool_]:
    manifest = load_bundle(root, version).manifest
    onnx = (root / version / f"{manifest.champion}.onnx").read_bytes()
    rows = feature_matrix(labelled.applications, manifest.imputation)
    approved: npt.NDArray[np.bool_] = approvals(open_onnx(onnx), rows) >= manifest.threshold
    return approved


def test_both_are_measured_on_the_same_folds(
    trained: Published, labelled: LabelledApplications, compared: str
) -> None:
    """The candidate out of fold, the served champion as it answers."""
    served = _approved(BUNDLE_ROOT, load_bundle(BUNDLE_ROOT, None).manifest.version, labelled)
    folds = RepeatedStratifiedKFold(n_splits=2, n_repeats=1, random_state=SEED)
    theirs = np.mean(
        [
            accuracy_score(labelled.approved[test], served[test])
            for _, test in folds.split(served, labelled.approved)
        ]
    )
    ours = trained.manifest.models[trained.manifest.champion].cross_validation.accuracy.mean
    assert ", means over the same 2 folds:" in compared
    assert f"accuracy  {ours:>12.4f}{theirs:>12.4f}   {ours - theirs:+.4f} (" in compared


def test_changed_decisions_are_counted(
    trained: Published, labelled: LabelledApplications, compared: str
) -> None:
    """In both directions, as both would decide."""
    now = _approved(BUNDLE_ROOT, load_bundle(BUNDLE_ROOT, None).manifest.version, labelled)
    then = _approved(trained.folder.parent, trained.manifest.version, labelled)
    assert compared.endswith(
        f"Of {len(now):,} applications, the candidate would approve {(then & ~now).sum()} that are"
        f" rejected now, and reject {(now & ~then).sum()} that are approved now."
    )


def test_rows_that_the_served_bundle_knows_are_said(
    labelled: LabelledApplications, compared: str
) -> None:
    """It looks better than it is where it was trained on what it is compared on."""
    known = load_bundle(BUNDLE_ROOT, None).manifest.data.sha256 == labelled.sha256
    assert f"{'All' if known else 'Some'} rows may be known to the served bundle" in compared

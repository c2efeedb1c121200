"""A better value of an input never lowers approval, by the models that are held to it."""

from collections.abc import Callable

import numpy as np
import pytest

from services.scoring.features import FEATURES, Matrix
from services.scoring.manifest import BUNDLE_ROOT, Manifest, read_current_version, read_manifest
from services.training.directions import (
    DIRECTED,
    AgainstDirection,
    check_directions,
    grid,
    moves,
    violations,
)
from services.training.evaluation import OutOfFold
from services.training.export import approvals, open_onnx, random_applications
from services.training.models import Probabilities
from tests.scoring.test_features import IMPUTATION
from tests.training.conftest import FREE, MODEL_NAMES

GRID = moves(grid(), IMPUTATION)
_RATIO = FEATURES.index("Log_Loan_to_Income")


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """The shipped bundle's manifest."""
    return read_manifest(BUNDLE_ROOT / read_current_version(BUNDLE_ROOT) / "manifest.json")


def _shipped(name: str, manifest: Manifest) -> Callable[[Matrix], Probabilities]:
    session = open_onnx((BUNDLE_ROOT / manifest.version / f"{name}.onnx").read_bytes())
    return lambda features: approvals(session, features)


@pytest.mark.parametrize("name", FREE)
def test_shipped_model_never_lowers_approval_for_a_better_value(
    name: str, manifest: Manifest
) -> None:
    """Incomes up, the amount down, a better credit history: over a grid and random applications."""
    applications = [*random_applications(5_000), *grid()]
    found = violations(_shipped(name, manifest), moves(applications, manifest.imputation))
    assert found == dict.fromkeys(DIRECTED, 0)


def test_directions_are_the_expected_ones() -> None:
    """An applicant can be told each of them; the others have none."""
    assert DIRECTED == {
        "ApplicantIncome": 1,
        "CoapplicantIncome": 1,
        "LoanAmount": -1,
        "Credit_History": 1,
    }


def test_manifest_counts_violations_and_what_directions_cost(manifest: Manifest) -> None:
    """Of every model; only the support vector machine cannot be held to them."""
    for name in MODEL_NAMES:
        directions = manifest.models[name].directions
        assert directions.held == (name in FREE)
        assert set(directions.violations) == set(DIRECTED)
        assert (directions.log_loss is None) == (directions.auc is None) == (name not in FREE)
        assert not (directions.held and any(directions.violations.values()))


def _rewards_debt(features: Matrix) -> Probabilities:
    probabilities: Probabilities = 1 / (1 + np.exp(-features[:, _RATIO].astype(float)))
    return probabilities


_NOTHING = OutOfFold(
    titles={}, approvals={}, scores={"random_forest_without_directions": {}}, folds=2
)


def test_model_that_is_held_to_directions_and_violates_one_is_refused() -> None:
    """The message names the model and the inputs."""
    with pytest.raises(
        AgainstDirection,
        match=r"random_forest lowers approval for a better value of ApplicantIncome \(\d+\),"
        r" CoapplicantIncome \(\d+\), LoanAmount \(\d+\) in 3528 applications; nothing was",
    ):
        check_directions("random_forest", _rewards_debt, GRID, _NOTHING)


def test_violations_of_a_model_that_is_not_held_are_counted() -> None:
    """About as many as there are applications whose value another one changes."""
    found = check_directions("support_vector_machine", _rewards_debt, GRID, _NOTHING)
    assert not found.held
    assert found.violations["LoanAmount"] > found.rows / 2
    assert found.violations["Credit_History"] == 0


def test_step_against_a_direction_is_seen_wherever_it_is() -> None:
    """A single cell in which more debt is better counts."""

    def one_step(features: Matrix) -> Probabilities:
        return np.where(features[:, _RATIO] > 6, 0.6, 0.5)

    assert violations(one_step, GRID)["LoanAmount"] > 0


def test_grid_covers_the_directed_inputs() -> None:
    """Its features take many values of the ratio, and all three of the credit history."""
    features = GRID.features
    assert len(np.unique(features[:, _RATIO])) > 50
    assert len(np.unique(features[:, FEATURES.index("Credit_History")])) == 3

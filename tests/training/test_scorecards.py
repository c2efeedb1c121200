"""Additive models as scorecards: they say exactly what scikit-learn says."""

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from services.scoring.features import FEATURES, Matrix, feature_matrix
from services.scoring.scorecard import Table, points, probability, score
from services.training.applications import LabelledApplications
from services.training.export import ParityError, random_applications
from services.training.scorecards import GOLDEN_ROWS, scorecards
from tests.scoring.test_features import IMPUTATION
from tests.training.conftest import MODEL_NAMES, unfitted


@pytest.fixture(scope="module")
def features(labelled: LabelledApplications) -> Matrix:
    """Features of the labelled applications."""
    return feature_matrix(labelled.applications, IMPUTATION)


@pytest.fixture(scope="module")
def pipelines(labelled: LabelledApplications, features: Matrix) -> dict[str, Pipeline]:
    """Every model, fitted."""
    return {name: unfitted(name).fit(features, labelled.approved) for name in MODEL_NAMES}


def test_additive_models_have_a_scorecard(pipelines: dict[str, Pipeline], features: Matrix) -> None:
    """To a billionth of a log-odd equal to scikit-learn, on training rows and random ones."""
    compared = np.vstack([features, feature_matrix(random_applications(2_000), IMPUTATION)])
    found = scorecards(pipelines, features, compared)
    assert set(found.models) == {"logistic_regression", "gradient_boosting"}
    for name, card in found.models.items():
        expected = pipelines[name].decision_function(compared.astype(np.float64))
        assert [score(card, row) for row in compared.tolist()] == pytest.approx(
            expected.tolist(), abs=1e-9
        )


def test_feature_that_changes_nothing_is_left_out(
    labelled: LabelledApplications, features: Matrix
) -> None:
    """Here one that no training row differs in."""
    constant = features.copy()
    constant[:, FEATURES.index("Dependents")] = 1
    models = {
        name: unfitted(name).fit(constant, labelled.approved)
        for name in ("logistic_regression", "gradient_boosting")
    }
    for card in scorecards(models, constant, constant).models.values():
        named = [each.feature for each in card.features]
        assert "Dependents" not in named
        assert named == [feature for feature in FEATURES if feature in named]


def test_references_are_means_over_training_rows(
    pipelines: dict[str, Pipeline], features: Matrix
) -> None:
    """All of them, and those that are approved at or slightly above the threshold."""
    card = scorecards(pipelines, features, features).models["gradient_boosting"]
    rows = features.tolist()
    approval = np.array([probability(score(card, row)) for row in rows])
    near = card.references["approved_near_threshold"]
    low, high = (float(word.strip(".")) for word in near.description.split()[-3::2])
    chosen = [points(card, row) for row, p in zip(rows, approval, strict=True) if low <= p <= high]
    assert low == 0.5
    assert near.rows == len(chosen) >= 30
    for feature, mean in near.points.items():
        assert mean == pytest.approx(np.mean([each[feature] for each in chosen]))
    everyone = card.references["all_applicants"]
    assert everyone.rows == len(rows)
    assert everyone.mean_score == pytest.approx(np.mean([score(card, row) for row in rows]))


def test_reference_exists_where_nobody_is_approved(features: Matrix) -> None:
    """Then it is of those who come nearest."""
    approved = np.zeros(len(features), dtype=np.int64)
    approved[::20] = 1
    model = unfitted("logistic_regression").fit(features, approved)
    [card] = scorecards({"logistic_regression": model}, features, features).models.values()
    assert max(probability(score(card, row)) for row in features.tolist()) < 0.5
    assert card.references["approved_near_threshold"].rows >= 1


def test_golden_rows_are_training_rows(pipelines: dict[str, Pipeline], features: Matrix) -> None:
    """A dozen, spread over the file."""
    golden = scorecards(pipelines, features, features).golden_rows
    assert len(golden) == GOLDEN_ROWS
    assert set(golden) <= {tuple(row) for row in features.tolist()}


def test_scorecard_that_differs_from_its_model_is_refused(
    pipelines: dict[str, Pipeline], features: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the model and the difference."""

    def distorted(card: Table, row: list[float]) -> float:
        return score(card, row) + 1e-6

    monkeypatch.setattr("services.training.scorecards.score", distorted)
    with pytest.raises(ParityError, match=r"scorecard of logistic_regression .* by up to 1.0e-06"):
        scorecards(pipelines, features, features)

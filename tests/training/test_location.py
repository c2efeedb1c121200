"""What the location changes is measured, and said by the model card."""

import numpy as np
import pytest

from services.scoring.features import FEATURES, feature_matrix
from services.scoring.manifest import Location
from services.scoring.registry import load_bundle
from services.scoring.scorecard import points
from services.training.applications import LabelledApplications
from services.training.card import model_card
from services.training.location import approved_share_by_area
from services.training.models import Variant
from services.training.train import Published
from tests.scoring.test_features import IMPUTATION
from tests.training.conftest import MODEL_NAMES, MODELS


def _location(trained: Published, name: str) -> Location:
    found = trained.manifest.models[name].location
    assert found is not None
    return found


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_model_without_the_location_answers_the_same_everywhere(
    name: str, labelled: LabelledApplications
) -> None:
    """It learns all else that the model learns."""
    features = feature_matrix(labelled.applications, IMPUTATION)
    without = Variant(MODELS[name], located=False).fit(features, labelled.approved)
    answers = without.predict_proba(features)
    moved = features.copy()
    moved[:, [name.startswith("Property_Area") for name in FEATURES]] = 1
    assert without.predict_proba(moved).tobytes() == answers.tobytes()
    assert np.ptp(answers[:, 1]) > 0


def test_scores_by_area_differ_by_the_points_of_the_area(trained: Published) -> None:
    """Of an additive model they are nothing else, whoever the applicants are."""
    bundle = load_bundle(trained.folder.parent, trained.manifest.version)
    for name, model in bundle.models.items():
        if model.scorecard is None:
            continue
        scores = _location(trained, name).scores
        by_area = {
            area: sum(
                value
                for feature, value in points(
                    model.scorecard,
                    bundle.row_of({"ApplicantIncome": 1000.0, "Property_Area": area}),
                ).items()
                if feature.startswith("Property_Area")
            )
            for area in scores
        }
        for area, value in by_area.items():
            # The exported model computes with float32.
            assert scores[area] - scores["Rural"] == pytest.approx(
                value - by_area["Rural"], abs=1e-5
            )


def test_reasons_are_counted_of_additive_models_alone(trained: Published) -> None:
    """Of each refusal in the training rows; any other model decides without reasons."""
    for name in trained.manifest.models:
        found = _location(trained, name)
        if name in ("gradient_boosting", "logistic_regression"):
            assert found.refusals
            assert found.among_reasons is not None
            assert 0 <= found.among_reasons <= found.refusals
        else:
            assert (found.refusals, found.among_reasons) == (None, None)


def test_past_decisions_are_counted_by_area(labelled: LabelledApplications) -> None:
    """By hand; an application without an area counts in none."""
    shares = approved_share_by_area(labelled.applications, labelled.approved)
    for area, share in shares.items():
        approved = [
            approved
            for application, approved in zip(
                labelled.applications, labelled.approved.tolist(), strict=True
            )
            if application["Property_Area"] == area
        ]
        assert share == pytest.approx(sum(approved) / len(approved), abs=1e-6)
    assert approved_share_by_area([{"Property_Area": None}], np.array([1])) == {}


def test_card_says_what_the_location_changes(trained: Published) -> None:
    """How often it is a reason, how far it moves the score, and what doing without costs."""
    section = model_card(trained.manifest).split("## Location")[1].split("\n## ")[0]
    for model in trained.manifest.models.values():
        found = model.location
        assert found is not None
        for cost in (found.log_loss, found.auc):
            assert f"{cost.mean:+.4f} ({cost.low:+.4f} to {cost.high:+.4f})" in section
        for area, score in found.scores.items():
            assert area in section
            assert f"{score - max(found.scores.values()):+.3f}" in section
        if found.refusals is not None:
            assert f"in {found.among_reasons} of {found.refusals}." in section

"""The scorecard of the shipped bundle, and scorecards that are refused."""

import json
from math import exp, log, nextafter
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from services.scoring.features import FEATURE_INPUTS, FEATURES, feature_row
from services.scoring.manifest import (
    BUNDLE_ROOT,
    MANIFEST_FILE,
    BundleError,
    read_current_version,
)
from services.scoring.reasons import refusal_reasons
from services.scoring.registry import Bundle, load_bundle
from services.scoring.scorecard import (
    SCORECARD_FILE,
    Scorecards,
    Table,
    points,
    probability,
    read_scorecards,
    score,
)
from services.training.export import random_applications
from services.training.publishing import checksum

_INPUTS = {name: tuple(inputs) for name, inputs in FEATURE_INPUTS.items()}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The shipped bundle."""
    return load_bundle(BUNDLE_ROOT, None)


@pytest.fixture(scope="module")
def content() -> bytes:
    """Its scorecard, as a file."""
    return (BUNDLE_ROOT / read_current_version(BUNDLE_ROOT) / SCORECARD_FILE).read_bytes()


@pytest.fixture(scope="module")
def cards(content: bytes) -> Scorecards:
    """Its scorecards."""
    return read_scorecards(content, _INPUTS)


@pytest.fixture(scope="module")
def rows(bundle: Bundle) -> list[tuple[float, ...]]:
    """Features of random applications."""
    imputation = bundle.manifest.imputation
    return [feature_row(application, imputation) for application in random_applications(2_000)]


@pytest.mark.parametrize("name", ["gradient_boosting", "logistic_regression"])
def test_scorecard_answers_as_the_exported_model(
    name: str, bundle: Bundle, rows: list[tuple[float, ...]]
) -> None:
    """For 2,000 random applications, to a millionth; serving answers by the scorecard."""
    model = bundle.models[name]
    assert model.scorecard is not None
    for row in rows:
        served = model.approval_probability(row)
        assert served == probability(score(model.scorecard, row))
        assert served == pytest.approx(model.exported_probability(row), abs=1e-6)


def test_value_at_a_cut_scores_as_the_exported_model(bundle: Bundle, cards: Scorecards) -> None:
    """So do the nearest numbers on either side, before they are rounded to float32 and after."""
    model = bundle.models["gradient_boosting"]
    table = cards.models["gradient_boosting"]
    assert isinstance(table, Table)
    typical = list(cards.golden_rows[0])
    for feature in table.features:
        for cut in feature.cuts:
            for value in (cut, nextafter(cut, -np.inf), nextafter(cut, np.inf)):
                row = list(typical)
                row[FEATURES.index(feature.feature)] = value
                rounded = tuple(np.array(row, np.float32).tolist())
                assert score(table, row) == score(table, rounded)
                exported = model.exported_probability(rounded)
                assert probability(score(table, row)) == pytest.approx(exported, abs=1e-6)


def test_score_is_the_base_and_the_points_of_each_feature(
    cards: Scorecards, rows: list[tuple[float, ...]]
) -> None:
    """By the file's own words: the points at the number of cuts below the value."""
    table = cards.models["gradient_boosting"]
    assert isinstance(table, Table)
    for row in rows[:100]:
        by_hand = {
            each.feature: each.points[
                sum(row[FEATURES.index(each.feature)] > cut for cut in each.cuts)
            ]
            for each in table.features
        }
        assert points(table, row) == by_hand
        assert score(table, row) == pytest.approx(table.base + sum(by_hand.values()))


def test_scorecard_is_read_with_the_features_of_its_bundle(
    content: bytes, cards: Scorecards, rows: list[tuple[float, ...]]
) -> None:
    """A bundle of fewer features, in another order, gives each application the same reasons."""
    table = cards.models["gradient_boosting"]
    kept = [each.feature for each in table.features][::-1]
    assert len(kept) < len(FEATURES)
    document = json.loads(content)
    del document["models"]["logistic_regression"]
    document["golden_rows"] = []
    other = read_scorecards(
        json.dumps(document).encode(), {name: _INPUTS[name] for name in kept}
    ).models["gradient_boosting"]
    for row in rows[:100]:
        turned = [row[FEATURES.index(name)] for name in kept]
        assert points(other, turned) == points(table, row)
        for missing in (frozenset[str](), frozenset({"LoanAmount", "Credit_History"})):
            expected = refusal_reasons(table, row, missing, 0.2)
            assert refusal_reasons(other, turned, missing, 0.2) == expected


def test_points_keep_the_directions(cards: Scorecards) -> None:
    """More debt for the income never gains points, a better history never loses any."""
    table = cards.models["gradient_boosting"]
    assert isinstance(table, Table)
    by_feature = {each.feature: list(each.points) for each in table.features}
    assert by_feature["Log_Loan_to_Income"] == sorted(
        by_feature["Log_Loan_to_Income"], reverse=True
    )
    assert by_feature["Credit_History"] == sorted(by_feature["Credit_History"])


def test_references_add_up(cards: Scorecards) -> None:
    """Their mean points and the base are the mean score; enough rows stand near the threshold."""
    for card in cards.models.values():
        named = {each.feature for each in card.features}
        assert set(card.references) == {"approved_near_threshold", "all_applicants"}
        for name, reference in card.references.items():
            assert reference.id.startswith(f"{name}@")
            assert set(reference.points) == named
            total = card.base + sum(reference.points.values())
            assert reference.mean_score == pytest.approx(total, abs=1e-12)
        near = card.references["approved_near_threshold"]
        assert 30 <= near.rows < card.references["all_applicants"].rows


def test_probability_is_the_logistic_function_without_overflow() -> None:
    """However far a score is from 0."""
    assert probability(log(3)) == pytest.approx(0.75)
    assert probability(-2) == pytest.approx(exp(-2) / (1 + exp(-2)))
    assert (probability(-1e6), probability(1e6)) == (0, 1)


def _altered(content: bytes, path: list[Any], value: object) -> bytes:
    document = json.loads(content)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(document).encode()


_FEATURE = ["models", "gradient_boosting", "features", 0]


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (["schema_version"], 2, "Input should be 1"),
        ([*_FEATURE, "cuts"], [2.0, 1.0], "do not ascend"),
        ([*_FEATURE, "points"], [0.5], "one more points than cuts"),
        ([*_FEATURE, "feature"], "Gender", "no features: Gender"),
        (["golden_rows"], [[1.0]], "as many values as there are features"),
    ],
)
def test_scorecard_that_cannot_be_used_is_refused(
    path: list[Any], value: object, fault: str, content: bytes
) -> None:
    """In one sentence that says what is wrong."""
    with pytest.raises(BundleError, match=rf"^scorecard\.json is not valid: .*{fault}"):
        read_scorecards(_altered(content, path, value), _INPUTS)


def test_scorecard_that_differs_from_its_model_is_not_served(
    tmp_path: Path, content: bytes
) -> None:
    """Loading compares the two on the golden rows, whatever the checksums say."""
    version = read_current_version(BUNDLE_ROOT)
    copytree(BUNDLE_ROOT / version, tmp_path / version)
    altered = _altered(content, ["models", "gradient_boosting", "base"], 0.0)
    (tmp_path / version / SCORECARD_FILE).write_bytes(altered)
    manifest = tmp_path / version / MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace(checksum(content), checksum(altered)))
    with pytest.raises(BundleError, match=r"The scorecard of gradient_boosting in .* differs"):
        load_bundle(tmp_path, version)

"""A model that is held to the directions keeps them when it is loaded, or is not served."""

import numpy as np
import pytest

from services.scoring.directions import check_directions
from services.scoring.features import DIRECTIONS, FEATURES
from services.scoring.manifest import BUNDLE_ROOT, BundleError
from services.scoring.registry import load_bundle

_ROWS = np.zeros((2, len(FEATURES)))


@pytest.mark.parametrize(
    ("feature", "inputs"),
    [
        ("Log_Loan_to_Income", "LoanAmount, ApplicantIncome, CoapplicantIncome"),
        ("Credit_History", "Credit_History"),
    ],
)
def test_a_model_that_lowers_approval_for_a_better_value_is_refused_by_the_inputs_name(
    feature: str, inputs: str
) -> None:
    position = FEATURES.index(feature)
    good = DIRECTIONS[position]
    check_directions("it", lambda rows: good * rows[:, position].astype(float), _ROWS)
    # A dip somewhere on the way is enough.
    with pytest.raises(BundleError, match=rf"^it lowers .* value of {inputs}, although"):
        check_directions("it", lambda rows: np.abs(rows[:, position].astype(float) - 0.5), _ROWS)


def test_the_model_that_is_not_held_to_directions_is_against_them_and_served() -> None:
    bundle = load_bundle(BUNDLE_ROOT, None)
    free = "support_vector_machine"
    assert not bundle.manifest.models[free].directions.held
    with pytest.raises(BundleError, match="LoanAmount"):
        check_directions(free, bundle.models[free].approval_probabilities, _ROWS)

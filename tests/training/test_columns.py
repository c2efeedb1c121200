"""Applications as columns have the features of the same applications as rows."""

import numpy as np

from services.scoring.features import feature_matrix
from services.training.applications import LabelledApplications
from services.training.columns import columns_of, matrix_of, of_rows, with_value
from services.training.export import random_applications
from tests.scoring.test_features import IMPUTATION


def test_features_are_those_of_the_rows_bit_for_bit(labelled: LabelledApplications) -> None:
    """Of all rows, of some in another order, and with one input changed."""
    applications = [*labelled.applications, *random_applications(1_000)]
    columns = columns_of(applications)
    some = np.array([3, 1, 700])
    for changed, expected in (
        (columns, applications),
        (of_rows(columns, some), [applications[row] for row in some]),
        (
            with_value(columns, "Dependents", "3+"),
            [{**each, "Dependents": "3+"} for each in applications],
        ),
        (
            with_value(columns, "Credit_History", None),
            [{**each, "Credit_History": None} for each in applications],
        ),
    ):
        found = matrix_of(changed, IMPUTATION)
        assert found.tobytes() == feature_matrix(expected, IMPUTATION).tobytes()

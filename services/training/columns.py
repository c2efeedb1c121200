"""Applications as columns: the features of many, or of others by one input, without a row loop."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from services.scoring.features import Columns, Imputation, Matrix, code, feature_columns
from shared.contract.application import SCORED

Rows = npt.NDArray[np.int64]


def columns_of(applications: Sequence[Mapping[str, Any]]) -> Columns:
    """Return the scored inputs of parsed ``applications``."""
    return {
        field: np.array(
            [
                np.nan if (value := application.get(field)) is None else code(field, value)
                for application in applications
            ]
        )
        for field in SCORED
    }


def of_rows(columns: Columns, rows: Rows) -> Columns:
    """Return the columns of these rows alone, in their order."""
    return {field: column[rows] for field, column in columns.items()}


def with_value(columns: Columns, field: str, value: float | str | None) -> Columns:
    """Return the columns with the same value of one input in every row."""
    found = np.nan if value is None else code(field, value)
    return {**columns, field: np.full_like(columns[field], found)}


def matrix_of(columns: Columns, imputation: Imputation) -> Matrix:
    """Return what ``feature_matrix`` returns for the same applications."""
    return feature_columns(columns, imputation).astype(np.float32)

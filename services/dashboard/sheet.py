"""The decisions of a batch as a CSV file, which can be uploaded as a batch again."""

import csv
import io
from collections.abc import Iterable
from typing import Final

from loan_predictor_client import Decision
from shared.contract.application import FIELDS
from shared.contract.spreadsheet import neutralised
from shared.files.applications import Row

_INPUTS: Final = tuple(field.name for field in FIELDS)
_HEADER: Final = (
    *("line", *_INPUTS, "prediction", "confidence", "probability_approved"),
    *("probability_rejected", "model", "bundle", "prediction_id", "imputed", "warnings", "fault"),
)


def write(results: Iterable[tuple[Row, Decision | None, str | None]]) -> bytes:
    """A line for each row: the application as it was read, and the decision or the fault."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_HEADER)
    writer.writerows(map(neutralised, _cells(*result)) for result in results)
    return text.getvalue().encode()


def _cells(row: Row, decision: Decision | None, fault: str | None) -> tuple[object, ...]:
    application = (row.line, *(row.cells.get(name) for name in _INPUTS))
    if decision is None:
        return (*application, *[None] * 9, fault or "not decided")
    return (
        *application,
        decision.prediction,
        decision.confidence,
        decision.probability.approved,
        decision.probability.rejected,
        decision.model_info.name,
        decision.model_info.version,
        str(decision.prediction_id),
        "; ".join(decision.imputed),
        "; ".join(decision.warnings),
        None,
    )

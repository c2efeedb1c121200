"""The file of decisions."""

import csv
import io
from datetime import UTC, datetime
from uuid import UUID

from loan_predictor_client.models import Application, Decision, ModelInfo, Probability
from services.dashboard import sheet
from shared.contract.application import EXAMPLE
from shared.files.applications import Row, read_applications


def test_decisions_are_written_line_by_line() -> None:
    """The numbers in full; a cell that a spreadsheet would run is made harmless."""
    decision = Decision(
        prediction_id=UUID("0198c6d0-9711-7b92-8f26-d0c4a1b35e68"),
        prediction="Approved",
        prediction_code=1,
        confidence=0.8342710137367249,
        probability=Probability(approved=0.8342710137367249, rejected=0.1657289862632751),
        model_info=ModelInfo(name="random_forest", version="b-00000000", accuracy=0.8),
        input_data=Application.model_validate(EXAMPLE),
        imputed=["LoanAmount", "Credit_History"],
        warnings=["one", "two"],
        timestamp=datetime(2026, 11, 24, tzinfo=UTC),
    )
    written = sheet.write(
        [
            (Row(2, {"Loan_ID": "=1+1", "ApplicantIncome": "4583"}), decision, None),
            (Row(3, {"Loan_ID": "B"}), None, "+LoanAmount must be a number"),
            (Row(4, {}), None, None),
        ]
    )
    first, second, third = csv.DictReader(io.StringIO(written.decode()))
    assert first["Loan_ID"] == "'=1+1"
    assert first["ApplicantIncome"] == "4583"
    assert float(first["confidence"]) == decision.confidence
    assert first["imputed"] == "LoanAmount; Credit_History"
    assert first["fault"] == ""
    assert second["fault"] == "'+LoanAmount must be a number"
    assert second["prediction"] == ""
    assert third["fault"] == "not decided"
    again = read_applications(written)
    assert again.unknown == ()
    assert [row.cells["Loan_ID"] for row in again.rows] == ["=1+1", "B", None]

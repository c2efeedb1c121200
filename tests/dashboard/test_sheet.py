"""Files of applications: what is read, what is refused, what is written."""

import csv
import io
from datetime import UTC, datetime
from uuid import UUID

import pytest

from loan_predictor_client.models import Application, Decision, ModelInfo, Probability
from services.dashboard import sheet
from services.dashboard.sheet import Row, SheetError
from shared.contract.application import EXAMPLE


def _bytes(*lines: str) -> bytes:
    return "\r\n".join(lines).encode()


def test_rows_are_named_by_the_line_they_begin_on() -> None:
    """Past empty lines, and cells with line breaks; an empty cell is missing."""
    content = _bytes(
        "\ufeffApplicantIncome , Loan_ID,Loan_Status",
        '5000," A\n1",Y',
        "",
        " ,B,N",
        "1,2",
        "7000,C,Y",
    )
    assert sheet.read(content) == [
        Row(2, {"ApplicantIncome": "5000", "Loan_ID": "A\n1"}),
        Row(5, {"ApplicantIncome": None, "Loan_ID": "B"}),
        Row(6, {}, "has 2 cells, the header has 3"),
        Row(7, {"ApplicantIncome": "7000", "Loan_ID": "C"}),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "must name the columns; ApplicantIncome is not among them"),
        (b"Loan_ID\n1", "ApplicantIncome is not among them"),
        (b"ApplicantIncome,Propety_Area\n1,2", "'Propety_Area'; the nearest one is Property_Area"),
        (b"ApplicantIncome,ApplicantIncome\n1,2", "there twice"),
        (b"ApplicantIncome\n", "no rows"),
        (b'ApplicantIncome\n"5', r"no CSV: .* \(line 2\)"),
        (b"ApplicantIncome\n5\n\xff", r"not UTF-8 text \(line 3\)"),
        (b"ApplicantIncome\n" + b"1\n" * (sheet.MAX_ROWS + 1), "more than 10,000 rows"),
        (b"x" * (sheet.MAX_BYTES + 1), "more than 5 MB"),
    ],
)
def test_file_that_cannot_be_used_is_one_sentence(content: bytes, reason: str) -> None:
    """Which says where, or what the nearest name is."""
    with pytest.raises(SheetError, match=reason):
        sheet.read(content)


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
            (Row(2, {"Loan_ID": "=1+1"}), decision, None),
            (Row(3, {"Loan_ID": "B"}), None, "+LoanAmount must be a number"),
            (Row(4, {}), None, None),
        ]
    )
    first, second, third = csv.DictReader(io.StringIO(written.decode()))
    assert first["Loan_ID"] == "'=1+1"
    assert float(first["confidence"]) == decision.confidence
    assert first["imputed"] == "LoanAmount; Credit_History"
    assert first["fault"] == ""
    assert second["fault"] == "'+LoanAmount must be a number"
    assert second["prediction"] == ""
    assert third["fault"] == "not decided"

"""What training accepts, and how it reports the rest."""

import csv
import hashlib
import io
import random
from pathlib import Path

import openpyxl
import pytest

from services.training.applications import COLUMNS, DataError, read_applications
from shared.contract.application import FIELDS
from tests.applications import random_application, write_csv, write_labelled_csv

FILLER = 60


def filler_rows() -> list[dict[str, object]]:
    """Valid labelled applications, both labels often enough."""
    rng = random.Random(3)  # noqa: S311 - test data, not a secret
    return [
        {**random_application(rng), "Loan_ID": f"F{number}", "Loan_Status": "YN"[number % 2]}
        for number in range(FILLER)
    ]


def _csv(rows: list[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def faults_of(path: Path) -> list[str]:
    """The faults that reading ``path`` names."""
    with pytest.raises(DataError) as caught:
        read_applications(path)
    return caught.value.faults


def test_every_value_is_understood(tmp_path: Path) -> None:
    """Numbers become float, categories keep their type, an empty cell is None."""
    row: dict[str, object] = {
        "Loan_ID": "LP1",
        "Gender": None,
        "Married": "No",
        "Dependents": "3+",
        "Education": "Not Graduate",
        "Self_Employed": "Yes",
        "ApplicantIncome": 4583,
        "CoapplicantIncome": "1508.5",
        "LoanAmount": None,
        "Loan_Amount_Term": "360",
        "Credit_History": "1.0",
        "Property_Area": "Rural",
        "Loan_Status": "Y",
    }
    path = tmp_path / "loans.csv"
    write_csv(path, [*filler_rows(), row])
    data = read_applications(path)
    assert data.applications[-1] == {
        **dict.fromkeys(field.name for field in FIELDS),
        "Loan_ID": "LP1",
        "Gender": None,
        "Married": "No",
        "Dependents": "3+",
        "Education": "Not Graduate",
        "Self_Employed": "Yes",
        "ApplicantIncome": 4583.0,
        "CoapplicantIncome": 1508.5,
        "LoanAmount": None,
        "Loan_Amount_Term": 360.0,
        "Credit_History": 1,
        "Property_Area": "Rural",
    }
    assert data.approved.tolist() == [1, 0] * (FILLER // 2) + [1]
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_columns_that_no_model_needs_may_be_missing(tmp_path: Path) -> None:
    """A lender may hold neither Gender nor Married, and number its applications otherwise."""
    unneeded = ("Loan_ID", "Gender", "Married")
    path = tmp_path / "loans.csv"
    write_csv(
        path,
        [
            {name: value for name, value in row.items() if name not in unneeded}
            for row in filler_rows()
        ],
    )
    data = read_applications(path)
    assert len(data.applications) == FILLER
    for application in data.applications:
        assert [application[name] for name in unneeded] == [None] * len(unneeded)


def test_bom_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    """A CSV as spreadsheets save it is the same data."""
    plain, saved = tmp_path / "plain.csv", tmp_path / "saved.csv"
    write_csv(plain, filler_rows())
    saved.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    assert read_applications(saved).applications == read_applications(plain).applications


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("ApplicantIncome", "", "is required, not ''"),
        ("ApplicantIncome", "-1", "must be at least 0, not '-1'"),
        ("ApplicantIncome", "100001", "must be at most 100000, not '100001'"),
        ("ApplicantIncome", "NaN", "is required, not ''"),
        ("ApplicantIncome", "inf", "must be a finite number, not 'inf'"),
        ("CoapplicantIncome", "-1", "must be at least 0, not '-1'"),
        ("LoanAmount", "lots", "must be a number in plain decimals, such as 1508.5, not 'lots'"),
        ("Loan_Amount_Term", "601", "must be at most 600, not '601'"),
        ("Credit_History", "2", "must be one of: 0, 1, not '2'"),
        ("Dependents", "-1", "must be one of: 0, 1, 2, 3+, not '-1'"),
        ("Education", "gradual", "must be one of: Graduate, Not Graduate, not 'gradual'"),
        ("Loan_Status", "", "must be Y or N, 1 or 0, Approved or Rejected, not ''"),
    ],
)
def test_bad_value_is_named_by_line(tmp_path: Path, field: str, text: str, message: str) -> None:
    """The fault names the line, the field, what is allowed and what is there."""
    rows = filler_rows()
    rows[10][field] = text
    path = tmp_path / "loans.csv"
    write_csv(path, rows)
    assert faults_of(path) == [f"line 12: {field} {message}"]


def test_income_of_the_co_applicant_alone_is_trained_on(tmp_path: Path) -> None:
    """What serving accepts is trained on, and a row without any income is named."""
    rows = filler_rows()
    rows[3] |= {"ApplicantIncome": 0, "CoapplicantIncome": 1760}
    path = tmp_path / "loans.csv"
    write_csv(path, rows)
    assert read_applications(path).applications[3]["ApplicantIncome"] == 0
    rows[3] |= {"CoapplicantIncome": None}
    write_csv(path, rows)
    [fault] = faults_of(path)
    assert fault.startswith("line 5: ApplicantIncome must be greater than 0 where")


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    """Faults of one row and of several rows are reported together, in the order of the file."""
    rows = filler_rows()
    rows[0] |= {"ApplicantIncome": "x", "Gender": "X", "Loan_Status": "maybe"}
    rows[5]["Loan_ID"] = "F4"
    path = tmp_path / "loans.csv"
    write_csv(path, rows)
    with path.open("a", encoding="utf-8") as file:
        file.write("too,short\n")
    assert [fault.split(":")[0] for fault in faults_of(path)] == [
        *("line 2",) * 3,
        "line 7",
        f"line {FILLER + 2}",
    ]
    assert faults_of(path)[-2:] == [
        "line 7: 'F4' is on line 6 too",
        f"line {FILLER + 2}: has 2 cells, the header has {len(rows[0])}",
    ]


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    """Missing, unknown and duplicate columns are all reported before any row is read."""
    path = tmp_path / "loans.csv"
    header = [*COLUMNS, "Gender", "Zodiac"]
    header.remove("LoanAmount")
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, ["?"]])
    [fault] = faults_of(path)
    assert "Two columns are both Gender." in fault
    assert "does not name LoanAmount" in fault
    assert "'Zodiac' is not a known column." in fault
    write_csv(path, [row | {"Zodiac": 40, "Branch": 1} for row in filler_rows()])
    assert faults_of(path) == ["unknown column(s): Zodiac, Branch"]


def test_empty_file_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "loans.csv"
    path.touch()
    assert faults_of(path) == ["The file is empty."]


def test_fault_that_many_rows_share_is_one_sentence(tmp_path: Path) -> None:
    """A column in another form is one fault, not hundreds."""
    path = tmp_path / "loans.csv"
    rows = [row | {"Loan_Status": "paid"} for row in filler_rows()]
    rows[3]["LoanAmount"] = "much"
    write_csv(path, rows)
    allowed = "Loan_Status must be Y or N, 1 or 0, Approved or Rejected"
    assert faults_of(path) == [
        f"{FILLER} rows from line 2 on: {allowed}, not 'paid'",
        "line 5: LoanAmount must be a number in plain decimals, such as 1508.5, not 'much'",
    ]


@pytest.mark.parametrize(
    ("target", "approved", "rejected"),
    [("Loan_Status", "1", "0"), ("outcome", "Approved", "rejected"), ("PAID", "1.0", "0.0")],
)
def test_outcome_may_have_other_values_and_another_column(
    tmp_path: Path, target: str, approved: str, rejected: str
) -> None:
    plain, other = tmp_path / "plain.csv", tmp_path / "other.csv"
    write_csv(plain, filler_rows())
    outcomes = {"Y": approved, "N": rejected}
    write_labelled = [
        {key: value for key, value in row.items() if key != "Loan_Status"}
        | {target: outcomes[str(row["Loan_Status"])]}
        for row in filler_rows()
    ]
    other.write_text(_csv(write_labelled), encoding="utf-8")
    found = read_applications(other, target=target.lower())
    assert found.approved.tolist() == read_applications(plain).approved.tolist()


def test_files_of_other_tools_are_the_same_data(tmp_path: Path) -> None:
    """An index, `.0`, a band as a number, lower case, blank last lines, no Loan_ID; also Excel."""
    plain, other, sheet = tmp_path / "plain.csv", tmp_path / "other.csv", tmp_path / "loans.xlsx"
    rows = [row | {"Loan_ID": None} for row in filler_rows()]
    write_csv(plain, rows)
    expected = read_applications(plain)
    written = [
        {"Unnamed: 0": number}
        | {
            key.lower(): str(value).lower() if isinstance(value, str) else value
            for key, value in row.items()
            if key != "Loan_ID"
        }
        | {
            "dependents": {"3+": "3"}.get(str(row["Dependents"]), row["Dependents"]),
            "credit_history": row["Credit_History"] and f"{row['Credit_History']}.0",
        }
        for number, row in enumerate(rows)
    ]
    other.write_text(_csv(written) + "\n\n", encoding="utf-8")
    assert read_applications(other).applications == expected.applications
    book = openpyxl.Workbook()
    book.worksheets[0].append(list(written[0]))
    for values in written:
        book.worksheets[0].append(list(values.values()))
    book.save(sheet)
    assert read_applications(sheet).applications == expected.applications


def test_too_few_rows_and_empty_columns_are_faults(tmp_path: Path) -> None:
    """Data that cannot be cross-validated or imputed is refused before training."""
    rows = [row | {"LoanAmount": None} for row in filler_rows()[:10]]
    path = tmp_path / "loans.csv"
    write_csv(path, rows)
    assert faults_of(path) == [
        "5 rows are approved by Loan_Status; at least 20 are needed",
        "5 rows are rejected by Loan_Status; at least 20 are needed",
        "LoanAmount is missing in every row",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "it cannot be read: No such file or directory"),
        (b"\xff\xfe\x00", "The file is broken UTF-16 text: truncated data."),
        (
            ",".join(COLUMNS).encode() + b'\n"open',
            "The file is not a CSV file: unexpected end of data (line 2).",
        ),
    ],
)
def test_unreadable_file_is_one_fault(tmp_path: Path, content: bytes | None, message: str) -> None:
    """A missing file, another encoding and a broken quotation are reported in one sentence."""
    path = tmp_path / "loans.csv"
    if content is not None:
        path.write_bytes(content)
    assert faults_of(path) == [message]


def test_one_seed_generates_one_file(tmp_path: Path) -> None:
    """The generated applications are valid, and every call returns the same ones."""
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    write_labelled_csv(first, rows=200, seed=1)
    write_labelled_csv(second, rows=200, seed=1)
    assert first.read_bytes() == second.read_bytes()
    assert len(read_applications(first).applications) == 200

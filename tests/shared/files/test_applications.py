"""Files as pandas, Excel and other lenders' tools write them."""

import io
import os
import random
import re
import zipfile
from contextlib import suppress
from pathlib import Path

import openpyxl
import pyarrow as pa
import pytest
from pyarrow import parquet

from services.history.tables import predictions
from shared.contract.application import EXAMPLE, FIELDS
from shared.contract.parsing import read_application
from shared.files.applications import (
    ApplicationFile,
    Row,
    UnknownColumn,
    misspelt,
    read_applications,
)
from shared.files.tables import FileError

# The public data set's columns: files have these, whatever fields are added.
_HEADER = (
    "Loan_ID,Gender,Married,Dependents,Education,Self_Employed,ApplicantIncome,CoapplicantIncome,"
    "LoanAmount,Loan_Amount_Term,Credit_History,Property_Area"
)
_NAMES = _HEADER.split(",")
_ROW = "T1,Male,Yes,1.0,Graduate,No,4583,1508.0,128.0,360.0,1.0,Rural"
_EXPECTED = (
    dict.fromkeys(field.name for field in FIELDS)
    | {name: EXAMPLE[name] for name in _NAMES}
    | {"Loan_ID": "T1"}
)


def _file(*lines: str, encoding: str = "utf-8", ending: str = "\n") -> ApplicationFile:
    return read_applications(ending.join(lines).encode(encoding))


def _said(file: ApplicationFile) -> str:
    return " ".join(file.remarks)


def test_whole_numbers_with_a_point_are_whole_numbers() -> None:
    """An integer column with gaps, as pandas writes it."""
    [row] = _file(_HEADER, _ROW).rows
    assert read_application(row.cells) == _EXPECTED
    whole = dict(row.cells)
    for written, read in (("2.0", "2"), ("3.0", "3+"), ("4", "3+")):
        assert read_application(whole | {"Dependents": written})["Dependents"] == read
    assert read_application(whole | {"Credit_History": "0.0"})["Credit_History"] == 0


@pytest.mark.parametrize(
    "titles",
    [
        ("loan id", "ApplicantINCOME", "self-employed"),
        (" LOAN_ID ", "applicant income", "Self Employed"),
        ("loanid", "applicant_income", "SELFEMPLOYED"),
    ],
)
def test_case_spaces_and_dashes_of_a_column_do_not_matter(titles: tuple[str, ...]) -> None:
    file = _file(",".join(titles), "A,5000,No")
    assert file.columns == ("Loan_ID", "ApplicantIncome", "Self_Employed")
    assert file.rows == (
        Row(2, {"Loan_ID": "A", "ApplicantIncome": "5000", "Self_Employed": "No"}),
    )


@pytest.mark.parametrize("title", ["", "Unnamed: 0", "index", "level_0", "__index_level_0__"])
def test_column_of_row_numbers_is_left_out_and_that_is_said(title: str) -> None:
    file = _file(f"{title},Loan_ID,ApplicantIncome", "0,A,5000", "1,B,6000")
    assert [row.cells["Loan_ID"] for row in file.rows] == ["A", "B"]
    assert file.unknown == ()
    assert (title or "column 1") in _said(file)


def test_empty_column_at_the_end_is_left_out() -> None:
    """In the header, and in rows that end with one separator more than the header."""
    assert "column 2" in _said(_file("ApplicantIncome,", "5000,"))
    assert [row.fault for row in _file("ApplicantIncome", "5000,,", "6000").rows] == [None, None]


def test_all_unknown_columns_are_named_and_near_ones_only_have_a_nearest() -> None:
    """The rest of the file is read."""
    file = _file("ApplicantIncome,Foo,Propety_Area,Zodiac,applicant_incom", "5000,1,Urban,40,1")
    assert file.unknown == (
        UnknownColumn("Foo", None),
        UnknownColumn("Propety_Area", "Property_Area"),
        UnknownColumn("Zodiac", None),
        UnknownColumn("applicant_incom", "ApplicantIncome"),
    )
    assert file.rows == (Row(2, {"ApplicantIncome": "5000"}),)
    assert misspelt(file.unknown, file.columns) == (
        "'Propety_Area' is not a known column; perhaps it should be Property_Area."
    )


def test_scored_inputs_without_a_column_are_named() -> None:
    """An identifier is not missed."""
    header = (
        _HEADER.replace("Loan_ID,", "").replace("LoanAmount,", "").replace(",Property_Area", "")
    )
    file = _file(header, "Male,Yes,1,Graduate,No,4583,1508,360,1")
    said = "Missing in every row because it has no column: LoanAmount, Property_Area."
    assert said in file.remarks
    assert "no column" not in _said(_file(_HEADER, _ROW))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("stated", [True, False])
def test_separator_is_found_or_stated(separator: str, stated: bool) -> None:
    """Also before and between blank lines, of any line ending; lines are counted in the file."""
    lines = [f"sep={separator}"] if stated else []
    lines += ["", f"Loan_ID{separator}ApplicantIncome", "", f"A{separator}5000", separator, "", ""]
    for ending in ("\n", "\r\n", "\r"):
        file = _file(*lines, ending=ending)
        assert file.rows == (Row(4 + stated, {"Loan_ID": "A", "ApplicantIncome": "5000"}),)
        assert ("separated by" in _said(file)) == (separator != ",")


def test_comma_inside_a_quoted_cell_does_not_separate() -> None:
    """Nor do decimal commas in a file that is separated by semicolons."""
    file = _file('Loan_ID,"ApplicantIncome"', '"A,1","5000"')
    assert file.rows[0].cells == {"Loan_ID": "A,1", "ApplicantIncome": "5000"}
    file = _file("ApplicantIncome;LoanAmount", "5000,5;128,5")
    assert file.rows[0].cells == {"ApplicantIncome": "5000,5", "LoanAmount": "128,5"}


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("cp1252", "Windows-1252"),
    ],
)
def test_encoding_is_recognised(encoding: str, said: str) -> None:
    """What is not UTF-8 is said."""
    file = _file(_HEADER, _ROW.replace("T1", "Zoë€7"), encoding=encoding)
    assert file.rows[0].cells["Loan_ID"] == "Zoë€7"
    assert said in _said(file)
    assert bool(said) == bool(file.remarks)


def test_exponent_of_a_number_is_read() -> None:
    """As pandas and Excel write very large and small numbers."""
    [row] = _file("ApplicantIncome,LoanAmount,Loan_ID", "4.5E+03,1e-2,1E5").rows
    assert row.cells == {"ApplicantIncome": "4500", "LoanAmount": "0.01", "Loan_ID": "1E5"}


def test_markers_of_missing_values_count_as_missing_and_are_counted() -> None:
    """In files; an identifier may not be one of them either."""
    markers = ["NA", "N/A", "NaN", "NULL", "None", "-", "?", "na", "null", ""]
    file = _file("ApplicantIncome,LoanAmount", *(f"5000,{marker}" for marker in markers))
    assert {row.cells["LoanAmount"] for row in file.rows} == {None}
    assert file.missing == dict.fromkeys(markers[:-1], 1)


def test_own_exports_are_own_input() -> None:
    """The history's and a batch's: inputs by the same names, everything else ignored."""
    internal = ("derived_id", "erased_at")
    exported = [name for name in predictions.columns.keys() if name not in internal]  # noqa: SIM118
    header = ",".join((*exported, "line", "prediction_id", "bundle", "fault"))
    file = _file(header, ",".join("5000" for _ in header.split(",")))
    assert set(file.columns) == {field.name for field in FIELDS}
    assert file.unknown == ()
    assert "not part of an application" in _said(file)
    file = _file("Loan_ID,ApplicantIncome", "'=1+1,5000", "'A,5000")
    assert [row.cells["Loan_ID"] for row in file.rows] == ["=1+1", "'A"]


def test_repeated_identifiers_are_named_with_their_lines() -> None:
    file = _file("Loan_ID,ApplicantIncome", "A,1", "B,1", ",1", "A,2", ",1", "A,3")
    assert file.repeated == {"A": (2, 5, 7)}


def test_rows_are_named_by_the_line_they_begin_on() -> None:
    """A row that has other cells than the header is a faulty row, and no more."""
    file = _file(
        "\ufeffApplicantIncome , Loan_ID,Loan_Status", '5000," A\n1",Y', "", " ,B,N", "1,2", "7,C,Y"
    )
    assert file.rows == (
        Row(2, {"ApplicantIncome": "5000", "Loan_ID": "A\n1"}),
        Row(5, {"ApplicantIncome": None, "Loan_ID": "B"}),
        Row(6, {}, "has 2 cells, the header has 3"),
        Row(7, {"ApplicantIncome": "7", "Loan_ID": "C"}),
    )


def test_other_columns_are_read_where_they_are_wanted() -> None:
    """As training wants the outcome."""
    content = b"loan status,ApplicantIncome\nY,5000"
    assert read_applications(content, also=["Loan_Status"]).rows[0].cells == {
        "Loan_Status": "Y",
        "ApplicantIncome": "5000",
    }
    with pytest.raises(FileError, match="does not name Loan_Status"):
        read_applications(b"ApplicantIncome\n5000", also=["Loan_Status"])


def _xlsx(*rows: list[object], sheets: int = 1) -> bytes:
    book = openpyxl.Workbook()
    for _ in range(1, sheets):
        book.create_sheet()
    for row in rows:
        book.worksheets[0].append(row)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def test_excel_is_read_like_csv() -> None:
    """Numbers as they are meant, empty cells at any end, lines as the program counts them."""
    typed = ["T1", "Male", "Yes", 1, "Graduate", "No", 4583, 1508.0, 128, 360.0, 1, "Rural"]
    short = [*typed[:6], 5000.5]
    file = read_applications(_xlsx([], [*_NAMES, None], [], typed, short, sheets=2))
    assert [row.line for row in file.rows] == [4, 5]
    assert read_application(file.rows[0].cells) == _EXPECTED
    assert file.rows[1].fault is None
    assert file.rows[1].cells["ApplicantIncome"] == "5000.5"
    assert file.rows[1].cells["Property_Area"] is None
    assert "the first is read" in _said(file)


def _with_result(content: bytes, result: str) -> bytes:
    """The Excel file with that result, a text, in its cell B4, as Excel stores it."""
    stored = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(stored, "w") as written:
        for member in archive.infolist():
            cell = f'<c r="B4" t="str"><f>A3</f>{result}</c>'.encode()
            text = re.sub(rb'<c r="B4".*?</c>', cell, archive.read(member))
            written.writestr(member.filename, text)
    return stored.getvalue()


def test_excel_formula_is_read_by_its_stored_result() -> None:
    """One without a result is no missing value: the file is refused, wherever the formula is."""
    rows: list[list[object]] = [["ApplicantIncome", "LoanAmount"], [], [5000, 128], [6000, "=A3"]]
    content = _xlsx(*rows)
    with pytest.raises(FileError, match="Cell B4 is a formula without a stored result; open"):
        read_applications(content)
    for stored, read in (("<v>100</v>", "100"), ("<v></v>", None)):
        file = read_applications(_with_result(content, stored))
        assert file.rows[1].cells["LoanAmount"] == read


def test_typed_booleans_are_read_as_in_json() -> None:
    """In Excel and Parquet; the text TRUE is a spelling that is chosen."""
    columns: dict[str, list[object]] = {
        "ApplicantIncome": [5000, 6000, 7000],
        "credit history": [True, False, None],
        "Married": [False, True, None],
    }
    content = io.BytesIO()
    parquet.write_table(pa.table(columns), content)
    for file in (_xlsx([*columns], *map(list, zip(*columns.values(), strict=True))), content):
        read = read_applications(file if isinstance(file, bytes) else file.getvalue())
        assert [row.cells["Credit_History"] for row in read.rows] == ["1", "0", None]
        assert [row.cells["Married"] for row in read.rows] == ["No", "Yes", None]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(3)])
def test_bytes_in_parquet_are_utf_8_text(kind: pa.DataType) -> None:
    """Other bytes are no text of any encoding that is known."""

    def file(cell: bytes) -> bytes:
        content = io.BytesIO()
        loan_ids = pa.array([cell, None], kind)
        parquet.write_table(pa.table({"Loan_ID": loan_ids, "ApplicantIncome": [1, 2]}), content)
        return content.getvalue()

    read = read_applications(file("Aé".encode()))
    assert [row.cells["Loan_ID"] for row in read.rows] == ["Aé", None]
    with pytest.raises(FileError, match="Loan_ID has bytes that are not UTF-8 text: 0x41ff41"):
        read_applications(file(b"A\xffA"))


def test_parquet_is_read_like_csv() -> None:
    """Numbers, gaps and pandas' index."""
    columns: dict[str, list[object]] = {
        "__index_level_0__": [0, 1],
        "Loan_ID": ["A", None],
        "ApplicantIncome": [5000.0, 6000.25],
        "Credit_History": [1.0, float("nan")],
        "Dependents": [3, 0],
    }
    content = io.BytesIO()
    parquet.write_table(pa.table(columns), content)
    file = read_applications(content.getvalue())
    assert file.unknown == ()
    assert [dict(row.cells) for row in file.rows] == [
        {"Loan_ID": "A", "ApplicantIncome": "5000", "Credit_History": "1", "Dependents": "3"},
        {"Loan_ID": None, "ApplicantIncome": "6000.25", "Credit_History": None, "Dependents": "0"},
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"Loan_ID\n1", "does not name ApplicantIncome. It begins with: Loan_ID"),
        (
            b"ApplicantIncom\n1",
            "'ApplicantIncom' is not a known column; perhaps it should be ApplicantIncome",
        ),
        (b'sep="\nApplicantIncome\n1', "does not name ApplicantIncome"),
        (b"5000,128\n6000,100", "does not name ApplicantIncome. It begins with: 5000, 128.$"),
        (b"ApplicantIncome,applicant income\n1,2", "are both ApplicantIncome"),
        (b"ApplicantIncome\n", "no rows"),
        (b'ApplicantIncome\n"5', r"not a CSV file: .* \(line 2\)"),
        (b"ApplicantIncome\n5\n\x81", r"not UTF-8 text \(line 3 has the byte 0x81\)"),
        (b"ApplicantIncome\n5\n\xa7\xbf", r"not UTF-8 text \(line 3 has the byte 0xa7\)"),
        (b"ApplicantIncome\n5\n\0", "not a text, Excel or Parquet file"),
        (b"ApplicantIncome\n1\n1\n1", "more than 2 rows"),
        (b"\xd0\xcf\x11\xe0\xa1", "old Excel file"),
        (b"PK\x03\x04 other.txt", "archive"),
        (b"PK\x03\x04 xl/workbook.xml", "Excel file is damaged or incomplete.$"),
        (b"PAR1 and no more", "Parquet file cannot be read"),
        (b"\x1f\x8b", "compressed"),
        (b'[{"ApplicantIncome": 1}]', "JSON"),
    ],
)
def test_file_that_cannot_be_used_is_one_sentence(content: bytes, reason: str) -> None:
    """Which says what was found and what to do."""
    with pytest.raises(FileError, match=reason):
        read_applications(content, max_rows=2)


def test_damaged_file_is_read_or_one_sentence() -> None:
    """Whatever the libraries make of it: an error of any kind is the file's."""
    packed = io.BytesIO()
    parquet.write_table(pa.table({"Loan_ID": ["A", "B"], "ApplicantIncome": [5000, 6000]}), packed)
    impossible = io.BytesIO()
    parquet.write_table(pa.table({"ApplicantIncome": pa.array([2**30], pa.date32())}), impossible)
    with pytest.raises(FileError, match="Parquet file cannot be read"):
        read_applications(impossible.getvalue())
    rng = random.Random(14)  # noqa: S311 - test data, not a secret
    for whole in (
        packed.getvalue(),
        _xlsx(["ApplicantIncome"], [5000]),
        b"ApplicantIncome\n5000\n",
    ):
        for _ in range(200):
            damaged = bytearray(whole)
            for _ in range(rng.choice((1, 2, 30))):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            with suppress(FileError):
                read_applications(bytes(damaged))


def test_file_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is unpacked."""
    monkeypatch.setattr("shared.files.tables.MAX_UNPACKED_BYTES", 100)
    content = io.BytesIO()
    parquet.write_table(pa.table({"ApplicantIncome": list(range(1000))}), content)
    for packed in (_xlsx(["ApplicantIncome"], [5000]), content.getvalue()):
        with pytest.raises(FileError, match="unpacks to more"):
            read_applications(packed)


@pytest.mark.skipif("LOAN_DATA_DIR" not in os.environ, reason="LOAN_DATA_DIR names no public data")
def test_public_files_are_read_without_a_remark_but_for_the_outcome() -> None:
    for name, rows in (("loans.csv", 614), ("loans_unlabelled.csv", 367)):
        file = read_applications((Path(os.environ["LOAN_DATA_DIR"]) / name).read_bytes())
        assert len(file.rows) == rows
        assert (file.unknown, file.missing, file.repeated) == ((), {}, {})
        assert all(row.fault is None for row in file.rows)

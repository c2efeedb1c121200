"""Spellings that are offered, and read only where they are chosen."""

import pytest

from shared.files.applications import ApplicationFile, read_applications
from shared.files.spellings import applied, descriptions, offered


def _file(title: str, *cells: str) -> ApplicationFile:
    lines = [f"{title};ApplicantIncome", *(f'"{cell}";5000' for cell in cells)]
    return read_applications("\n".join(lines).encode())


def _offered(file: ApplicationFile) -> dict[str, str]:
    return {spelling.key: spelling.question for spelling in offered(file)}


def _read(file: ApplicationFile, title: str) -> list[str | None]:
    return [row.cells[title] for row in applied(file, _offered(file).keys()).rows]


def test_every_spelling_says_what_it_reads() -> None:
    said = descriptions()
    assert said["groups"].startswith("reads 4,583")
    assert said["Married values"].startswith("reads true or t or 1 as Yes, false or f or 0 as No,")
    assert said["LoanAmount unit"] == "reads LoanAmount as full amounts, not thousands"


@pytest.mark.parametrize(
    ("title", "cell", "read"),
    [
        ("LoanAmount", "4,583", "4583"),
        ("LoanAmount", "1,234,567.5", "1234.5675"),
        ("LoanAmount", "4 583", "4583"),
        ("LoanAmount", "4'583", "4583"),
        ("LoanAmount", "$128", "128"),
        ("LoanAmount", "128 USD", "128"),
        ("LoanAmount", "Rs. 1,280", "1280"),
        ("LoanAmount", "€ 128,5", "128.5"),
        ("LoanAmount", "128000", "128"),
        ("LoanAmount", "$128,000", "128"),
        ("Loan_Amount_Term", "30", "360"),
        ("Loan_Amount_Term", "2.5", "30"),
        ("Married", "Y", "Yes"),
        ("Married", "n", "No"),
        ("Married", "TRUE", "Yes"),
        ("Self_Employed", "FALSE", "No"),
        ("Self_Employed", "1", "Yes"),
        ("Gender", "M", "Male"),
        ("Gender", "f", "Female"),
        ("Property_Area", "Semi-Urban", "Semiurban"),
        ("Property_Area", "semi urban", "Semiurban"),
        ("Education", "Graduated", "Graduate"),
        ("Education", "not-graduate", "Not Graduate"),
        ("Dependents", "4+", "3+"),
        ("Dependents", "3 or more", "3+"),
        ("Credit_History", "TRUE", "1"),
        ("Credit_History", "N", "0"),
    ],
)
def test_spelling_is_offered_and_read_only_if_chosen(title: str, cell: str, read: str) -> None:
    file = _file(title, cell)
    assert _offered(file)
    assert [row.cells[title] for row in applied(file, ()).rows] == [cell]
    assert _read(file, title) == [read]


@pytest.mark.parametrize(
    ("title", "cell"),
    [
        ("LoanAmount", "128"),
        ("LoanAmount", "12.8"),
        ("LoanAmount", "much"),
        ("LoanAmount", "1,28,3"),
        ("Loan_Amount_Term", "360"),
        ("Married", "yes"),
        ("Married", "Perhaps"),
        ("Gender", "X"),
        ("Dependents", "3"),
        ("Dependents", "2+"),
        ("Education", "Undergraduate"),
        ("Credit_History", "1.0"),
        ("Loan_ID", "Y"),
    ],
)
def test_what_is_read_or_means_nothing_raises_no_question(title: str, cell: str) -> None:
    assert _offered(_file(title, cell)) == {}


def test_questions_say_how_many_cells_and_what_they_would_be_read_as() -> None:
    file = _file("Married", *["Y"] * 3, "N", "Yes")
    assert list(_offered(file).values()) == ["Married: read Y as Yes (3 cells), N as No (1 cell)?"]
    file = _file("LoanAmount", "$4,583", "4,583", "128")
    assert list(_offered(file).values()) == [
        "$4,583 has a currency sign: read it as 4583? (1 cell)",
        "$4,583 groups thousands: read it as 4583? (2 cells)",
    ]


def test_unit_is_recognised_by_its_range() -> None:
    """Where nearly all values lie in the range of another; a few that do are large loans."""
    file = _file("LoanAmount", *["128000"] * 366, "9000")
    [question] = _offered(file).values()
    assert question == (
        "Loan amount: 366 of 367 are over 10,000. Are these full amounts rather than thousands?"
    )
    assert _offered(_file("LoanAmount", *["128"] * 9, "20000")) == {}
    assert _offered(_file("Loan_Amount_Term", *["360"] * 9, "12")) == {}
    [question] = _offered(_file("Loan_Amount_Term", "30", "15")).values()
    assert question == "Time to repay: 2 of 2 are at most 40. Are these years rather than months?"


def test_many_spellings_of_one_column_are_one_bounded_question() -> None:
    file = _file("Property_Area", *(f"Urban{'!' * n}" for n in range(1, 30)))
    [question] = _offered(file).values()
    assert "and 19 more" in question

"""Files are read by columns, and each row is what a row by itself is read as."""

import random
from collections.abc import Mapping, Sequence

import pytest

from services.batch.checking import Checked, Faulty, check
from shared.contract.errors import InvalidInput
from shared.contract.parsing import read_application
from shared.files.applications import meaning
from shared.files.spellings import spelt
from tests.applications import random_application
from tests.batch.files import as_csv

_ODD_CELLS = (
    *("", " ", "na", "NULL", "-", "0", "-0", "0.0", "1", " 1 ", "+1", "-1", "1e2", "1E-3", "1_000"),
    *("007", "99", "100", "99.5", "0.1", "600", "601", "100000", "100000.5", "nan", "inf", "true"),
    *("FALSE", "yes", "No", "graduate", "3+", "3", "urban ", "'=1", "x" * 64, "x" * 65, "é", "a b"),
)


@pytest.mark.parametrize("spellings", [(), ("groups", "Credit_History values")])
def test_rows_read_by_columns_are_those_read_one_by_one(spellings: tuple[str, ...]) -> None:
    """In every chunk, with all faults, whatever stands in a cell."""
    rng = random.Random(5)  # noqa: S311 - test data, not a secret
    rows = [random_application(rng) for _ in range(2_500)]
    for row in rows:
        if rng.random() < 0.5:
            row[rng.choice(list(row))] = rng.choice(_ODD_CELLS)
    content = as_csv(rows)
    chunks = list(check(content, "csv", max_rows=len(rows), spellings=spellings).chunks)
    found: dict[int, Checked | Faulty] = {}
    for chunk in chunks:
        assert chunk.checked
        assert chunk.faulty
        found |= {row.line: row for row in chunk.checked} | {row.line: row for row in chunk.faulty}
    assert found == {line: _read(line, row, spellings) for line, row in enumerate(rows, start=2)}


def test_remarks_count_missing_values_and_repeated_identifiers() -> None:
    """Each cell and row once, over all chunks, in NDJSON too."""
    rows = "".join(f"A{row},5000,NA\n" for row in range(1_500))
    file = check(
        f"Loan_ID,ApplicantIncome,LoanAmount\n{rows}A7,0,#N/A\n,1,\n,1,\nA8,2\n".encode(),
        "csv",
        max_rows=2_000,
    )
    assert [len(chunk.faulty) for chunk in file.chunks] == [0, 2]
    assert file.remarks[1:] == [
        "NA counts as a missing value, in 1,500 cells.",
        "#N/A counts as a missing value, in 1 cell.",
        "1 row repeats the Loan_ID of an earlier row.",
    ]
    file = check(b'{"Loan_ID": "A", "ApplicantIncome": 1}\n' * 3, "ndjson", max_rows=3)
    assert len(list(file.chunks)) == 1
    assert file.remarks == ["2 rows repeat the Loan_ID of an earlier row."]


def test_remarks_advise_a_notation_of_a_faulty_cell_but_no_other_unit() -> None:
    """A unit is that of a whole column: chosen for one cell, it would falsify the others."""
    content = b'ApplicantIncome,LoanAmount\n"4,583",128\n5000,128000\n'
    file = check(content, "csv", max_rows=2)
    assert [len(chunk.faulty) for chunk in file.chunks] == [2]
    [advice] = (remark for remark in file.remarks if "would read" in remark)
    assert advice.startswith("The spelling 'groups' would read faulty cells such as '4,583'")


def _read(line: int, row: Mapping[str, object], spellings: Sequence[str]) -> Checked | Faulty:
    cells = {
        name: spelt(spellings, name, cell)
        for name, value in row.items()
        if (cell := meaning(name, "" if value is None else str(value))) is not None
    }
    try:
        return Checked(line, read_application(cells))
    except InvalidInput as error:
        return Faulty(line, cells.get("Loan_ID"), error.faults)

"""Cells that a spreadsheet program might run."""

import pytest

from shared.contract.spreadsheet import neutralised, original


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "A", "", "'A", "''"])
def test_neutralised_cell_starts_no_formula_and_can_be_read_again(cell: str) -> None:
    written = neutralised(cell)
    assert isinstance(written, str)
    assert not written.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert original(written) == cell

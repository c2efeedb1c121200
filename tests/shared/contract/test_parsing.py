"""How an application in JSON is read: lenient in form, strict in meaning."""

import json

import pytest

from shared.contract.application import EXAMPLE, FIELDS, MAX_AMOUNT
from shared.contract.errors import InvalidInput
from shared.contract.parsing import parse_application


def _read(**changes: object) -> dict[str, object]:
    return parse_application(json.dumps(EXAMPLE | changes).encode())


def _faults(**changes: object) -> dict[str, str]:
    with pytest.raises(InvalidInput) as refused:
        _read(**changes)
    return {fault.field: fault.message for fault in refused.value.faults}


@pytest.mark.parametrize("field", [field.name for field in FIELDS if not field.required])
@pytest.mark.parametrize("blank", ["", "   "])
def test_blank_string_is_missing_in_every_optional_field(field: str, blank: str) -> None:
    """A loop over the cells of a CSV sends one for each empty cell."""
    assert _read(**{field: blank}) == _read(**{field: None})


def test_blank_string_is_no_income() -> None:
    """What is required cannot be left blank."""
    assert set(_faults(ApplicantIncome="")) == {"ApplicantIncome"}


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("Credit_History", "1.0", 1),
        ("Credit_History", " 0.00 ", 0),
        ("Dependents", "0.0", "0"),
        ("Dependents", "2.0", "2"),
        ("Dependents", "3.0", "3+"),
        ("Dependents", "05", "3+"),
    ],
)
def test_whole_number_may_be_written_with_a_zero_fraction(
    field: str, text: str, value: object
) -> None:
    """pandas writes a column of whole numbers with gaps this way."""
    assert _read(**{field: text})[field] == value


@pytest.mark.parametrize("text", ["1.5", "2.01", "100.0", "1.", ".0", "1e0"])
def test_number_that_is_not_whole_is_no_category(text: str) -> None:
    """A fraction is not rounded, and what is no plain decimal is not guessed at."""
    faults = _faults(Credit_History=text, Dependents=text)
    assert set(faults) == {"Credit_History", "Dependents"}


def test_amount_beyond_the_maximum_is_a_fault() -> None:
    """No loan is that high, and a model would make anything of it."""
    assert _read(LoanAmount=MAX_AMOUNT)["LoanAmount"] == MAX_AMOUNT
    for amount in (MAX_AMOUNT + 1, 1e308, f"{MAX_AMOUNT}.5"):
        assert _faults(LoanAmount=amount) == {"LoanAmount": "must be at most 100000"}

"""How an application in JSON is read: lenient in form, strict in meaning."""

import json

import pytest

from shared.contract.application import EXAMPLE, FIELDS, MAX_AMOUNT
from shared.contract.errors import InvalidInput
from shared.contract.parsing import parse_application, read_application


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


def test_minus_zero_is_zero() -> None:
    """JSON knows -0.0; it is equal to 0 and would be recorded with its sign."""
    application = parse_application(b'{"ApplicantIncome": 5, "CoapplicantIncome": -0.0}')
    assert repr(application["CoapplicantIncome"]) == "0.0"


def test_faults_are_counted_in_a_sentence() -> None:
    """In the singular, too."""
    for changes, detail in (
        ({"Gender": "x"}, "1 fault in: Gender. Correct it and send the request again."),
        (
            {"Gender": "x", "Married": "x"},
            "2 faults in: Gender, Married. Correct them and send the request again.",
        ),
    ):
        with pytest.raises(InvalidInput) as refused:
            _read(**changes)
        assert refused.value.detail == detail


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


@pytest.mark.parametrize("co_income", [1760, "24000", 5e-324])
@pytest.mark.parametrize("income", [0, "0", "0.00", -0.0])
def test_income_of_the_co_applicant_alone_is_enough(income: object, co_income: object) -> None:
    """Two of the public set's 367 applications have no other."""
    assert _read(ApplicantIncome=income, CoapplicantIncome=co_income)["ApplicantIncome"] == 0


@pytest.mark.parametrize("co_income", [0, "0", None, ""])
def test_no_income_at_all_is_a_fault_beside_the_others(co_income: object) -> None:
    """It is named at once with every other fault, in JSON and in a row of a file."""
    message = "must be greater than 0 where CoapplicantIncome is 0 or missing"
    incomes = {"ApplicantIncome": 0, "CoapplicantIncome": co_income}
    assert _faults(**incomes) == {"ApplicantIncome": message}
    assert list(_faults(**incomes, Gender="X")) == ["ApplicantIncome", "Gender"]
    with pytest.raises(InvalidInput) as refused:
        read_application(EXAMPLE | incomes | {"Gender": "X"})
    assert [fault.field for fault in refused.value.faults] == ["ApplicantIncome", "Gender"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("applicant_income", "ApplicantIncome"),
        ("Credit_Histroy", "Credit_History"),
        ("loan id", "Loan_ID"),
        ("self-employed", "Self_Employed"),
        ("Foo", None),
        ("Zodiac", None),
        ("Loan_Status", None),
        ("", None),
    ],
)
def test_nearest_field_is_named_only_when_it_is_near(name: str, meant: str | None) -> None:
    """Any other would mislead whoever sent an unknown field."""
    near = "" if meant is None else f"; the nearest one is {meant}"
    assert list(_faults(**{name: 1}).values()) == [f"is not a known field{near}"]


def test_only_some_unknown_fields_are_compared_with_the_known_ones() -> None:
    """Fifty of them would cost the time of hundreds of decisions."""
    faults = _faults(**{f"Property_Area{number}": 1 for number in range(50)})
    assert len(faults) == 50
    compared = [message for message in faults.values() if "nearest" in message]
    assert 1 <= len(compared) <= 10


def test_amount_beyond_the_maximum_is_a_fault() -> None:
    """No loan is that high, and a model would make anything of it."""
    assert _read(LoanAmount=MAX_AMOUNT)["LoanAmount"] == MAX_AMOUNT
    for amount in (MAX_AMOUNT + 1, 1e308, f"{MAX_AMOUNT}.5"):
        assert _faults(LoanAmount=amount) == {"LoanAmount": "must be at most 100000"}


def test_repeated_member_is_a_fault_beside_the_others() -> None:
    """All at once, whatever else is wrong; an unknown field is named as such."""
    for body, fields in (
        ('{"Gender": "Male", "Gender": "x", "LoanAmount": -1}', {"Gender", "LoanAmount"}),
        ('{"Married": "Yes", "Married": "Yes", "X": 1, "X": 2}', {"Married", "X"}),
    ):
        with pytest.raises(InvalidInput) as refused:
            parse_application(body.encode())
        faults = refused.value.faults
        assert {fault.field for fault in faults} >= fields | {"ApplicantIncome"}
        assert sum("more than once" in fault.message for fault in faults) == 1
    for body in (
        '[["Gender", 1], ["Gender", 2]]',
        '{"Gender": 1, "Gender": 2',
        '{"Gender": ' * 9000,
    ):
        with pytest.raises(InvalidInput) as refused:
            parse_application(body.encode())
        assert [fault.field for fault in refused.value.faults] == ["body"]

"""Why an application was refused: the reasons in an answer, and the codes that name them.

A reason's code is all that is stored of its wording. So a code is never removed, reworded or given
another meaning: a new wording is a new code, and raises ``REASON_CODES_VERSION``.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field, StrictBool

from shared.contract.application import Wire

REASON_CODES_VERSION: Final = 1

MAX_REASONS: Final = 4
"""Most reasons of one refusal: more are not likely to help the applicant (Official Interpretations
of Regulation B, comment 9(b)(2)-1)."""

ReferenceId = Literal["approved_near_threshold", "all_applicants"]
"""Whose average an application is compared with; comment 9(b)(2)-5 accepts either."""
DEFAULT_REFERENCE: Final[ReferenceId] = "approved_near_threshold"


class ReasonCode(NamedTuple):
    """What a code means."""

    inputs: tuple[str, ...]
    """The inputs that it is about."""
    text: str
    """For the applicant, in the manner of form C-1 of Regulation B (12 CFR 1002, appendix C)."""
    stated: bool = True
    """Whether it is about the inputs' values; otherwise it is about their absence."""


INCOMES: Final = ("ApplicantIncome", "CoapplicantIncome")
"""The inputs that count as one: what matters is their sum."""

REASON_CODES: Final[Mapping[str, ReasonCode]] = {
    "A1": ReasonCode(("LoanAmount",), "Amount of credit requested is too high"),
    "B1": ReasonCode(
        (*INCOMES, "LoanAmount"), "Income is insufficient for the amount of credit requested"
    ),
    "C1": ReasonCode(("Credit_History",), "Credit history does not meet the guidelines"),
    "C2": ReasonCode(("Credit_History",), "Credit history was not stated", stated=False),
    "D1": ReasonCode(("Dependents",), "Number of dependents"),
    "D2": ReasonCode(("Dependents",), "Number of dependents was not stated", stated=False),
    "E1": ReasonCode(("Education",), "Level of education"),
    "E2": ReasonCode(("Education",), "Level of education was not stated", stated=False),
    "I1": ReasonCode(INCOMES, "Income is insufficient"),
    "P1": ReasonCode(("Property_Area",), "Location of the property"),
    "P2": ReasonCode(("Property_Area",), "Location of the property was not stated", stated=False),
    "S1": ReasonCode(("Self_Employed",), "Type of employment"),
    "S2": ReasonCode(("Self_Employed",), "Type of employment was not stated", stated=False),
    "T1": ReasonCode(("Loan_Amount_Term",), "Time to repay"),
    "T2": ReasonCode(("Loan_Amount_Term",), "Time to repay was not stated", stated=False),
}


class Reason(Wire):
    """One main reason of a refusal."""

    code: Annotated[str, Field(pattern="^[A-Z][0-9]{1,3}$")]
    inputs: list[str] = Field(description="The inputs that it is about.")
    text: str = Field(description="What the code means, worded for the applicant.")
    contribution: float = Field(
        description="By how much these inputs lower the log-odds of approval below the reference's;"
        " to the thousandth."
    )

    @classmethod
    def of(cls, code: str, contribution: float) -> "Reason":
        """The reason of this code; one that only a newer writer knows has no more than its code."""
        known = REASON_CODES.get(code, ReasonCode((), f"Reason {code}"))
        return cls(code=code, inputs=list(known.inputs), text=known.text, contribution=contribution)


class ReasonsBasis(Wire):
    """What reasons are measured against, and where their codes are defined."""

    reference: Annotated[str, Field(pattern="^[a-z][a-z_]{0,63}$")] = Field(
        description="Whose average the application is compared with."
    )
    codes_version: int = Field(ge=1, le=2**15 - 1, description="Version of the list of codes.")
    later: StrictBool = Field(
        default=False,
        description="Whether they were found after the decision was answered, and recorded then.",
    )

"""The letter that notifies an applicant of a refusal, as 12 CFR 1002.9 asks of lenders in the USA.

A draft: what only the lender knows stays a blank, and the lender answers for the wording.
"""

import textwrap
from collections.abc import Sequence
from typing import Final

from loan_predictor_client.models import Reason, Record
from shared.pictures.formats import day

_BLANK: Final = "_" * 32
_WIDTH: Final = 76
_NOTICE: Final = (
    "The Federal Equal Credit Opportunity Act prohibits creditors from discriminating against"
    " credit applicants on the basis of race, color, religion, national origin, sex, marital"
    " status, age (provided the applicant has the capacity to enter into a binding contract);"
    " because all or part of the applicant's income derives from any public assistance program; or"
    " because the applicant has in good faith exercised any right under the Consumer Credit"
    " Protection Act. The Federal agency that administers compliance with this law concerning this"
    " creditor is"
)
"""Word for word as 12 CFR 1002.9(b)(1) gives it; the name and address of the agency follow."""

Block = str | tuple[str, ...]
"""A paragraph, which may have several lines, or the items of a list."""


def letter(record: Record, reasons: Sequence[Reason]) -> list[Block]:
    """The letter for a refused application; without ``reasons`` they are blanks, too."""
    applied = record.input_data
    amount = "" if applied.LoanAmount is None else f" of {_amount(applied.LoanAmount)}"
    return [
        f"{_BLANK}\n{_BLANK}\n{_BLANK}\n(creditor: name, address and telephone number)",
        f"{_BLANK}\n{_BLANK}\n(applicant: name and address)",
        f"Date: {_BLANK}",
        f"Notice of action taken on application {applied.Loan_ID or _BLANK}",
        (
            f"Thank you for your application for a loan{amount}. It was considered on"
            f" {day(record.timestamp)}, and we are unable to approve it. The main reasons are:"
        ),
        tuple(reason.text for reason in reasons) or (_BLANK, _BLANK),
        f"Notice: {_NOTICE}",
        f"{_BLANK}\n{_BLANK}\n(agency: name and address, see appendix A of 12 CFR 1002)",
        f"Sincerely,\n\n{_BLANK}",
    ]


def as_text(blocks: Sequence[Block]) -> str:
    """The letter as plain text, in lines that fit a page."""
    return "\n\n".join(map(_text, blocks)) + "\n"


def _text(block: Block) -> str:
    if isinstance(block, str):
        return "\n".join(textwrap.fill(line, _WIDTH) for line in block.split("\n"))
    return "\n".join(textwrap.fill(f"- {item}", _WIDTH, subsequent_indent="  ") for item in block)


def _amount(thousands: float) -> str:
    return f"{thousands * 1000:,.0f}"

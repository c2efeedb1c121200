"""The letter that notifies an applicant of a refusal, as 12 CFR 1002.9 asks of lenders in the USA.

A draft: what only the lender knows stays a blank, and the lender answers for the wording.
"""

import textwrap
from collections.abc import Sequence
from typing import Final

from loan_predictor_client.models import Reason, Record
from services.dashboard.formatting import day

_BLANK: Final = "_" * 32
_WIDTH: Final = 76
_RIGHTS: Final = (
    "Your rights: the federal Equal Credit Opportunity Act (15 U.S.C. 1691 and following) forbids"
    " creditors to discriminate against applicants because of race, color, religion, national"
    " origin, sex, marital status or age, provided that the applicant is able to enter into a"
    " binding contract; because some or all of an applicant's income comes from a public assistance"
    " program; or because an applicant has exercised, in good faith, a right under the Consumer"
    " Credit Protection Act. The federal agency that supervises this creditor's compliance with"
    " this law is:"
)

Block = str | tuple[str, ...]
"""A paragraph, which may have several lines, or the items of a list."""


def letter(record: Record, reasons: Sequence[Reason]) -> list[Block]:
    """The letter for a refused application; without ``reasons`` they are blanks, too."""
    applied = record.input_data
    amount = "" if applied.LoanAmount is None else f" for {_amount(applied.LoanAmount)}"
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
        _RIGHTS,
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

"""The reasons of a refusal in one short text: their codes and contributions, no sentences.

``1n C1-2104 B1-512``: codes of version 1, against the reference n; then each code with its
contribution in thousandths. ``1t+``: against the reference t, found after the decision.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from shared.contract.reasons import Reason, ReasonsBasis

_INITIALS: Final = {"approved_near_threshold": "n", "all_applicants": "a", "typical_applicant": "t"}
"""Written for a reference; any other is written out."""
_REFERENCES: Final = {initial: reference for reference, initial in _INITIALS.items()}
_BASIS: Final = re.compile(r"(\d+)([a-z_]+)(\+?)")
_REASON: Final = re.compile(r"(\w+)([+-]\d+)")
_LATER: Final = "+"
_THOUSAND: Final = 1000


def pack(decision: Mapping[str, Any]) -> str | None:
    """The text that stands for the reasons and their basis in a decision; None without reasons."""
    reasons, basis = decision["reasons"], decision["reasons_basis"]
    if not reasons or basis is None:
        return None
    reference, later = basis["reference"], _LATER if basis["later"] else ""
    codes = (
        f"{reason['code']}{round(reason['contribution'] * _THOUSAND):+d}" for reason in reasons
    )
    begins = f"{basis['codes_version']}{_INITIALS.get(reference, reference)}{later}"
    return " ".join((begins, *codes))


def unpack(packed: str | None) -> tuple[list[Reason] | None, ReasonsBasis | None]:
    """The reasons and the basis that ``packed`` stands for, worded by their codes."""
    if packed is None:
        return None, None
    basis, reasons = packed.split(" ", 1)
    [(version, initial, later)] = _BASIS.findall(basis)
    return (
        [
            Reason.of(code, int(contribution) / _THOUSAND)
            for code, contribution in _REASON.findall(reasons)
        ],
        ReasonsBasis(
            reference=_REFERENCES.get(initial, initial),
            codes_version=version,
            later=later == _LATER,
        ),
    )


def codes(packed: str) -> list[str]:
    """The codes in ``packed``, the main reason first."""
    return [code for code, _ in _REASON.findall(packed)]

"""What the pages say of decisions, as people read it; every number is the API's, only shortened."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from loan_predictor_client import Prediction
from loan_predictor_client.models import Bucket, Fault, ReasonsBasis

NOT_GIVEN: Final = "not given"
_REFERENCES: Final = {
    "approved_near_threshold": "the approved applicants nearest to the passing score",
    "all_applicants": "the average of all applicants",
    "typical_applicant": "a typical applicant",
}
_LABELS: Final = {
    "since": "Decided since",
    "until": "Decided before",
    "min_confidence": "Confidence from",
    "max_confidence": "Confidence up to",
    "arm": "Scored by",
    "threshold": "Approved from",
    "refer": "Referred from",
    "low": "Referred from",
    "high": "Referred to below",
    "decided_by": "Of the decisions of",
    "prediction_id": "The number of the decision",
}
"""How the pages label what the API names so."""
_LABELLED: Final = re.compile(rf"\b({'|'.join(_LABELS)})\b(=?)")
_OF_SEVERAL: Final = frozenset({"body", "query", "refer"})
"""What a fault of several fields is of."""
_MOST_LISTED: Final = 10


def amount(value: float | None, unit: str = "") -> str:
    """A quantity with its unit; decimals only where there are some."""
    if value is None:
        return NOT_GIVEN
    text = f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{text} {unit}".rstrip()


def exact(value: str | float) -> str:
    """A value as it was recorded, in full."""
    return value if isinstance(value, str) else f"{value:,}".removesuffix(".0")


def points(log_odds: float) -> str:
    """Points of a score, with their sign."""
    return f"{log_odds:+.2f}".replace("-", "\u2212")


def reference_text(reference: str) -> str:
    """Whose average an application is compared with, in words; an unknown name stays."""
    return _REFERENCES.get(reference, reference)


def when_found(basis: ReasonsBasis) -> str:
    """Whether reasons were part of the answer."""
    if basis.later:
        return "Found after the decision was answered, and recorded with it then."
    return "Recorded with the decision."


def tone(prediction: Prediction) -> str:
    """The colour of a decision: yes or no."""
    return "yes" if prediction == "Approved" else "no"


def fault_text(fault: Fault) -> str:
    """A fault as a sentence that names fields by their labels, and begins with the faulty one."""
    if fault.field in _OF_SEVERAL:
        text = _LABELLED.sub(
            lambda name: f"\u201c{_LABELS[name[1]]}\u201d{name[2] and ' '}", fault.message
        )
        if text != fault.message:
            return text[:1].upper() + text[1:]
    name = fault.field.partition(".")[0]
    return f"{_LABELS.get(name, fault.field)} {fault.message}"


def in_use(buckets: Sequence[Bucket]) -> Sequence[Bucket]:
    """The buckets from the first to the last that has any decision."""
    used = [i for i, bucket in enumerate(buckets) if bucket.predictions]
    return buckets[used[0] : used[-1] + 1] if used else ()


def with_lines(groups: Mapping[str, Sequence[int]]) -> list[str]:
    """Each text with the lines it holds for, the most frequent first."""
    texts = []
    for text, lines in sorted(groups.items(), key=lambda group: -len(group[1]))[:_MOST_LISTED]:
        shown = ", ".join(map(str, sorted(lines)[:_MOST_LISTED]))
        more = f" and {len(lines) - _MOST_LISTED:,} more" if len(lines) > _MOST_LISTED else ""
        rows = f"{len(lines):,} rows, lines" if len(lines) > 1 else "1 row, line"
        texts.append(f"{text} ({rows} {shown}{more})")
    if len(groups) > _MOST_LISTED:
        texts.append(f"and {len(groups) - _MOST_LISTED:,} more")
    return texts

"""What schemathesis cannot know of the two documents by itself; it loads this module.

OpenAPI cannot say how a cursor or a line of an event is made, only that each has a format of its
own. Here stand strategies of both, so that its checks hold for these, too: what fits the document
is accepted.
"""

import hashlib
import json
import re
from contextlib import suppress
from datetime import datetime
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, HookContext, SerializationContext

from services.history.schemas import encode_cursor
from services.inference.idempotency import HEADER_DOC
from shared.contract.outcomes import OUTCOME_KINDS
from shared.web.direct import CSV, NDJSON, ZIP
from tests.history.events import body_of, random_events

_event_lines = st.builds(random_events, st.integers(1, 3), seed=st.integers()).map(
    lambda events: b"\n".join(map(body_of, events)).decode()
)

schemathesis.openapi.format("cursor", st.uuids().map(encode_cursor))
schemathesis.openapi.format("event-lines", _event_lines)

_reports = st.fixed_dictionaries(
    {
        "prediction_id": st.uuids().map(str),
        "outcome": st.sampled_from(OUTCOME_KINDS),
        "observed_at": st.dates().map(str),
    }
)
_outcome_lines = st.lists(_reports, min_size=1).map(lambda all_: "\n".join(map(json.dumps, all_)))
_outcome_table = st.lists(_reports, min_size=1).map(
    lambda all_: "\n".join(",".join(line) for line in [list(all_[0]), *(r.values() for r in all_)])
)
schemathesis.openapi.format("outcome-lines", _outcome_lines)
schemathesis.openapi.format("outcome-table", _outcome_table)


@schemathesis.hook
def before_call(_: HookContext, case: Case[Any], __: dict[str, Any]) -> None:
    """Mend what no schema can say: a range's bounds are in order, a key is for one body alone."""
    for given in (case.query, case.body):
        if isinstance(given, dict):
            _order_bounds(given)
    key = (case.headers or {}).get(HEADER_DOC["name"])
    if isinstance(key, str) and re.fullmatch(HEADER_DOC["schema"]["pattern"], key):
        of_this_body = hashlib.sha256(repr((key, case.body)).encode(errors="surrogatepass"))
        case.headers[HEADER_DOC["name"]] = of_this_body.hexdigest()


def _order_bounds(given: dict[str, Any]) -> None:
    for lower, upper in (("since", "until"), ("min_confidence", "max_confidence")):
        bounds = [given.get(lower), given.get(upper)]
        with suppress(TypeError, ValueError):
            if isinstance(bounds[0], str) and lower == "since":
                bounds.sort(key=_moment)
            else:
                bounds.sort(key=lambda bound: float(str(bound)))
            given |= dict(zip((lower, upper), bounds, strict=True))
            if lower == "since" and bounds[0] == bounds[1]:
                # A range of no time at all is refused.
                del given[upper]
    if "compare" in given and not given.get("since"):
        del given["compare"]


def _moment(bound: Any) -> datetime:
    # A month such as 2026-01 has no day.
    text = str(bound)
    return datetime.fromisoformat(f"{text}-01" if re.fullmatch(r"\d{4}-\d\d", text) else text)


@schemathesis.serializer(NDJSON.name, CSV.name, ZIP.name)
def as_it_is(_: SerializationContext, value: Any) -> bytes:
    """Bytes and lines as they are; whatever else is tried goes as its text."""
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")

"""What schemathesis cannot know of the documents by itself; it loads this module.

OpenAPI cannot say how a cursor, a line of an event or a file of applications is made, only that
each has a format of its own. Here stand strategies of them, so that its checks hold for these, too:
what fits the document is accepted.
"""

import hashlib
import io
import json
import re
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Any, Final

import pyarrow as pa
import schemathesis
from hypothesis import strategies as st
from hypothesis.strategies._internal import regex
from openpyxl import Workbook
from pyarrow import parquet
from schemathesis import Case, HookContext, SerializationContext

from services.batch.checking import MEDIA_TYPES
from services.history.schemas import encode_cursor
from services.inference.idempotency import HEADER_DOC
from shared.contract.application import EXAMPLE
from shared.contract.outcomes import OUTCOME_KINDS
from shared.web.direct import CSV, NDJSON, ZIP
from tests.batch.files import as_csv
from tests.history.events import body_of, random_events
from tests.robustness.test_documents import WEBHOOK_HOST

# To make a strategy of a pattern with as many characters as a Loan_ID may have takes longer than
# dozens of requests: each is made once.
vars(regex)["regex_strategy"] = cache(regex.regex_strategy)

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

_visible = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
schemathesis.openapi.format(
    "webhook", st.text(_visible, max_size=20).map(lambda path: f"http://{WEBHOOK_HOST}/{path}")
)

# Rows may be faulty, and are named then: only the header decides whether a file is accepted. XML
# has no control characters, and a row of blank cells is none.
_words = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)
_applications: st.SearchStrategy[list[dict[str, object]]] = st.lists(
    st.fixed_dictionaries(
        {name: st.just(value) | st.none() | _words for name, value in EXAMPLE.items()}
        | {"ApplicantIncome": st.integers(0, 200_000)}
    ),
    min_size=1,
    max_size=5,
)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _as_parquet(rows: list[dict[str, object]]) -> bytes:
    file = io.BytesIO()
    columns = {name: [_text(row[name]) for row in rows] for name in rows[0]}
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()


def _as_excel(rows: list[dict[str, object]]) -> bytes:
    file, book = io.BytesIO(), Workbook()
    for cells in [[*rows[0]], *([*row.values()] for row in rows)]:
        book.worksheets[0].append(cells)
    for cell in (cell for row in book.worksheets[0].iter_rows() for cell in row):
        if cell.data_type == "f":
            # A word that begins with an equals sign: a formula without a result is refused.
            cell.data_type = "s"
    book.save(file)
    return file.getvalue()


_lines = st.lists(_applications.map(lambda rows: json.dumps(rows[0])) | _words, max_size=5)
schemathesis.openapi.format(
    "application-lines", _lines.map(lambda lines: "\n".join([json.dumps(EXAMPLE), *lines]))
)
schemathesis.openapi.format("application-table", _applications.map(lambda r: as_csv(r).decode()))
_WRITERS: Final = {"parquet": _as_parquet, "xlsx": _as_excel}
for _name, _kind in MEDIA_TYPES.items():
    if _kind in _WRITERS:
        schemathesis.openapi.media_type(_name, _applications.map(_WRITERS[_kind]))


@schemathesis.hook
def before_call(_: HookContext, case: Case[Any], __: dict[str, Any]) -> None:
    """Mend what no schema can say: a range's bounds are in order, a key is for one request."""
    for given in (case.query, case.body):
        if isinstance(given, dict):
            _order_bounds(given)
    for name, value in (case.query or {}).items():
        if isinstance(value, list) and len(value) == 1 and name != "spelling":
            # A list of one is on the wire what its value is by itself, which may be right.
            case.query[name] = value * 2
    key = (case.headers or {}).get(HEADER_DOC["name"])
    if isinstance(key, str) and re.fullmatch(HEADER_DOC["schema"]["pattern"], key):
        of_this_request = hashlib.sha256(
            repr((key, case.query, case.body)).encode(errors="surrogatepass")
        )
        case.headers[HEADER_DOC["name"]] = of_this_request.hexdigest()


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


@schemathesis.serializer(NDJSON.name, CSV.name, ZIP.name, *MEDIA_TYPES)
def as_it_is(context: SerializationContext, value: Any) -> bytes:
    """Bytes and lines as they are; whatever else is tried goes as its text.

    As a file of applications it goes as nothing: any text is one, if only with faulty rows.
    """
    if isinstance(value, bytes):
        return value
    if context.case.path == "/batches" and not isinstance(value, str):
        return b""
    return str(value).encode(errors="surrogatepass")

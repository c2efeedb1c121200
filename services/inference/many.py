"""Many applications in the body of one request, and the answer to them."""

import re
from collections.abc import Iterator, Sequence
from json import JSONDecoder
from typing import Any, Final, NamedTuple

from pydantic_core import to_json
from starlette.requests import Request

from services.scoring.engine import Decided
from services.scoring.turns import in_turns
from shared.contract.errors import BodyTooLarge, Fault, InvalidInput, TooManyApplications
from shared.contract.parsing import LoanApplication, parse_application
from shared.web.direct import JSON, MAX_BODY_BYTES, NDJSON, either, read_body, schema_of

MAX_APPLICATIONS: Final = 1000
MAX_BYTES: Final = 1024 * 1024

MANY_DOC: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON.name: {
                "schema": {
                    "type": "array",
                    "maxItems": MAX_APPLICATIONS,
                    "items": {"anyOf": [schema_of(LoanApplication), {}]},
                }
            },
            NDJSON.name: {"schema": {"description": "One application, an object, on each line."}},
        },
    }
}

_BOTH: Final = either(JSON, NDJSON)
_EMPTY, _OPENING, _COMMA, _CLOSING = (
    re.compile(mark.replace(" ", r"[ \t\n\r]*")) for mark in (r" \[ \] ", r" \[ ", r" , ", r" \] ")
)
# An element is only cut out here: its numbers, of any length, are read later.
_decoder: Final = JSONDecoder(parse_int=str, parse_float=str)


class Applications(NamedTuple):
    """The applications of a body, in two parts; each by where it stands in the whole."""

    good: dict[int, dict[str, Any]]
    faulty: dict[int, list[Fault]]


async def read_many(request: Request) -> tuple[bytes, bool]:
    """The whole body, and whether it has an application on each line instead of a JSON array.

    Raises what ``read_body`` raises; ``TooManyApplications`` for a body that is too large.
    """
    try:
        body = await read_body(request, limit_bytes=MAX_BYTES, media_type=_BOTH)
    except BodyTooLarge:
        raise _too_many() from None
    kind = request.headers.get("content-type", "").encode("latin-1")
    return body, NDJSON.spellings.fullmatch(kind) is not None


async def parse_many(body: bytes, *, lines: bool) -> Applications:
    """Parse every application as ``parse_application`` would alone.

    Raises ``InvalidInput`` if the body is no JSON array, and ``TooManyApplications``.
    """
    texts = _lines(body) if lines else _elements(body)
    found = await in_turns(_parse, _bounded(texts))
    applications = Applications({}, {})
    for index, each in enumerate(found):
        if isinstance(each, list):
            applications.faulty[index] = each
        else:
            applications.good[index] = each
    return applications


async def answer_of(applications: Applications, decided: Sequence[Decided]) -> bytes:
    """A ``ManyDecisions`` of the decisions on the good applications and the others' faults."""
    results = {
        index: b'{"index":%d,"decision":%b}' % (index, each.body)
        for index, each in zip(applications.good, decided, strict=True)
    }
    faults = await in_turns(
        lambda item: b'{"index":%d,"faults":%b}' % (item[0], to_json(item[1])),
        applications.faulty.items(),
    )
    results |= dict(zip(applications.faulty, faults, strict=True))
    in_order = b",".join(results[index] for index in range(len(results)))
    return b'{"results":[%b],"decided":%d,"faulty":%d}' % (in_order, len(decided), len(faults))


def _parse(text: bytes) -> dict[str, Any] | list[Fault]:
    if len(text) > MAX_BODY_BYTES:
        return [Fault(field="body", message=f"must be at most {MAX_BODY_BYTES} bytes")]
    try:
        return parse_application(text)
    except InvalidInput as error:
        return error.faults


def _bounded(texts: Iterator[bytes]) -> Iterator[bytes]:
    for index, text in enumerate(texts):
        if index == MAX_APPLICATIONS:
            raise _too_many()
        yield text


def _lines(body: bytes) -> Iterator[bytes]:
    return filter(bytes.strip, body.split(b"\n"))


def _elements(body: bytes) -> Iterator[bytes]:
    """The text of each element of a JSON array."""
    reason = "it must begin with [ and end with ]"
    count = 0
    try:
        text = body.decode()
        if _EMPTY.fullmatch(text):
            return
        end = 0
        mark = _OPENING.match(text)
        while mark:
            reason = f"its element {count} is not valid JSON"
            _, end = _decoder.raw_decode(text, mark.end())
            yield text[mark.end() : end].encode()
            count += 1
            mark = _COMMA.match(text, end)
        if end and _CLOSING.fullmatch(text, end):
            return
        if count:
            reason = f"after element {count - 1} there must be a comma or the closing ]"
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except RecursionError:
        reason = f"its element {count} is nested too deeply"
    except ValueError:
        pass
    message = (
        f"is not a JSON array of applications: {reason} (one application on each line is sent as"
        f" {NDJSON.name})"
    )
    raise InvalidInput([Fault(field="body", message=message)])


def _too_many() -> TooManyApplications:
    return TooManyApplications(MAX_APPLICATIONS, MAX_BYTES)

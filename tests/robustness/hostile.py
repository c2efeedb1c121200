"""Bodies that no lender sends by intention, by what is wrong with them."""

import json
from collections.abc import Iterator
from typing import Final

from shared.contract.application import EXAMPLE
from shared.web.direct import MAX_BODY_BYTES

GOOD: Final = json.dumps(EXAMPLE).encode()
_NUMBERS: Final = {
    "beyond any float": b"1e400",
    "minus beyond any float": b"-1e400",
    "5000 digits": b"1" * 5000,
    "60000 digits": b"1" * 60_000,
    "smaller than any float": b"1e-400",
    "minus zero": b"-0",
    "minus zero as a float": b"-0.0",
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "minus Infinity": b"-Infinity",
    "leading zero": b"0128",
    "leading plus": b"+128",
    "no digit before the point": b".5",
    "no digit after the point": b"5.",
    "hexadecimal": b"0x80",
    "underscore": b"1_000",
    "two points": b"1.2.3",
}
_ZEROS: Final = ("minus zero", "minus zero as a float", "smaller than any float")
_STRINGS: Final = {
    "NUL": rb'"\u0000"',
    "raw NUL": b'"\x00"',
    "raw line break": b'"a\nb"',
    "lone high surrogate": rb'"\ud800"',
    "lone low surrogate": rb'"\udc00"',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "cut UTF-8": b'"\xc3"',
    "Latin-1": '"Å"'.encode("latin-1"),
    "text from right to left": b'"\xe2\x80\xaeLP1"',
    "zero width": '"LP\u200b1"'.encode(),
    "private use": '"\ue000"'.encode(),
    "beyond the basic plane": '"\U0001f4a9"'.encode(),
    "white space": '"\u2003"'.encode(),
    "65 characters": b'"' + b"x" * 65 + b'"',
    "60000 characters": b'"' + b"x" * 60_000 + b'"',
    "unknown escape": rb'"\x41"',
    "cut escape": rb'"\u00"',
    "no end": b'"LP1',
    "single quotes": b"'LP1'",
}


def _with(member: str, value: bytes) -> bytes:
    """The example with the value of one member replaced by any bytes."""
    others = {name: given for name, given in EXAMPLE.items() if name != member}
    return json.dumps(others).encode()[:-1] + f', "{member}": '.encode() + value + b"}"


def _nested(depth: int, opening: bytes, closing: bytes) -> bytes:
    return opening * depth + b"1" + closing * depth


def hostile_bodies() -> Iterator[tuple[str, bytes]]:
    """What is wrong, and the body; each must be answered with exactly one clear refusal."""
    for length in range(len(GOOD)):
        yield f"cut after {length} bytes", GOOD[:length]
    yield from _bad_values()
    yield from _repeated_members()
    yield from _deep_ones()
    yield from _bad_texts()
    names = b",".join(b'"%05d":1' % number for number in range(6_000))
    yield "6000 unknown members", b"{" + names + b"}"
    yield "an endless name", b'{"' + b"n" * 60_000 + b'": 1}'
    yield "a Greek letter in a name", GOOD.replace(b"LoanA", b"L\xce\xbfanA")
    yield "prototype", GOOD[:-1] + b', "__proto__": {"Gender": "Male"}}'


def _bad_values() -> Iterator[tuple[str, bytes]]:
    for what, value in _NUMBERS.items():
        # Zero, however it is written, is a number of dependents and of the income of one of two.
        if what in _ZEROS:
            yield f"no income: {what}", b'{"ApplicantIncome": ' + value + b"}"
            yield f"LoanAmount: {what}", _with("LoanAmount", value)
        else:
            yield f"ApplicantIncome: {what}", _with("ApplicantIncome", value)
            yield f"Dependents: {what}", _with("Dependents", value)
    for what, value in _STRINGS.items():
        yield f"Loan_ID: {what}", _with("Loan_ID", value)
        yield f"Gender: {what}", _with("Gender", value)
    for member in EXAMPLE:
        for what, value in (("a list", b"[1]"), ("an object", b'{"a": 1}')):
            yield f"{member}: {what}", _with(member, value)
    # Everywhere else an empty string is missing.
    yield "ApplicantIncome: empty", _with("ApplicantIncome", b'""')


def _repeated_members() -> Iterator[tuple[str, bytes]]:
    for member, value in EXAMPLE.items():
        yield f"{member} twice", GOOD[:-1] + f', "{member}": {json.dumps(value)}}}'.encode()
    yield "one member a thousand times", b"{" + b'"ApplicantIncome": 1,' * 1000 + GOOD[1:]
    yield "twice, once escaped", GOOD[:-1] + rb', "Loan\u005fID": "LP2"}'
    yield "twice, the first one bad", b'{"ApplicantIncome": "x",' + GOOD[1:]


def _deep_ones() -> Iterator[tuple[str, bytes]]:
    for depth in (150, 199, 201, 5_000, 16_000):
        objects = _nested(depth, b'{"":', b"}")[:60_000]
        yield f"list {depth} deep", _nested(depth, b"[", b"]")
        yield f"list {depth} deep in a member", _with("Loan_ID", _nested(depth, b"[", b"]"))
        yield f"object {depth} deep in a member", _with("Loan_ID", objects)
    yield "list without end", b"[" * 60_000
    yield "object without end", b'{"":' * 15_000


def _bad_texts() -> Iterator[tuple[str, bytes]]:
    text = GOOD.decode().replace("LP", "ÅP")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "latin-1"):
        yield f"in {encoding}", text.encode(encoding)
    for what, tail in (
        ("garbage", b"x"),
        ("a second one", GOOD),
        ("a comma", b","),
        ("NUL", b"\0"),
    ):
        yield f"followed by {what}", GOOD + tail
    yield "with a comma too many", GOOD[:-1] + b",}"
    yield "with a comment", GOOD[:-1] + b"/* no */}"
    yield "without quotes", b"{ApplicantIncome: 1}"
    for body in (b"null", b"true", b"1", b'"x"', b"[]", b"[{}]", b" ", b"\n", b"\0", b"\xff" * 100):
        yield f"only {body[:8]!r}", body


def too_large_bodies() -> Iterator[bytes]:
    """Good applications, but for their size."""
    yield GOOD + b" " * MAX_BODY_BYTES
    yield b" " * MAX_BODY_BYTES + GOOD

"""Rows as COPY reads them fastest: in PostgreSQL's binary format.

The driver makes it too, value by value and when the batch is sent. Here half of a row is looked up,
for most of its texts and lists are the same few again and again, and the rest packed together, as
soon as the event is read: its values are still in the processor's cache then and let go at once.

Source: PostgreSQL's manual, COPY, "Binary Format".
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple
from uuid import UUID

from services.history.records import COLUMNS

_COLUMNS: Final = len(COLUMNS)
_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""What PostgreSQL counts a time's microseconds from."""
_MICROSECOND: Final = timedelta(microseconds=1)
_TEXT_TYPE: Final = 25

# Each value follows its length in bytes.
_length: Final = Struct(">i").pack
_number: Final = Struct(">id").pack
_id: Final = Struct(">i16s").pack
_array: Final = Struct(">5i").pack
_EMPTY: Final = Struct(">3i").pack(0, 0, _TEXT_TYPE)
_first_columns: Final = Struct(">h i16s iq id id id id").pack
_NULL: Final = _length(-1)
_SMALL_NUMBERS: Final = {None: _NULL, 0: b"\0\0\0\2\0\0", 1: b"\0\0\0\2\0\1"}


class EncodedRow(NamedTuple):
    """A row as COPY reads it, beside what has to be known of it before it is stored."""

    id: UUID
    derived_id: UUID | None
    request_id: str
    decided_at: datetime
    model: str
    bundle_version: str
    prediction: str
    confidence: float
    with_warnings: bool
    property_area: str | None
    credit_history: int | None
    data: bytes


def copy_data(rows: Iterable[EncodedRow]) -> memoryview:
    """What ``COPY ... FROM STDIN (FORMAT binary)`` reads the columns of ``COLUMNS`` from."""
    # Bytes themselves the driver would take for a path.
    return memoryview(b"".join((_HEAD, *[row.data for row in rows], _END)))


def encode(row: Sequence[Any]) -> EncodedRow:
    """The values of ``records.COLUMNS``, as ``records.row_of`` gives them, encoded."""
    # fmt: off
    (
        key, decided_at, confidence, approved, rejected, accuracy,
        income, other_income, amount, term, credit_history,
        prediction, model, version, client, request_id, loan_id,
        gender, married, dependents, education, self_employed, area,
        imputed, warnings, derived_id,
    ) = row
    data = b"".join(
        (
            _first_columns(
                _COLUMNS, 16, key.bytes, 8, (decided_at - _EPOCH) // _MICROSECOND,
                8, confidence, 8, approved, 8, rejected, 8, accuracy,
            ),
            _NULL if income is None else _number(8, income),
            _NULL if other_income is None else _number(8, other_income),
            _NULL if amount is None else _number(8, amount),
            _NULL if term is None else _number(8, term),
            _SMALL_NUMBERS[credit_history],
            _few_texts(prediction, model, version, client),
            _text(request_id),
            _text(loan_id),
            _few_texts(gender, married, dependents, education, self_employed, area),
            _list(*imputed),
            _list(*warnings),
            _NULL if derived_id is None else _id(16, derived_id.bytes),
        )
    )
    return EncodedRow(
        key, derived_id, request_id, decided_at, model, version, prediction,
        confidence, bool(warnings), area, credit_history, data,
    )
    # fmt: on


def _text(text: str | None) -> bytes:
    if text is None:
        return _NULL
    encoded = text.encode()
    return _length(len(encoded)) + encoded


@lru_cache(maxsize=1024)
def _few_texts(*texts: str | None) -> bytes:
    return b"".join(map(_text, texts))


@lru_cache(maxsize=1024)
def _list(*texts: str) -> bytes:
    # One dimension, no null among them, counted from 1; none at all when it is empty.
    shape = _array(1, 0, _TEXT_TYPE, len(texts), 1) if texts else _EMPTY
    array = b"".join((shape, *map(_text, texts)))
    return _length(len(array)) + array

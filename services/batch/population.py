"""Decisions on record as arrays: read with COPY, scored without a loop over rows, and counted.

Every column that is read has a fixed width and is never null, so that what the server sends is an
array as it stands.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.batch.database import Connection
from services.scoring.features import computable
from services.scoring.manifest import BundleError
from services.scoring.registry import Bundle
from services.scoring.replay import Bundles
from shared.contract.application import FIELDS, SCORED, Field
from shared.contract.events import Prediction
from shared.contract.outcomes import BAD, GOOD
from shared.contract.rollout import Arm
from shared.contract.swaps import (
    BANDS,
    GROUPED,
    MISSING,
    OTHER,
    SCORE,
    UNSCORED,
    Instead,
    Known,
    ReferBand,
    Swap,
    Tally,
)

Rows = npt.NDArray[np.void]
Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.intp]

_MISSING: Final = -1
_UNKNOWN: Final = -2
_DECIDED: Final[tuple[Prediction, ...]] = ("Rejected", "Approved")
_INSTEAD: Final[tuple[Instead, ...]] = ("Rejected", "Approved", "Referred")
_KNOWN: Final[tuple[Known, ...]] = ("", "good", "bad")
_KINDS: Final = len(_DECIDED) * len(_INSTEAD) * len(_KNOWN)

_READ: Final = tuple(field for field in FIELDS if field.name in SCORED or field in GROUPED)
_BY_NAME: Final = {field.name: field for field in _READ}

# A row begins with the number of its values, and each value with its length.
_HEADER_BYTES: Final = 19
_TRAILER_BYTES: Final = 2


def _is_word(field: Field) -> bool:
    return field.value_type is str


def _sql(field: Field) -> str:
    if not _is_word(field):
        return f"coalesce({field.column}::float8, 'NaN')"
    words = " ".join(f"WHEN '{word}' THEN {code}" for code, word in enumerate(field.allowed))
    return (
        f"(CASE WHEN {field.column} IS NULL THEN {_MISSING}"
        f" ELSE CASE {field.column} {words} ELSE {_UNKNOWN} END END)::int2"
    )


def _words(values: frozenset[Any]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))


_COLUMNS: Final[tuple[tuple[str, str, str], ...]] = (
    ("id", "id", "V16"),
    ("approved", "(prediction = 'Approved')::int4::int2", ">i2"),
    ("probability", "probability_approved", ">f8"),
    *((field.name, _sql(field), ">i2" if _is_word(field) else ">f8") for field in _READ),
)
DECISION: Final = ", ".join(sql for _, sql, _ in _COLUMNS)
"""What to select of ``predictions``, before ``OUTCOME`` or ``NO_OUTCOME`` and whether it counts."""
OUTCOME: Final = (
    f"(CASE WHEN outcome IN ({_words(GOOD)}) THEN 1 WHEN outcome IN ({_words(BAD)}) THEN 2"
    " ELSE 0 END)::int2"
)
NO_OUTCOME: Final = "0::int2"

_DTYPE: Final = np.dtype(
    [("values", ">i2")]
    + [
        part
        for name, kind in (
            *((name, kind) for name, _, kind in _COLUMNS),
            ("outcome", ">i2"),
            ("counts", ">i2"),
        )
        for part in ((f"length of {name}", ">i4"), (name, kind))
    ]
)


async def read(connection: Connection, query: str, *args: object) -> Rows:
    """The rows of ``query``: of each ``DECISION``, an outcome, and 1 if it counts or 0."""
    pieces = bytearray()

    async def keep(piece: bytes) -> None:
        pieces.extend(piece)

    await connection.copy_from_query(query, *args, output=keep, format="binary")
    count, rest = divmod(len(pieces) - _HEADER_BYTES - _TRAILER_BYTES, _DTYPE.itemsize)
    if rest:
        raise ValueError("the server's rows have another form")
    return np.frombuffer(pieces, _DTYPE, count, _HEADER_BYTES)


async def find_bundle(bundles: Bundles, arm: Arm) -> Bundle:
    """The bundle of ``arm``; raises ``BundleError`` if it, or its model, cannot be used."""
    bundle = await bundles.find(arm.bundle)
    if arm.model not in bundle.models:
        raise BundleError(f"The bundle {arm.bundle} holds no model {arm.model}.")
    return bundle


def scored(rows: Rows, bundle: Bundle, model: str) -> tuple[Values, Mask]:
    """The probability of approval of each row that the model takes, and which rows those are.

    It is what ``approval_probability`` returns for that application alone. A record may hold what
    no application of this version does: a category's unknown value, or no income at all.
    """
    columns: dict[str, Values] = {}
    takes = np.ones(len(rows), dtype=np.bool_)
    for name in SCORED:
        values = rows[name].astype(np.float64)
        if _is_word(_BY_NAME[name]):
            takes &= values != _UNKNOWN
            values[values == _MISSING] = np.nan
        columns[name] = values
    takes &= computable(columns)
    if not takes.all():
        columns = {name: values[takes] for name, values in columns.items()}
    return bundle.models[model].approval_probabilities(bundle.matrix_of(columns)), takes


def counted(rows: Rows, approved: Values, threshold: ReferBand | float) -> Tally:
    """The counts of ``rows``, of which each has a probability of approval."""
    low, high = (
        (threshold.low, threshold.high)
        if isinstance(threshold, ReferBand)
        else (threshold, threshold)
    )
    instead = np.where(approved >= high, 1, np.where(approved < low, 0, 2))
    kinds = (rows["approved"] * len(_INSTEAD) + instead) * len(_KNOWN) + rows["outcome"]
    tally: Tally = Counter()
    for attribute, values, codes in _attributes(rows):
        counts = np.bincount(codes * _KINDS + kinds, minlength=len(values) * _KINDS)
        for place in np.flatnonzero(counts).tolist():
            value, kind = divmod(place, _KINDS)
            tally[Swap(attribute, values[value], *_kind(kind))] = int(counts[place])
    return tally


def unscored(rows: Rows) -> Tally:
    """The counts of rows that the other model does not take."""
    kinds = rows["approved"] * len(_KNOWN) + rows["outcome"]
    pairs = [divmod(kind, len(_KNOWN)) for kind in kinds.tolist()]
    return Counter(
        Swap(UNSCORED, "", _DECIDED[decided], "", _KNOWN[known]) for decided, known in pairs
    )


def _kind(kind: int) -> tuple[Prediction, Instead, Known]:
    rest, known = divmod(kind, len(_KNOWN))
    decided, instead = divmod(rest, len(_INSTEAD))
    return _DECIDED[decided], _INSTEAD[instead], _KNOWN[known]


def _attributes(rows: Rows) -> Iterator[tuple[str, tuple[str, ...], Codes]]:
    bands = np.minimum((rows["probability"] * BANDS).astype(np.intp), BANDS - 1)
    yield SCORE, tuple(map(str, range(BANDS))), bands
    for field in GROUPED:
        codes = rows[field.name].astype(np.intp)
        codes[codes == _UNKNOWN] = len(field.allowed)
        codes[codes == _MISSING] = len(field.allowed) + 1
        yield field.column, (*map(str, field.allowed), OTHER, MISSING), codes

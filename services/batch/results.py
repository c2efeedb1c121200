"""The decisions of a batch as a file: CSV, NDJSON or Parquet, a chunk at a time."""

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from anyio.to_thread import run_sync
from pydantic_core import from_json, to_json

from services.batch.checking import faulty_rows, packed, unpacked
from services.batch.database import Pool, transaction
from services.batch.jobs import LAST_LINE, Job, decision_id
from shared.contract.application import FIELDS
from shared.contract.spreadsheet import neutralised

Format = Literal["csv", "ndjson", "parquet"]
MEDIA_TYPES: Final[Mapping[Format, str]] = {
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
FAULTS_MEDIA_TYPE: Final = MEDIA_TYPES["ndjson"]

_INPUTS: Final = tuple(field.name for field in FIELDS)
_LISTS: Final = ("imputed", "warnings", "reasons")
_COLUMNS: Final = (
    *("line", *_INPUTS, "prediction", "confidence", "probability_approved"),
    *("probability_rejected", "model", "bundle", "prediction_id", "decided_at", *_LISTS),
)


class Line(NamedTuple):
    """The decision on one line of a file: ``body`` is a ``Decision`` as JSON."""

    line: int
    body: bytes


def packed_decisions(lines: Iterable[Line]) -> bytes:
    """How a chunk keeps its decisions."""
    return packed(b"%d %b" % line for line in lines)


def decisions_of(content: bytes) -> list[Line]:
    """What ``packed_decisions`` was given."""
    found = (text.partition(b" ") for text in unpacked(content))
    return [Line(int(line), body) for line, _, body in found]


class ErasedIds(NamedTuple):
    """What was erased and may still be in a chunk: nothing of it is shown."""

    prediction_ids: frozenset[str]
    loan_ids: frozenset[str]

    def hides(self, decision: Mapping[str, Any]) -> bool:
        """Whether the decision is about what was erased."""
        return (
            decision["prediction_id"] in self.prediction_ids
            or decision["input_data"]["Loan_ID"] in self.loan_ids
        )


_ERASED: Final = """
SELECT prediction_id, loan_id FROM batch.erasures
WHERE prediction_id BETWEEN $1 AND $2 OR (loan_id IS NOT NULL AND noted_at > $3)
"""
_CHUNKS: Final = """
SELECT number, content, faults FROM batch.chunks
WHERE batch_id = $1 AND number > $2 AND (NOT $3 OR state = 'done') ORDER BY number LIMIT 1
"""


async def _chunks(
    pool: Pool, job: Job, *, done: bool
) -> AsyncIterator[tuple[bytes, bytes, ErasedIds]]:
    """The content and the faults of each chunk, one statement each: no cursor waits for a client.

    ``done`` leaves out those whose decisions are not all recorded.
    """
    first, last = decision_id(job.id, 0), decision_id(job.id, LAST_LINE)
    number = -1
    while True:
        async with transaction(pool) as connection:
            row = await connection.fetchrow(_CHUNKS, job.id, number, done)
            notes = await connection.fetch(_ERASED, first, last, job.created_at)
        if row is None:
            return
        number = row["number"]
        erased = ErasedIds(
            frozenset(str(note["prediction_id"]) for note in notes if note["prediction_id"]),
            frozenset(note["loan_id"] for note in notes if note["loan_id"]),
        )
        yield row["content"], row["faults"], erased


async def results(pool: Pool, job: Job, format_: Format) -> AsyncIterator[bytes]:
    """The decisions so far, in the order of the file; at least one piece.

    Raises ``DATABASE_ERRORS``.
    """
    writer = _WRITERS[format_]()
    yield await run_sync(writer.begin)
    async for content, _, erased in _chunks(pool, job, done=True):

        def piece(content: bytes = content, erased: ErasedIds = erased) -> bytes:
            if format_ == "ndjson" and job.record and not any(erased):
                # The very bytes that are recorded, with the line before them.
                return b"".join(
                    b'{"line":%d,%b\n' % (n, body[1:]) for n, body in decisions_of(content)
                )
            rows: bytes = writer.rows(_shown(content, erased, recorded=job.record))
            return rows

        yield await run_sync(piece)
    yield await run_sync(writer.end)


async def faults(pool: Pool, job: Job) -> AsyncIterator[bytes]:
    """Every faulty row so far, as NDJSON, in the order of the file; perhaps no piece."""
    async for _, content, erased in _chunks(pool, job, done=False):
        lines = [
            to_json({"line": row.line, "faults": row.faults}) + b"\n"
            for row in faulty_rows(content)
            if row.loan_id not in erased.loan_ids
        ]
        if lines:
            yield b"".join(lines)


def _shown(content: bytes, erased: ErasedIds, *, recorded: bool) -> list[dict[str, Any]]:
    shown = []
    for line, body in decisions_of(content):
        decision = from_json(body)
        if erased.hides(decision):
            continue
        if not recorded:
            # There is no record under it.
            decision["prediction_id"] = None
        shown.append({"line": line} | decision)
    return shown


def _cells(decision: Mapping[str, Any]) -> list[Any]:
    """The columns of a decision."""
    reasons = [reason["code"] for reason in decision["reasons"] or ()]
    return [
        decision["line"],
        *(decision["input_data"][name] for name in _INPUTS),
        decision["prediction"],
        decision["confidence"],
        decision["probability"]["approved"],
        decision["probability"]["rejected"],
        decision["model_info"]["name"],
        decision["model_info"]["version"],
        decision["prediction_id"],
        decision["timestamp"],
        decision["imputed"],
        decision["warnings"],
        reasons,
    ]


class _Ndjson:
    def begin(self) -> bytes:
        return b""

    def rows(self, decisions: Sequence[Mapping[str, Any]]) -> bytes:
        return b"".join(to_json(decision) + b"\n" for decision in decisions)

    def end(self) -> bytes:
        return b""


class _Csv:
    def begin(self) -> bytes:
        return _csv([_COLUMNS])

    def rows(self, decisions: Sequence[Mapping[str, Any]]) -> bytes:
        return _csv([_text(cell) for cell in _cells(decision)] for decision in decisions)

    def end(self) -> bytes:
        return b""


def _csv(lines: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()


def _text(cell: object) -> object:
    return neutralised("; ".join(cell) if isinstance(cell, list) else cell)


class _Parquet:
    def __init__(self) -> None:
        import pyarrow as pa  # noqa: PLC0415 - takes long, and other formats do without
        from pyarrow import parquet  # noqa: PLC0415

        self._arrow = pa
        self._schema = pa.schema([(name, self._type(name)) for name in _COLUMNS])
        self._file = io.BytesIO()
        self._writer = parquet.ParquetWriter(self._file, self._schema, compression="zstd")

    def _type(self, name: str) -> Any:
        pa = self._arrow
        types = {"line": pa.int64(), "decided_at": pa.timestamp("us", "UTC")}
        types |= {field.name: self._input_type(field.value_type) for field in FIELDS}
        types |= dict.fromkeys(_LISTS, pa.list_(pa.string()))
        probabilities = ("confidence", "probability_approved", "probability_rejected")
        types |= dict.fromkeys(probabilities, pa.float64())
        return types.get(name, pa.string())

    def _input_type(self, kind: object) -> Any:
        pa = self._arrow
        return {float: pa.float64(), int: pa.int64()}.get(kind, pa.string())  # type: ignore[call-overload]

    def begin(self) -> bytes:
        return self._taken()

    def rows(self, decisions: Sequence[Mapping[str, Any]]) -> bytes:
        columns = list(zip(*map(_cells, decisions), strict=True)) or [()] * len(_COLUMNS)
        pa = self._arrow
        arrays = [
            pa.array(column, pa.string()).cast(kind)
            if name == "decided_at"
            else pa.array(column, kind)
            for name, kind, column in zip(_COLUMNS, self._schema.types, columns, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        return self._taken()

    def end(self) -> bytes:
        self._writer.close()
        return self._taken()

    def _taken(self) -> bytes:
        piece = self._file.getvalue()
        self._file.seek(0)
        self._file.truncate()
        return piece


_WRITERS: Final[Mapping[Format, Callable[[], Any]]] = {
    "csv": _Csv,
    "ndjson": _Ndjson,
    "parquet": _Parquet,
}

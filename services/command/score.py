"""``loan-predictor score``: decides on files of applications; nothing is recorded.

Each chunk of the files becomes a part of the result, and then a report: where there is a report,
its part is whole. A run that was cut off goes on with the chunks that have no report.
"""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import IO, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from services.command.engines import CannotBegin
from services.command.main import WrongArguments
from services.command.sources import (
    BATCH_ROWS,
    Chunk,
    Format,
    Source,
    named,
    open_parquet,
    open_source,
)
from services.command.storage import FileLocation
from services.scoring.columns import RESULT_SCHEMA, is_bytes, score
from services.scoring.manifest import (
    BUNDLE_ROOT,
    CURRENT_FILE,
    BundleError,
    check_version,
    read_current_version,
)
from services.scoring.registry import Bundle, load_bundle
from shared.contract.spreadsheet import FORMULA_STARTS, neutralised
from shared.files.applications import NO_ROWS, Columns, misspelt, usable_columns
from shared.files.tables import FileError
from shared.version import VERSION

_SUFFIXES: Final[dict[str, Format]] = {".csv": "csv", ".parquet": "parquet"}
_HARMLESS: Final = re.compile(r"-|[-+][0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_AS_PARQUET: Final = "have the result written as Parquet."
_PLAN_FILE: Final = "plan.json"


@dataclass(frozen=True)
class Plan:
    """What a run does, the same for each chunk."""

    bundle_root: Path
    bundle_version: str
    model: str
    kind: Format
    """Of the result."""
    source: FileLocation
    target: FileLocation
    is_folder: bool
    """Whether the result is a folder of parts, or one file that is put together at the end."""
    inputs: dict[str, int]
    """The position of each input among the columns."""
    kept: tuple[int, ...]
    """The positions of the columns that the result takes over."""
    remarks: tuple[str, ...]
    """Sentences on how the files are read."""
    stamp: str
    """Everything that the result depends on, as text."""

    @property
    def progress(self) -> FileLocation:
        """The folder of reports, which is there while the run is not finished."""
        return self.target.beside(".progress")

    @property
    def faults(self) -> FileLocation:
        """The file that names the faulty rows."""
        return self.target.beside(".faults.csv")

    def part(self, number: int) -> FileLocation:
        """The part that a chunk becomes."""
        folder = self.target if self.is_folder else self.progress
        return folder / f"part-{number:06d}.{self.kind}"

    def report(self, number: int) -> FileLocation:
        """The report of a chunk."""
        return self.progress / f"report-{number:06d}.json"


class Task(NamedTuple):
    """A chunk, and its number in the run."""

    number: int
    chunk: Chunk


class Report(NamedTuple):
    """What came of a chunk."""

    number: int
    file: str
    size: int
    decided: int
    approved: int
    faults: list[tuple[int, str]]
    """Line and sentence of each faulty row."""


class Totals(NamedTuple):
    """What came of all chunks: numbers of rows."""

    decided: int
    approved: int
    faulty: int


Work = Callable[[Task], Report]
Engine = Callable[[Work, Iterable[Task]], Iterator[Report]]


def plan_run(
    name: str, target_name: str, *, model: str | None, bundle: str | None, kind: Format | None
) -> tuple[Plan, list[Source]]:
    """The run from the file or folder ``name`` to ``target_name``, before anything is written.

    Raises ``WrongArguments``, ``FileError``, ``BundleError`` or ``UnknownModel``, whose message
    says what is wrong.
    """
    root, version = find_bundle(bundle)
    served = _bundle(root, version)
    chosen = served.model(model) if model else served.champion
    source = FileLocation.of(name)
    sources = _open_sources(source)
    schema = sources[0].schema
    columns = _columns(schema.names)
    target = _target(target_name)
    suffix = Path(target.url).suffix.lower()
    is_folder = target_name.endswith("/") or suffix not in _SUFFIXES
    if kind not in (None, _SUFFIXES.get(suffix, kind)):
        raise WrongArguments(f"{target_name} is not to be called {suffix} if its format is {kind}.")
    kind = kind or _SUFFIXES.get(suffix, sources[0].kind)
    files = [source.location.fingerprint() for source in sources]
    plan = Plan(
        bundle_root=root,
        bundle_version=version,
        model=chosen.name,
        kind=kind,
        source=source,
        target=target,
        is_folder=is_folder,
        inputs=columns.places,
        kept=tuple(
            place for place, title in enumerate(schema.names) if title not in RESULT_SCHEMA.names
        ),
        remarks=tuple(dict.fromkeys(_remarks(sources, columns))),
        stamp=json.dumps([VERSION, version, chosen.name, kind, target.url, files]),
    )
    return plan, sources


def find_bundle(name: str | None) -> tuple[Path, str]:
    """The folder and the version of a bundle, given as a version, its folder or one of bundles."""
    if name is None:
        return BUNDLE_ROOT, read_current_version(BUNDLE_ROOT)
    path = Path(name)
    if (path / CURRENT_FILE).exists():
        return path.resolve(), read_current_version(path)
    if path.name != name and not path.is_dir():
        raise BundleError(f"There is no folder {name}.")
    version = check_version(path.name)
    if path.is_dir():
        return path.resolve().parent, version
    versions = sorted(folder.name for folder in BUNDLE_ROOT.glob("b-*"))
    if version not in versions:
        raise BundleError(f"There is no bundle {version}; there are {', '.join(versions)}.")
    return BUNDLE_ROOT, version


def _target(name: str) -> FileLocation:
    target = FileLocation.of(name)
    folder = Path(target.path).parent
    if target.is_local and not folder.is_dir():
        raise FileError(f"There is no folder {folder} to write the result to.")
    return target


def _open_sources(location: FileLocation) -> list[Source]:
    sources = []
    for file in location.files():
        with named(file):
            sources.append(open_source(file))
        if not sources[-1].schema.equals(sources[0].schema):
            raise FileError(f"{file} has other columns than {sources[0].location}.")
    if not sources:
        raise FileError(f"{location} is not there, or a folder without files.")
    return sources


def _columns(titles: Sequence[str]) -> Columns:
    columns = usable_columns(titles)
    sentences = misspelt(columns.unknown, columns.places)
    if sentences:
        raise FileError(f"{sentences} Rename it, or remove it.")
    return columns


def _remarks(sources: Iterable[Source], columns: Columns) -> Iterator[str]:
    for source in sources:
        yield from source.remarks
    if columns.unknown:
        names = ", ".join(column.name for column in columns.unknown)
        yield f"Copied to the result, but not scored: {names}."
    yield from columns.absences()


def start(plan: Plan, *, resume: bool) -> dict[int, int]:
    """Begin a run, or go on with it: the size of each chunk that was done before it was cut off.

    Raises ``FileError`` rather than write over anything.
    """
    progress, target = plan.progress, plan.target
    begun = progress.exists()
    if begun and not resume:
        raise FileError(
            f"A run to {target} was cut off: --resume goes on with it, or remove {progress}."
        )
    if not begun:
        for existing in (target, plan.faults):
            if existing.exists():
                raise FileError(f"{existing} is there already; remove it, or name another result.")
        _write(plan, progress / _PLAN_FILE, plan.stamp)
        return {}
    if (progress / _PLAN_FILE).read().decode() != plan.stamp:
        raise FileError(
            f"The run to {target} that was cut off was of other files or another model; remove"
            f" {progress}{f' and {target}' if plan.is_folder else ''}."
        )
    return {report.number: report.size for report in _reports(plan)}


def score_files(
    plan: Plan, sources: Sequence[Source], finished: Collection[int], *, engine: Engine
) -> Iterator[Report]:
    """Decide on all chunks that are not ``finished``, and yield their reports as they come.

    Raises ``FileError`` with nothing left behind if a file cannot be read to its end, and
    ``CannotBegin`` if the engine cannot do anything, with nothing left that this run began. After
    any other error or a kill, what is done is kept.
    """
    chunks = (chunk for source in sources for chunk in source.chunks())
    tasks = (Task(*numbered) for numbered in enumerate(chunks) if numbered[0] not in finished)
    try:
        yield from engine(partial(score_chunk, plan), tasks)
    except CannotBegin:
        if not finished:
            discard(plan)
        raise
    except FileError:
        discard(plan)
        raise


def score_chunk(plan: Plan, task: Task) -> Report:
    """Write the part and the report of a chunk; may be repeated."""
    bundle = _bundle(plan.bundle_root, plan.bundle_version)
    model = bundle.model(plan.model)
    faults: list[tuple[int, str]] = []
    decided = approved = 0
    with named(task.chunk.location), _written(plan, plan.part(task.number)) as file:
        with_header = plan.is_folder or task.number == 0
        with _writer(file, plan.kind, with_header=with_header) as write:
            for rows in task.chunk.rows():
                scored = score(rows.table, plan.inputs, model=model, bundle=bundle)
                faults += rows.faults.items()
                faults += ((rows.lines[row], fault) for row, fault in scored.faults.items())
                decided += len(scored.decisions)
                approved += scored.approved
                write(scored.joined(rows.table.select(list(plan.kept))))
    report = Report(
        number=task.number,
        file=str(task.chunk.location),
        size=task.chunk.size,
        decided=decided,
        approved=approved,
        faults=sorted(faults),
    )
    _write(plan, plan.report(task.number), json.dumps(report))
    return report


def finish(plan: Plan) -> Totals:
    """Put the result and the list of faulty rows together, and end the run."""
    numbers = []
    decided = approved = faulty = 0
    for report in _reports(plan):
        numbers.append(report.number)
        decided += report.decided
        approved += report.approved
        faulty += len(report.faults)
    if not decided + faulty:
        discard(plan)
        raise FileError(f"{plan.source}: {NO_ROWS}")
    if faulty:
        with _written(plan, plan.faults) as file:
            _write_faults(file, _reports(plan))
    if not plan.is_folder:
        with _written(plan, plan.target) as file:
            _join(file, plan, numbers)
    plan.progress.remove()
    return Totals(decided, approved, faulty)


def discard(plan: Plan) -> None:
    """Leave nothing of a run that is not finished."""
    plan.progress.remove()
    if plan.is_folder:
        plan.target.remove()


def _written(plan: Plan, location: FileLocation) -> AbstractContextManager[IO[bytes]]:
    return location.written(unfinished_in=plan.progress)


def _write(plan: Plan, location: FileLocation, content: str) -> None:
    with _written(plan, location) as file:
        file.write(content.encode())


def _reports(plan: Plan) -> Iterator[Report]:
    for file in plan.progress.files():
        name = Path(file.url).name
        if name.startswith("report-") and name.endswith(".json"):
            yield Report(*json.loads(file.read()))


def _write_faults(file: IO[bytes], reports: Iterable[Report]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("file", "line", "fault"))
    lines.writerows((each.file, *fault) for each in reports for fault in each.faults)
    text.detach()


def _join(file: IO[bytes], plan: Plan, numbers: Sequence[int]) -> None:
    if plan.kind == "csv":
        for number in numbers:
            with plan.part(number).opened() as part:
                shutil.copyfileobj(part, file)
        return
    with _writer(file, plan.kind, with_header=True) as write:
        for number in numbers:
            with open_parquet(plan.part(number)) as part:
                for batch in part.iter_batches(BATCH_ROWS, use_threads=False):
                    write(pa.Table.from_batches([batch]))


@contextmanager
def _writer(
    file: IO[bytes], kind: Format, *, with_header: bool
) -> Iterator[Callable[[pa.Table], None]]:
    """Yield what appends a table to ``file``; all have the same columns."""
    writer: parquet.ParquetWriter | None = None
    is_first = True

    def append(table: pa.Table) -> None:
        nonlocal writer, is_first
        if kind == "csv":
            _append_csv(file, table, with_header=with_header and is_first)
        else:
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
        is_first = False

    try:
        yield append
    finally:
        if writer:
            writer.close()


def _append_csv(file: IO[bytes], table: pa.Table, *, with_header: bool) -> None:
    table = _neutralised(table)
    options = partial(arrow_csv.WriteOptions, include_header=with_header)
    content = io.BytesIO()
    try:
        arrow_csv.write_csv(table, content, options(quoting_style="none", quoting_header="none"))
    except pa.ArrowInvalid:
        # A cell has a comma, a quote or a line break; quoting takes twice as long.
        content = io.BytesIO()
        arrow_csv.write_csv(table, content, options(quoting_style="needed"))
    file.write(content.getbuffer())


def _neutralised(table: pa.Table) -> pa.Table:
    """``table`` without cells that a spreadsheet would run as a formula."""
    columns = [
        column if title in RESULT_SCHEMA.names else _without_formulas(title, column)
        for title, column in zip(table.column_names, table.columns, strict=True)
    ]
    return pa.table(columns, names=[str(neutralised(title)) for title in table.column_names])


def _without_formulas(title: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_bytes(column.type) or pa.types.is_string_view(column.type):
        try:
            column = column.cast(pa.string())
        except pa.ArrowInvalid:
            raise FileError(f"{title} has bytes that are not UTF-8 text; {_AS_PARQUET}") from None
    if pa.types.is_nested(column.type):
        raise FileError(f"{title} has more than one value in a cell; {_AS_PARQUET}")
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    starts = pc.utf8_slice_codeunits(column, 0, 1)
    if not pc.any(pc.is_in(starts, pa.array(FORMULA_STARTS, column.type))).as_py():
        return column
    # A sign before a number starts no formula, and a minus alone is a missing value.
    cells = (
        cell if cell is None or _HARMLESS.fullmatch(cell) else neutralised(cell)
        for cell in column.to_pylist()
    )
    return pa.chunked_array([pa.array(cells, column.type)])


@cache
def _bundle(root: Path, version: str) -> Bundle:
    return load_bundle(root, version)

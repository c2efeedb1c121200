"""``loan-predictor score``: files in, decisions and faults out, whatever happens in between."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Final

import fsspec
import pyarrow as pa
import pytest
from distributed import LocalCluster
from pyarrow import csv as arrow_csv
from pyarrow import dataset, parquet

from services.command import engines, run, sources
from services.command.engines import CannotBegin, EngineError, on_dask, on_processes
from services.command.main import main
from services.command.score import (
    Engine,
    Report,
    Task,
    Totals,
    Work,
    find_bundle,
    finish,
    plan_run,
    score_files,
    start,
)
from services.scoring.engine import decide
from services.scoring.manifest import BUNDLE_ROOT, read_current_version
from services.scoring.registry import load_bundle
from shared.contract.parsing import read_application
from shared.files.applications import read_applications
from shared.files.tables import FileError
from tests.applications import random_application, write_csv
from tests.bundles import make_bundle
from tests.command.dying import die, score_or_die
from tests.waiting import until

_ROWS: Final = 400
_FAULTY: Final[Mapping[int, dict[str, object]]] = {
    3: {"ApplicantIncome": -1},
    5: {"Education": "x", "LoanAmount": 0},
    398: {},
}
"""By line: what makes the row there faulty; the last one lacks cells."""
_SMALL_BYTES: Final = 4096
_TIMES: Final = 500
"""How often the file is repeated to be a large one: three chunks."""


@pytest.fixture(scope="module")
def applications() -> list[dict[str, object]]:
    """Rows of a file, with a column more than there are inputs, and one from an earlier result."""
    rng = random.Random(17)  # noqa: S311 - test data, not a secret
    rows = [random_application(rng) for _ in range(_ROWS)]
    return [row | {"Branch": f"B{n % 7}", "model": "former"} for n, row in enumerate(rows)]


@pytest.fixture
def file(applications: Sequence[dict[str, object]], tmp_path: Path) -> Path:
    """The same as CSV, with faulty rows."""
    path = tmp_path / "in.csv"
    write_csv(path, [row | _FAULTY.get(line, {}) for line, row in enumerate(applications, start=2)])
    lines = path.read_text().splitlines(keepends=True)
    lines[397] = "LP1,Male\n"
    path.write_text("".join(lines))
    return path


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is cut into about ten."""
    monkeypatch.setattr(sources, "_BLOCK_BYTES", _SMALL_BYTES)
    monkeypatch.setattr(sources, "_CHUNK_ROWS", 40)


def _here(work: Work, tasks: Iterable[Task]) -> Iterator[Report]:
    return map(work, tasks)


def _score(
    source: Path | str,
    target: Path | str,
    engine: Engine = _here,
    *,
    resume: bool = False,
    model: str | None = None,
) -> Totals:
    plan, files = plan_run(str(source), str(target), model=model, bundle=None, kind=None)
    finished = start(plan, resume=resume)
    for _ in score_files(plan, files, finished, engine=engine):
        pass
    return finish(plan)


def _expected(path: Path) -> list[dict[str, object]]:
    """What one decision after the other makes of the rows of a file that are not faulty."""
    bundle = load_bundle(BUNDLE_ROOT, None)
    found = []
    for row in read_applications(path.read_bytes()).rows:
        if row.line in _FAULTY:
            continue
        body = json.loads(
            decide(read_application(row.application), model=bundle.champion, bundle=bundle).body
        )
        found.append(
            {
                "Loan_ID": row.cells["Loan_ID"],
                "prediction": body["prediction"],
                "probability_approved": body["probability"]["approved"],
                "model": body["model_info"]["name"],
                "bundle_version": body["model_info"]["version"],
                "imputed": "; ".join(body["imputed"]),
                "warnings": "; ".join(body["warnings"]),
            }
        )
    return found


def _read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        text = arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(("imputed", "warnings"), pa.string())
        )
        return list(arrow_csv.read_csv(path, convert_options=text).to_pylist())
    return list(parquet.read_table(path).to_pylist())


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
@pytest.mark.usefixtures("small_chunks")
def test_result_is_the_file_without_its_faulty_rows_and_every_decision(
    name: str, file: Path, tmp_path: Path
) -> None:
    """In order; a column that is no input is taken over, one of an earlier result is not."""
    target = tmp_path / name
    summary = _score(file, target)
    rows = _read(target)
    expected = _expected(file)
    assert [{name: row[name] for name in expected[0]} for row in rows] == expected
    with file.open() as lines:
        given = list(csv.DictReader(lines))
    kept = [name for name in given[0] if name != "model"]
    good = [row for line, row in enumerate(given, start=2) if line not in _FAULTY]
    for name in kept:
        cells = ["" if row[name] is None else str(row[name]) for row in rows]
        assert cells == [row[name] for row in good]
    assert list(rows[0]) == [*kept, *(name for name in expected[0] if name != "Loan_ID")]
    approved = sum(row["prediction"] == "Approved" for row in expected)
    assert summary == (_ROWS - len(_FAULTY), approved, len(_FAULTY))


@pytest.mark.usefixtures("small_chunks")
def test_faulty_rows_are_named_by_line_with_all_their_faults(file: Path, tmp_path: Path) -> None:
    """In a file beside the result, and nothing else is left there."""
    _score(file, tmp_path / "out.csv")
    with (tmp_path / "out.csv.faults.csv").open() as lines:
        found = list(csv.reader(lines))
    assert found == [
        ["file", "line", "fault"],
        [str(file), "3", "ApplicantIncome must be at least 0"],
        [
            *(str(file), "5"),
            "Education must be one of: Graduate, Not Graduate; LoanAmount must be greater than 0",
        ],
        [str(file), "398", "has 2 cells, the header has 14"],
    ]
    assert _names(tmp_path) == {"in.csv", "out.csv", "out.csv.faults.csv"}


@pytest.mark.system
@pytest.mark.usefixtures("small_chunks")
def test_result_is_the_same_on_every_engine_and_with_any_chunks(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker process that is killed in the middle of the run costs no row."""
    mark = tmp_path / "mark"

    def with_a_death(work: Work, tasks: Iterable[Task]) -> Iterator[Report]:
        return on_processes(partial(score_or_die, work, mark), tasks, workers=1)

    _score(file, tmp_path / "killed.csv", with_a_death)
    assert mark.exists()
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        on_cluster = partial(on_dask, scheduler=cluster.scheduler_address)
        _score(file, tmp_path / "dask.csv", on_cluster)
        monkeypatch.setattr(engines, "_version", lambda: import_module("missing"))
        with pytest.raises(EngineError, match="and its workers need this product, too, in version"):
            next(on_cluster(abs, [1]))
    monkeypatch.undo()
    _score(file, tmp_path / "whole.csv")
    whole = (tmp_path / "whole.csv").read_bytes()
    assert (tmp_path / "killed.csv").read_bytes() == whole
    assert (tmp_path / "dask.csv").read_bytes() == whole


@pytest.mark.system
def test_processes_that_always_die_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than to be started for ever."""
    monkeypatch.setattr(engines, "_MAX_DEATHS", 1)
    with pytest.raises(EngineError, match="died 1 times"):
        list(on_processes(die, [1], workers=1))


@pytest.mark.system
def test_worker_processes_end_with_a_killed_command() -> None:
    """They hold its standard output, which is at its end only once all are gone."""
    code = (
        "import time; from services.command.engines import on_processes\n"
        "for _ in on_processes(time.sleep, [0, 600], workers=1): print('begun', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        process.kill()
        try:
            process.communicate(timeout=10)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.system
def test_scheduler_that_goes_away_stops_the_run_in_one_sentence(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It does not end in what the library raises and logs."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        results = on_dask(abs, repeat(-1), scheduler=cluster.scheduler_address)
        assert next(results) == 1
        capfd.readouterr()
        cluster.close()
        with pytest.raises(EngineError, match="went away; once it is back, --resume goes on"):
            list(results)
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("small_chunks")
def test_run_that_was_cut_off_goes_on_with_what_is_left(file: Path, tmp_path: Path) -> None:
    """It says so rather than begin anew, and nothing that is done is done again."""
    target = tmp_path / "out.csv"
    done: list[int] = []

    def cut_off(work: Work, tasks: Iterable[Task]) -> Iterator[Report]:
        yield from map(work, islice(tasks, 3))
        raise KeyboardInterrupt

    def away(_: Work, __: Iterable[Task]) -> Iterator[Report]:
        raise CannotBegin

    def rest(work: Work, tasks: Iterable[Task]) -> Iterator[Report]:
        for task in tasks:
            done.append(task.number)
            yield work(task)

    with pytest.raises(KeyboardInterrupt):
        _score(file, target, cut_off)
    assert not target.exists()
    with pytest.raises(FileError, match="--resume goes on with it"):
        _score(file, target)
    with pytest.raises(CannotBegin):
        _score(file, target, away, resume=True)
    with pytest.raises(FileError, match="of other files or another model"):
        _score(file, target, resume=True, model="random_forest")
    assert _score(file, target, rest, resume=True).faulty == len(_FAULTY)
    assert done == list(range(3, 3 + len(done)))
    _score(file, tmp_path / "at once.csv")
    assert target.read_bytes() == (tmp_path / "at once.csv").read_bytes()
    with pytest.raises(FileError, match="there already"):
        _score(file, target, resume=True)


@pytest.mark.system
def test_killed_command_goes_on_and_reports_how_it_ended(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself and its workers, by a signal that none can handle."""
    monkeypatch.chdir(tmp_path)
    header, *lines = file.read_text().splitlines(keepends=True)
    large, target = tmp_path / "large.csv", tmp_path / "out"
    large.write_text("".join([header, *(lines * _TIMES)]))
    options = ["--model", "random_forest", "--format", "parquet", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "services.command", "score", str(large), str(target), *options],
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    first = tmp_path / "out.progress/report-000000.json"
    until(first.exists, timeout_s=60)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list(first.parent.glob("report-*")))
    part = target / "part-000000.parquet"
    written_ns = part.stat().st_mtime_ns
    assert main(["score", "large.csv", "out/", *options, "--resume"]) == 3
    parts = sorted(target.iterdir())
    assert done < len(parts)
    assert part.stat().st_mtime_ns == written_ns
    rows, faulty = _TIMES * _ROWS, _TIMES * len(_FAULTY)
    assert dataset.dataset(parts).count_rows() == rows - faulty
    said = capsys.readouterr().out
    assert f"{rows:,} rows: {rows - faulty:,} decided" in said
    assert f"{faulty:,} faulty" in said
    assert f"The faults are in {target}.faults.csv" in said
    assert _names(tmp_path) == {"in.csv", "large.csv", "out", "out.faults.csv"}


@pytest.mark.usefixtures("small_chunks")
def test_folder_of_files_becomes_a_folder_of_parts(
    applications: Sequence[dict[str, object]], tmp_path: Path
) -> None:
    """In the order of their names; hidden files are left out. Typed columns stay typed."""
    folder = tmp_path / "in"
    folder.mkdir()
    table = pa.Table.from_pylist(applications).drop_columns("model")
    parquet.write_table(table.slice(0, 150), folder / "a.parquet", row_group_size=30)
    parquet.write_table(table.slice(150), folder / "b.parquet")
    with parquet.ParquetWriter(folder / "ab.parquet", table.schema) as empty:
        empty.write_table(table.slice(0, 0))
    (folder / "_SUCCESS").touch()
    summary = _score(folder, tmp_path / "out/")
    assert (summary.decided, summary.faulty) == (_ROWS, 0)
    parts = sorted((tmp_path / "out").iterdir())
    assert len(parts) > 3
    result = pa.concat_tables([parquet.read_table(part) for part in parts])
    assert result.select(table.column_names).equals(table)
    assert _names(tmp_path) == {"in", "out"}
    _score(folder, tmp_path / "one.parquet")
    assert parquet.read_table(tmp_path / "one.parquet").equals(result)
    parquet.write_table(table.drop_columns("Branch"), folder / "c.parquet")
    with pytest.raises(FileError, match=r"c\.parquet has other columns than .*a\.parquet"):
        _score(folder, tmp_path / "other")
    assert _names(tmp_path) == {"in", "out", "one.parquet"}


@pytest.mark.usefixtures("small_chunks")
def test_files_may_be_in_another_store(file: Path, tmp_path: Path) -> None:
    """Such as S3; here it is fsspec's store in memory."""
    store = fsspec.filesystem("memory")
    store.pipe_file("/lender/in.csv", file.read_bytes())
    _score("memory://lender/in.csv", "memory://lender/out.csv")
    _score("memory://lender/in.csv", "memory://lender/parts")
    _score(file, tmp_path / "out.csv")
    assert store.cat_file("/lender/out.csv") == (tmp_path / "out.csv").read_bytes()
    header, *_ = store.cat_file("/lender/out.csv").splitlines(keepends=True)
    parts = [store.cat_file(name) for name in sorted(store.ls("/lender/parts", detail=False))]
    joined = header + b"".join(part.removeprefix(header) for part in parts)
    assert joined == store.cat_file("/lender/out.csv")
    names = {name.rpartition("/")[2] for name in store.ls("/lender", detail=False)}
    assert names == {"in.csv", "out.csv", "out.csv.faults.csv", "parts", "parts.faults.csv"}


_BAD: Final = {
    "no income": ("Loan_ID\nA\n", "does not name ApplicantIncome"),
    "misspelt": (
        "ApplicantIncome,Credit_Histroy\n1,1\n",
        "'Credit_Histroy' is not a known column; perhaps it should be Credit_History.",
    ),
    "nothing": ("", "The file is empty."),
    "no rows": ("ApplicantIncome\n", "in.csv: The file has a header and no rows."),
    "JSON": ("[1]", "This is JSON"),
    "Excel": ("PK\x03\x04 xl/", "This is an Excel file or an archive"),
    "no text": ("ApplicantIncome\n" + "10\n" * 20 + "\0\n", "not a text"),
    "half a Parquet file": ("PAR1", "The Parquet file cannot be read"),
    "broken later on": ('ApplicantIncome\n1\n"2"3\n', "The file is not a CSV file"),
}


_ON_DASK: Final = ("--engine", "dask", "--scheduler")
_VERSIONS: Final = ", ".join(sorted(path.name for path in BUNDLE_ROOT.glob("b-*")))
_OF_THE_COLUMNS: Final = ("no income", "misspelt", "nothing")
"""All files of a folder have the same, so these are said of none."""


@pytest.mark.parametrize("name", _BAD)
def test_unusable_file_is_one_sentence_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    content, sentence = _BAD[name]
    path = tmp_path / "in.csv"
    path.write_text(content)
    with pytest.raises(FileError) as refused:
        _score(path, tmp_path / "out.csv")
    assert sentence in str(refused.value)
    assert str(refused.value).startswith(str(path)) or name in _OF_THE_COLUMNS
    assert _names(tmp_path) == {"in.csv"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["absent.csv", "out.csv"], "absent.csv is not there"),
        (["in.csv", "out.csv", "--bundle", "b-00000000"], f"there are {_VERSIONS}."),
        (["in.csv", "out.csv", "--bundle", "absent/b-1"], "There is no folder absent/b-1."),
        (["in.csv", "absent/out.csv"], "There is no folder"),
        (["in.csv", "absent/out"], "There is no folder"),
        (["nosuch://in.csv", "out.csv"], "cannot be opened"),
        (["http://127.0.0.1:9/in.csv", "out.csv"], "cannot be"),
        (["in.csv", "in.csv"], "in.csv is there already"),
        (["in.csv", "out.csv", *_ON_DASK, "nonsense://h:1"], "No scheduler answers"),
    ],
)
def test_command_that_cannot_begin_says_why_in_one_line(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And starts no process, and leaves nothing behind."""
    assert sentence in _refusal(1, arguments, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "oracle"], "oracle"),
        (["--engine", "dask"], "needs --scheduler"),
        (["--scheduler", "tcp://h:1"], "--scheduler needs --engine dask"),
        ([*_ON_DASK, "tcp://h:1", "--workers", "2"], "--workers is for the local engine"),
        (["--format", "parquet"], "not to be called .csv"),
    ],
)
def test_wrong_arguments_have_an_exit_code_of_their_own(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As have those that the parser refuses."""
    given = ["in.csv", "out.csv", *arguments]
    assert sentence in _refusal(2, given, tmp_path, monkeypatch, capsys)


def _refusal(
    code: int,
    arguments: Sequence[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    monkeypatch.chdir(folder)
    (folder / "in.csv").write_text("ApplicantIncome\n1\n")
    assert main(["score", *arguments]) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert _names(folder) == {"in.csv"}
    return said


def test_command_says_how_it_read_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No rate is shown for a few rows."""
    monkeypatch.setattr(run, "on_processes", lambda work, tasks, **_: _here(work, tasks))
    path = tmp_path / "in.csv"
    path.write_text("ApplicantIncome;Branch\n5000;Zoë\n", encoding="cp1252")
    assert main(["score", str(path), str(tmp_path / "out.csv")]) == 0
    encoding, separator, copied, absent, summary, result = capsys.readouterr().out.splitlines()
    assert "Windows-1252" in encoding
    assert "semicolons" in separator
    assert copied == "Copied to the result, but not scored: Branch."
    assert absent.startswith("Missing in every row because it has no column: ")
    assert summary.startswith("1 row: 1 decided")
    assert "a second" not in summary
    assert result == f"The result is in {tmp_path / 'out.csv'}."


def test_csv_result_starts_no_formula_and_can_be_scored_again(tmp_path: Path) -> None:
    """Numbers with a sign, and the minus of a missing value, stay as they are; so does Parquet."""
    cells = ["=1+1", "@x", "-5.5", "-", "+1", "-1+cmd", None]
    table = {"Branch": cells, "=Bytes": [cell and cell.encode() for cell in cells]}
    incomes = {"ApplicantIncome": [5000] * len(cells), "LoanAmount": ["-"] * len(cells)}
    source, target = tmp_path / "in.parquet", tmp_path / "out.csv"
    parquet.write_table(pa.table(table | incomes), source)
    _score(source, target)
    with target.open() as lines:
        rows = list(csv.DictReader(lines))
    written = ["'=1+1", "'@x", "-5.5", "-", "+1", "'-1+cmd", ""]
    assert [row["Branch"] for row in rows] == [row["'=Bytes"] for row in rows] == written
    assert _score(target, tmp_path / "again.parquet").decided == len(cells)
    _score(source, tmp_path / "out.parquet")
    assert [row["Branch"] for row in _read(tmp_path / "out.parquet")] == cells


@pytest.mark.parametrize(
    ("cell", "said"),
    [(b"\xff", "has bytes that are not UTF-8"), ([1, 2], "has more than one value")],
)
def test_column_that_csv_cannot_hold_is_refused(cell: object, said: str, tmp_path: Path) -> None:
    """And nothing is left behind."""
    source = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"ApplicantIncome": [1], "Branch": pa.array([cell])}), source)
    with pytest.raises(FileError, match=f"Branch {said}"):
        _score(source, tmp_path / "out.csv")
    assert _names(tmp_path) == {"in.parquet"}


def test_bundle_is_a_version_or_a_folder(tmp_path: Path) -> None:
    """Of the product's own bundles, or of others."""
    served = read_current_version(BUNDLE_ROOT)
    assert find_bundle(None) == find_bundle(served) == (BUNDLE_ROOT, served)
    make_bundle(tmp_path, version="b-00000001", models={"only": "random_forest"})
    for name in (tmp_path, tmp_path / "b-00000001"):
        assert find_bundle(str(name)) == (tmp_path, "b-00000001")


def test_installed_command_is_this_one() -> None:
    """The name that ``pip install`` puts on the path."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    [(name, value)] = project["scripts"].items()
    assert name == "loan-predictor"
    assert EntryPoint(name, value, "console_scripts").load() is main

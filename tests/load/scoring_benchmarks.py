"""Scoring many applications: against the model's runtime alone, and the command on a large file."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from threading import Event, Thread
from typing import Final

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from services.command.sources import BATCH_ROWS
from services.scoring.columns import score
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.registry import load_bundle
from shared.contract.application import FIELDS
from tests.applications import random_application
from tests.load.measurement import Measurement, at_least, at_most, interleave, measured, ratio
from tests.load.processor import own_bytes
from tests.load.stack import Bench

_SEED: Final = 20261127
_DISTINCT: Final = 8192
_WORKERS: Final = 2
_LOOKED_EVERY_S: Final = 0.1
_BYTES_PER_MIB: Final = 2**20


def scoring(bench: Bench) -> list[Measurement]:
    """Compare columns to decisions with the runtime alone, and run the command on a file."""
    table = _table(BATCH_ROWS)
    bundle = load_bundle(BUNDLE_ROOT, None)
    # A linear model alone is one multiplication of matrices: there is nothing to compare with.
    names = [
        name
        for name, model in bundle.models.items()
        if model.scorecard is None or model is bundle.champion
    ]
    found = []
    for name in names:
        model = bundle.models[name]
        inputs = {field.name: field.name for field in FIELDS}
        rows = np.array([bundle.row_of(row) for row in table.to_pylist()], dtype=np.float32)
        results = interleave(
            bench,
            {
                "score": partial(
                    _rate,
                    bench.seconds,
                    partial(score, table, inputs, model=model, bundle=bundle),
                ),
                "runtime": partial(
                    _rate, bench.seconds, partial(model.exported_probabilities, rows)
                ),
            },
            show=lambda rate: f"{rate:,.0f}/s",
        )
        ours, alone = results["score"], results["runtime"]
        found.append(
            ratio(
                f"Scoring columns with {name}, features included, against ONNX Runtime alone",
                ours,
                alone,
                bound=at_least(0.7) if model is bundle.champion else None,
                detail=f"{median(ours):,.0f} against {median(alone):,.0f} rows/s of one processor",
            )
        )
    return [*found, *_command(bench)]


def _rate(seconds: float, run: Callable[[], object]) -> float:
    """Return the rows of ``run``, which is of one batch, for each second of processor time."""
    ends, began, times = time.perf_counter() + seconds, time.process_time(), 0
    while not times or time.perf_counter() < ends:
        run()
        times += 1
    return times * BATCH_ROWS / (time.process_time() - began)


def _command(bench: Bench) -> list[Measurement]:
    path, table = bench.folder / "applications.parquet", _table(BATCH_ROWS)
    batches = -(-bench.rows // BATCH_ROWS)
    with parquet.ParquetWriter(path, table.schema) as writer:
        for _ in range(batches):
            writer.write_table(table)
    rows = batches * BATCH_ROWS
    command = [
        *(sys.executable, "-m", "services.command", "score", str(path)),
        *(str(bench.folder / "decisions"), "--workers", str(_WORKERS)),
    ]
    began = time.perf_counter()
    # In a process of its own: what was measured before has left memory in this one.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with _peak_bytes(process.pid) as peak:
        code = process.wait()
    if code:
        raise RuntimeError(f"loan-predictor score ended with {code}")
    rate = rows / (time.perf_counter() - began)
    bench.say(f"  {rows:,} rows at {rate:,.0f}/s")
    detail = f"{rows:,} rows, {_WORKERS} processes, Parquet to Parquet, from start to end"
    return [
        measured("loan-predictor score", [rate], unit="decisions/s", bound=None, detail=detail),
        measured(
            "Memory of loan-predictor score: parent and workers, without what they share",
            [max(peak) / _BYTES_PER_MIB],
            unit="MiB",
            bound=at_most(600),
            detail=detail,
        ),
    ]


@contextmanager
def _peak_bytes(pid: int) -> Iterator[list[int]]:
    """Yield the memory of a process and its children, over and over."""
    found, ended = [own_bytes(pid)], Event()

    def look() -> None:
        while not ended.wait(_LOOKED_EVERY_S):
            found.append(own_bytes(pid))

    looking = Thread(target=look)
    looking.start()
    try:
        yield found
    finally:
        ended.set()
        looking.join()


def _table(rows: int) -> pa.Table:
    rng = random.Random(_SEED)  # noqa: S311 - test data, not a secret
    table = pa.Table.from_pylist([random_application(rng) for _ in range(_DISTINCT)])
    return pa.concat_tables([table] * (rows // _DISTINCT)).combine_chunks()

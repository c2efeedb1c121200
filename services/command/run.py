"""Runs ``loan-predictor score`` on a terminal: progress, totals, and an exit code."""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from pyarrow import ArrowException
from tqdm import tqdm

from services.command.engines import EngineError, on_dask, on_processes
from services.command.main import STOPPED, WrongArguments
from services.command.score import (
    Engine,
    Plan,
    Report,
    Totals,
    finish,
    plan_run,
    score_files,
    start,
)
from services.command.sources import Source
from services.scoring.manifest import BundleError
from shared.contract.errors import UnknownModel
from shared.files.tables import FileError

_OK: Final = 0
_SOME_FAULTY: Final = 3
_INTERRUPTED: Final = 130
_MIN_RATED: Final = 10_000
"""Of fewer decisions no rate is shown: most of the time goes to starting processes."""


def run(options: argparse.Namespace) -> int:
    """Decide on files as the command line says, and return its exit code."""
    started = time.monotonic()
    try:
        engine = _engine(options)
        plan, sources = plan_run(
            options.source,
            options.target,
            model=options.model,
            bundle=options.bundle,
            kind=options.format,
        )
        finished = start(plan, resume=options.resume)
        print("".join(f"{remark}\n" for remark in plan.remarks), end="", flush=True)
        decided = 0
        for report in _shown(plan, sources, finished, engine):
            decided += report.decided
        totals = finish(plan)
    except UnknownModel as error:
        raise WrongArguments(str(error)) from error
    except (FileError, BundleError, EngineError, OSError, ArrowException) as error:
        return _said(error, STOPPED)
    except KeyboardInterrupt:
        print("Interrupted; --resume goes on from here.", file=sys.stderr)
        return _INTERRUPTED
    rate = decided / (time.monotonic() - started) if decided >= _MIN_RATED else None
    _print_totals(plan, totals, rate)
    return _SOME_FAULTY if totals.faulty else _OK


def _said(error: Exception, code: int) -> int:
    print(" ".join(str(error).split()), file=sys.stderr)
    return code


def _engine(options: argparse.Namespace) -> Engine:
    if options.engine == "dask":
        if not options.scheduler:
            raise WrongArguments("--engine dask needs --scheduler, such as tcp://host:8786.")
        if options.workers:
            raise WrongArguments("--workers is for the local engine; the Dask cluster has its own.")
        return partial(on_dask, scheduler=options.scheduler)
    if options.scheduler:
        raise WrongArguments("--scheduler needs --engine dask.")
    return partial(on_processes, workers=options.workers or os.cpu_count() or 1)


def _shown(
    plan: Plan, sources: Sequence[Source], finished: Mapping[int, int], engine: Engine
) -> Iterator[Report]:
    """The new reports, while a bar shows how much is done."""
    is_counted = all(source.kind == "parquet" for source in sources)
    # Without a terminal there is no bar.
    with tqdm(
        total=sum(source.size for source in sources),
        initial=sum(finished.values()),
        unit=" rows" if is_counted else "B",
        unit_scale=True,
        disable=None,
    ) as bar:
        for report in score_files(plan, sources, finished, engine=engine):
            bar.update(report.size)
            yield report


def _print_totals(plan: Plan, totals: Totals, rate: float | None) -> None:
    decided, rows = totals.decided, totals.decided + totals.faulty
    share = f" ({totals.approved / decided:.1%})" if decided else ""
    speed = "" if rate is None else f"; {rate:,.0f} a second"
    print(
        f"{rows:,} row{'s' if rows != 1 else ''}: {decided:,} decided,"
        f" {totals.approved:,} approved{share},"
        f" {totals.faulty:,} faulty{speed}, by {plan.model} of {plan.bundle_version}."
    )
    print(f"The result is in {plan.target}.")
    if totals.faulty:
        print(f"The faults are in {plan.faults}.")

"""``python -m tests.load.bench``: every promise about speed, measured in one run."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from services.local.processes import CannotStart
from tests.load import (
    consumer_figures,
    decision_figures,
    history_figures,
    observation_figures,
    report,
    wrk,
)
from tests.load.figure import Figure
from tests.load.stack import Bench, open_bench
from tests.load.wrk import NotMeasured

FIGURES: Final[dict[str, Callable[[Bench], list[Figure]]]] = {
    "limit": decision_figures.against_limit,
    "tutorial": decision_figures.against_tutorial,
    "unloaded": decision_figures.unloaded,
    "batch": decision_figures.beside_batch,
    "benchmark": decision_figures.benchmark_route,
    "observation": observation_figures.observation,
    "consumer": consumer_figures.drain,
    "history": history_figures.uncached_reads,
    "cached": history_figures.cached_statistics,
    "start": decision_figures.start_and_memory,
}
_DOCUMENT: Final = Path("docs/performance.md")
_RESULTS: Final = Path(".local/bench.json")
_FOLDER: Final = Path(".local/bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 when every bound is kept, 1 when one is not, 2 when nothing was measured.

    A missed bound is measured like any other and named again below the table.
    """
    options = _options(arguments)
    names = options.figures or list(FIGURES)
    figures: list[Figure] = []
    try:
        wrk.executable()
        with open_bench(
            _FOLDER.resolve(),
            rounds=options.rounds,
            seconds=options.seconds,
            rows=options.rows,
            events=options.events,
            say=_say,
        ) as bench:
            for number, name in enumerate(names, start=1):
                _say(f"[{number}/{len(names)}] {name}")
                figures += FIGURES[name](bench)
    except (NotMeasured, CannotStart) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    measured_under = report.conditions(
        f"{options.rounds} interleaved rounds of {options.seconds:g} s,"
        f" {options.rows:,} rows, {options.events:,} events"
    )
    _say(f"\n{report.summary(figures)}\n")
    report.write_json(_RESULTS, figures, measured_under)
    if options.write:
        report.write_section(_DOCUMENT, figures, measured_under)
    missed = report.missed(figures)
    for figure in missed:
        _say(f"Missed: {figure.name} ({figure.detail})")
    return 1 if missed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load.bench", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="figure", help=", ".join(FIGURES))
    parser.add_argument("--quick", action="store_true", help="a rougher run of a few minutes")
    parser.add_argument("--rounds", type=int, help="interleaved rounds, at least 3 (5)")
    parser.add_argument("--seconds", type=float, help="of each contender and round (5)")
    parser.add_argument("--rows", type=int, help="in the large history (10000000)")
    parser.add_argument("--events", type=int, help="on the stream to drain (100000)")
    parser.add_argument("--write", action="store_true", help=f"renew the table in {_DOCUMENT}")
    options = parser.parse_args(arguments)
    defaults = (3, 2.0, 300_000, 20_000) if options.quick else (5, 5.0, 10_000_000, 100_000)
    for name, value in zip(("rounds", "seconds", "rows", "events"), defaults, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, value)
    unknown = sorted(set(options.figures) - set(FIGURES))
    if unknown:
        parser.error(f"no such figure: {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    if options.rounds < 3:
        parser.error("fewer than 3 rounds show nothing")
    return options


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.load.bench``: measures every promise about speed in one run."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from services.local.processes import CannotStart
from tests.load import (
    batch_benchmarks,
    consumer_benchmarks,
    decision_benchmarks,
    history_benchmarks,
    observation_benchmarks,
    report,
    scoring_benchmarks,
    system_benchmarks,
    wrk,
)
from tests.load.measurement import Measurement
from tests.load.stack import Bench, open_bench
from tests.load.wrk import NotMeasured

BENCHMARKS: Final[dict[str, Callable[[Bench], list[Measurement]]]] = {
    "system": system_benchmarks.whole_system,
    "memory": system_benchmarks.memory,
    "tutorial": decision_benchmarks.against_tutorial,
    "batch": batch_benchmarks.beside_batch,
    "recorded": batch_benchmarks.recorded_batch,
    "benchmark": decision_benchmarks.benchmark_route,
    "many": decision_benchmarks.many_at_once,
    "scoring": scoring_benchmarks.scoring,
    "observation": observation_benchmarks.observation,
    "consumer": consumer_benchmarks.drain,
    "history": history_benchmarks.uncached_reads,
    "cached": history_benchmarks.cached_statistics,
    "what-if": history_benchmarks.what_if,
    "start": decision_benchmarks.start_and_memory,
}
_DOCUMENT: Final = Path("docs/performance.md")
_RESULTS: Final = Path(".local/bench.json")
_FOLDER: Final = Path(".local/bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 0 if every bound is met, 1 if one is missed, 2 if nothing ran.

    Missed bounds are repeated below the table.
    """
    options = _options(arguments)
    names = options.benchmarks or list(BENCHMARKS)
    measurements: list[Measurement] = []
    try:
        wrk.executable()
        with open_bench(
            _FOLDER.resolve(),
            rounds=options.rounds,
            seconds=options.seconds,
            minutes=options.minutes,
            rows=options.rows,
            events=options.events,
            say=_say,
        ) as bench:
            for number, name in enumerate(names, start=1):
                _say(f"[{number}/{len(names)}] {name}")
                measurements += BENCHMARKS[name](bench)
    except (NotMeasured, CannotStart) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    measured_under = report.conditions(
        f"{options.rounds} interleaved rounds of {options.seconds:g} s,"
        f" {options.rows:,} rows, {options.events:,} events"
    )
    _say(f"\n{report.summary(measurements)}\n")
    report.write_json(_RESULTS, measurements, measured_under)
    if options.write:
        report.write_section(_DOCUMENT, measurements, measured_under)
    missed = report.missed(measurements)
    for measurement in missed:
        _say(f"Missed: {measurement.name} ({measurement.detail})")
    return 1 if missed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load.bench", description=__doc__)
    parser.add_argument("benchmarks", nargs="*", metavar="benchmark", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="a rougher run of a few minutes")
    parser.add_argument("--rounds", type=int, help="interleaved rounds, at least 3 (5)")
    parser.add_argument("--seconds", type=float, help="per contender and round (5)")
    parser.add_argument("--minutes", type=float, help="of observing memory; 0 leaves it out (10)")
    parser.add_argument("--rows", type=int, help="rows in the large history (10000000)")
    parser.add_argument("--events", type=int, help="events on the stream to drain (100000)")
    parser.add_argument("--write", action="store_true", help=f"update the table in {_DOCUMENT}")
    options = parser.parse_args(arguments)
    quick = {"rounds": 3, "seconds": 2.0, "minutes": 0.0, "rows": 300_000, "events": 20_000}
    full = {"rounds": 5, "seconds": 5.0, "minutes": 10.0, "rows": 10**7, "events": 100_000}
    for name, value in (quick if options.quick else full).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    unknown = sorted(set(options.benchmarks) - set(BENCHMARKS))
    if unknown:
        parser.error(
            f"no such benchmark: {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}"
        )
    if options.rounds < 3:
        parser.error("at least 3 rounds are needed")
    return options


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

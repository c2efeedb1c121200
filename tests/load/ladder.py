"""``python -m tests.load.ladder``: raises the load on a running system until it falls behind."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from services.local.processes import CannotStart
from shared.settings import UnusableSettings
from tests.load.load import (
    add_common_options,
    expect_product,
    load,
    own_ceiling,
    plan_of,
    say_ceiling,
)
from tests.load.results import Summary

_KEPT_UP: Final = 0.95
"""Share of the scheduled rate that must be answered for a rung to hold."""

_MAX_RUNGS: Final = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each rung and the knee, the last rate that held; return 1 if the first did not hold."""
    knee: float | None = None
    try:
        options = _options(arguments)
        plan = plan_of(options, wants_ids=False)
        expect_product(options, "inference")
        ceiling = own_ceiling(plan)
        say_ceiling(ceiling, rate=options.start)
        print(f"{'rate':>8}  {'answered/s':>10}  {'p50 ms':>8}  {'p99 ms':>8}  errors")
        for rate in rungs(options.start, options.step):
            if rate > ceiling:
                print("The next rung is above this tool's own ceiling.")
                break
            summary = load(plan, rate=rate, seconds=options.seconds, show=False).summary
            print(_line(rate, summary))
            if not holds(summary, rate=rate, p99_ms=options.p99_ms):
                break
            knee = rate
    except (CannotStart, UnusableSettings) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if knee is None:
        print("The first rung did not hold; start lower.")
        return 1
    print(f"The knee is at {knee:,.0f} requests a second.")
    return 0


def rungs(start: float, step: float) -> list[float]:
    """Return the rates to try, each ``step`` times the previous one."""
    return [start * step**number for number in range(_MAX_RUNGS)]


def holds(summary: Summary, *, rate: float, p99_ms: float) -> bool:
    """Whether the system kept up: no error, nearly the full rate, and p99 within its bound."""
    return (
        not summary.errors
        and summary.rate >= rate * _KEPT_UP
        and summary.latency_ms["p99"] <= p99_ms
    )


def _line(rate: float, summary: Summary) -> str:
    p50, p99 = (f"{summary.latency_ms.get(rank, float('nan')):,.1f}" for rank in ("p50", "p99"))
    errors = ", ".join(f"{count:,} {kind}" for kind, count in summary.errors.items()) or "none"
    return f"{rate:>8,.0f}  {summary.rate:>10,.0f}  {p50:>8}  {p99:>8}  {errors}"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load.ladder", description=__doc__)
    add_common_options(parser)
    parser.add_argument("--start", type=float, default=100.0, help="the first rate")
    parser.add_argument("--step", type=float, default=1.4, help="factor from rung to rung")
    parser.add_argument("--seconds", type=float, default=5.0, help="per rung")
    parser.add_argument(
        "--p99-ms", type=float, default=100.0, help="highest p99 of a rung that holds"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.chaos.chaos``: injects each fault under load and checks the record after it."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.local.processes import CannotStart
from tests.chaos import table
from tests.chaos.faults import NoEffect
from tests.chaos.scenario import Outcome, Pace, Scenario, run
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.stage import open_stage
from tests.load import report
from tests.load.proof import NotProved

LIVEZ_LIMIT_MS: Final = 100.0
ENOUGH: Final = 50_000
"""Acknowledged decisions that a full run must reach."""

MADE_BY: Final = "make chaos"
_DOCUMENT: Final = Path("docs/faults.md")
_FOLDER: Final = Path(".local/chaos")
_PROCESSES: Final = 2
_BEFORE_S: Final = 2.0
_AFTER_S: Final = 6.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 0 if everything holds, 1 if not, 2 if it cannot be determined."""
    options = _options(arguments)
    # However the run ends, everything must be stopped and unmounted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names: list[str] = options.faults or list(SCENARIOS)
    pace = Pace(
        rate=options.rate,
        processes=_PROCESSES,
        before_s=_BEFORE_S,
        away_s=options.away,
        after_s=_AFTER_S,
        whole=True,
    )
    folder = (_FOLDER / "stage").resolve()
    outcomes: list[Outcome] = []
    complaints: list[str] = []
    try:
        with open_stage(folder, say=lambda _: None) as stage:
            for number, name in enumerate(names, start=1):
                scenario = SCENARIOS[name]
                _say(f"[{number}/{len(names)}] {scenario.name}, {pace.away_for(scenario):g} s")
                outcome = run(scenario, stage, pace, show=True)
                outcomes.append(outcome)
                found = [*outcome.complaints, *unkept(outcome, scenario)]
                complaints += (f"{scenario.name}: {each}" for each in found)
                _say("\n".join(f"  NO: {each}" for each in found) or "  adds up")
    except (CannotStart, NotProved, NoEffect) as error:
        print(f"{error}\nThe logs are in {folder}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    complaints += too_few(outcomes) if not options.faults else []
    _report(outcomes, pace, write=options.write)
    for complaint in complaints:
        _say(f"NOT KEPT: {complaint}")
    return 1 if complaints else 0


def unkept(outcome: Outcome, scenario: Scenario) -> list[str]:
    """Return complaints that do not depend on the speed of a reasonable machine."""
    found = []
    if outcome.refused and scenario.refuses is False:
        found.append(f"{outcome.refused} decisions were refused")
    if outcome.livez_p99_ms >= LIVEZ_LIMIT_MS:
        found.append(
            f"p99 of /livez is {outcome.livez_p99_ms:,.0f} ms"
            f" (idle service: {outcome.idle_p99_ms:,.0f} ms)"
        )
    limit_s = scenario.stored_within_s
    if limit_s is not None and (outcome.stored_after_s or 0) > limit_s:
        found.append(f"a decision waited {outcome.stored_after_s:,.1f} s to be stored")
    return found


def too_few(outcomes: Sequence[Outcome]) -> list[str]:
    """Complain if too few decisions were acknowledged to prove anything."""
    acknowledged = sum(outcome.acknowledged for outcome in outcomes)
    if acknowledged >= ENOUGH:
        return []
    return [f"only {acknowledged:,} decisions were acknowledged; {ENOUGH:,} are needed"]


def _report(outcomes: Sequence[Outcome], pace: Pace, *, write: bool) -> None:
    measured_under = report.conditions(
        f"{pace.rate:g} requests a second, {pace.before_s:g} s before each fault,"
        f" {pace.away_s:g} s during and {pace.after_s:g} s after it unless stated otherwise"
    )
    _say(f"\n{table.summary(outcomes)}\n")
    for path in table.write(_FOLDER, outcomes, measured_under):
        _say(f"Kept in {path}.")
    if write:
        section = table.markdown(outcomes, measured_under)
        report.replace_section(_DOCUMENT, section, made_by=MADE_BY)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.chaos", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="fault", help=", ".join(SCENARIOS))
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--away", type=float, default=6.0, help="duration of a fault in seconds")
    parser.add_argument("--write", action="store_true", help=f"update the table in {_DOCUMENT}")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.faults) - set(SCENARIOS))
    if unknown:
        parser.error(f"no such fault: {', '.join(unknown)}; choose from {', '.join(SCENARIOS)}")
    if options.write and options.faults:
        parser.error("the documented table needs all faults")
    return options


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

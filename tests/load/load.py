"""``python -m tests.load.load``: puts a steady load on a running system and reports the outcome."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from loan_predictor_client import CallFailed, LoanPredictorClient, RetryPolicy
from loan_predictor_client.calls import Service
from services.local.components import service_url
from services.local.processes import CannotStart
from services.local.settings import LocalSettings
from shared.contract.application import EXAMPLE
from shared.settings import UnusableSettings, read_settings
from tests.load import picture, proof, results, sender, stack
from tests.load.results import Results, Summary, summarise
from tests.load.schedule import Schedule
from tests.load.sender import Plan

_SAFE_SHARE: Final = 0.7
"""Above this share of its own ceiling, the tool measures itself too."""

_OVERRUN_S: Final = 2.0
_DRAINED_WITHIN_S: Final = 60.0
_CLOCK_SLACK: Final = timedelta(seconds=5)


@dataclass(frozen=True)
class Loaded:
    """A finished load run."""

    schedule: Schedule
    results: Results
    summary: Summary
    began_at: datetime


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the system, then show and keep the outcome.

    Returns 1 if nothing was answered or the proof fails, 2 if the outcome cannot be determined.
    """
    try:
        options = _options(arguments)
        plan = plan_of(options, wants_ids=options.prove)
        expect_product(options, "inference")
        if options.prove:
            expect_product(options, "history")
        say_ceiling(own_ceiling(plan), rate=options.rate)
        loaded = load(plan, rate=options.rate, seconds=options.seconds)
        print(results.describe(loaded.summary))
        proved = None
        if options.prove:
            proved = proof.prove(
                loaded.results.ids,
                history_url=options.history_url,
                key=plan.key,
                since=loaded.began_at - _CLOCK_SLACK,
                drained_within_s=options.drained_within,
            )
            print(proof.describe(proved))
    except (proof.NotProved, CannotStart, UnusableSettings) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    _keep(options.folder, loaded, plan, rate=options.rate, proved=proved)
    return 0 if loaded.summary.answered and (proved is None or proved.holds) else 1


def load(plan: Plan, *, rate: float, seconds: float, show: bool = True) -> Loaded:
    """Load the system for ``seconds`` and summarise."""
    began_at = datetime.now(UTC)
    schedule, found = sender.run(plan, rate=rate, duration_s=seconds, show=show)
    summary = summarise(found, scheduled=schedule.requests, starts_at_s=schedule.starts_at_s)
    return Loaded(schedule, found, summary, began_at)


def own_ceiling(plan: Plan) -> float:
    """Measure the requests per second that these processes can send to an empty local route."""
    with (
        tempfile.TemporaryDirectory(prefix="loan-load-") as folder,
        stack.baseline("empty", Path(folder)) as empty,
    ):
        return sender.ceiling(replace(plan, url=empty.url, overrun_s=0.0, wants_ids=False))


def say_ceiling(ceiling: float, *, rate: float) -> None:
    """Print the tool's ceiling, and a warning if the requested rate is too close to it."""
    print(f"This tool's own ceiling here is {ceiling:,.0f} requests a second.")
    if rate > ceiling * _SAFE_SHARE:
        print(
            f"At {rate:,.0f} a second the tool itself adds to the times below: "
            f"stay under {ceiling * _SAFE_SHARE:,.0f}, or use more processes on more cores."
        )


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for where to send, by default to ``make run``, and from how many processes.

    Raises ``UnusableSettings`` if the settings of ``make run`` are.
    """
    run = read_settings(LocalSettings)
    url, history_url = (
        service_url(run.local_host, port) for port in (run.inference_port, run.history_port)
    )
    key = run.key_file.read_text().strip() if run.key_file.exists() else None
    parser.add_argument("--url", default=url, help="the inference service")
    parser.add_argument("--history-url", default=history_url, help="the history service")
    parser.add_argument("--key", default=key, help=f"API key (the one in {run.key_file})")
    parser.add_argument("--folder", type=Path, default=run.local_data / "load", help="of outcomes")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--in-flight", type=int, default=64, help="open requests per process")


def plan_of(options: argparse.Namespace, *, wants_ids: bool) -> Plan:
    """Build the plan from the options, with a new seed so that no application repeats."""
    return Plan(
        url=options.url.rstrip("/") + "/predict",
        key=options.key,
        processes=options.processes,
        in_flight=options.in_flight,
        overrun_s=_OVERRUN_S,
        wants_ids=wants_ids,
        seed=time.time_ns(),
    )


def expect_product(options: argparse.Namespace, service: Service) -> None:
    """Return if ``service`` answers as this product's, to this key; raises ``CannotStart``."""
    address = options.url if service == "inference" else options.history_url
    with LoanPredictorClient(
        options.url,
        options.history_url if options.history_url != options.url else None,
        api_key=options.key,
        retry_policy=RetryPolicy(attempts=1),
    ) as client:
        try:
            answered = client.health(service).service
            if answered != service:
                raise CannotStart(f"{address} is this product's {answered}, not its {service}.")
            if service == "inference":
                client.validate(EXAMPLE)
        except CallFailed as error:
            raise CannotStart(f"{address} does not answer as this product: {error}") from error


def _keep(
    folder: Path, loaded: Loaded, plan: Plan, *, rate: float, proved: proof.Proof | None
) -> None:
    """Write the outcome and its picture, named after the moment the run began."""
    path = folder / f"{loaded.began_at:%Y%m%dT%H%M%SZ}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "began_at": loaded.began_at.isoformat(),
        "url": plan.url,
        "rate": rate,
        "seconds": loaded.schedule.duration_s,
        "processes": plan.processes,
        "summary": asdict(loaded.summary),
        "proof": None if proved is None else asdict(proved),
    }
    path.write_text(json.dumps(kept, indent=2) + "\n")
    title = f"{rate:,.0f} scheduled requests a second, {loaded.began_at:%Y-%m-%d %H:%M} UTC"
    image = path.with_suffix(".svg")
    picture.draw(image, loaded.results, starts_at_s=loaded.schedule.starts_at_s, title=title)
    print(f"Kept in {path} and {image}.")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load.load", description=__doc__)
    add_common_options(parser)
    parser.add_argument("--rate", type=float, default=200.0, help="total requests a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument(
        "--prove", action="store_true", help="check that the history has each decision exactly once"
    )
    parser.add_argument(
        "--drained-within", type=float, default=_DRAINED_WITHIN_S, help="seconds, for --prove"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

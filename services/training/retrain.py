"""Train again with recorded outcomes, and hold the candidate to the gate; promote nothing."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx

from services.scoring.manifest import bundle_folder
from services.training.applications import read_applications
from services.training.gate import (
    RULES_FILE,
    Gate,
    GateError,
    judge,
    passes,
    read_rules,
    write_result,
)
from services.training.main import NOT_TRAINED, add_arguments, chosen_models
from services.training.measures import measure
from services.training.models import ModelsError
from services.training.recorded import METHOD, export_lines, read_recorded, with_recorded
from services.training.train import train

REFUSED: Final = 3
"""The exit code if the gate refuses the candidate."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if the candidate passes, ``REFUSED`` if not, 1 with a reason if there is none."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.rules = read_rules(options.gate)
        options.models = chosen_models(options.models_file, options.models)
    except (ModelsError, GateError) as error:
        parser.error(str(error))
    try:
        gate = retrain(options)
    except NOT_TRAINED as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, ValueError, httpx.HTTPError) as error:
        print(f"The candidate cannot be made: {error}", file=sys.stderr)
        return 1
    print(*gate.lines(), sep="\n")
    print(f"Nothing was changed in {options.serving}.")
    return 0 if gate.passed else REFUSED


def retrain(options: argparse.Namespace) -> Gate:
    """Make a candidate of the file and the recorded applications, and write the gate's result."""
    print(f"Reading {options.data} and {options.records}.", flush=True)
    file = read_applications(options.data, target=options.target)
    with export_lines(options.records, key=os.environ.get("API_KEY")) as lines:
        recorded = read_recorded(
            lines,
            known=(application["Loan_ID"] for application in file.applications),
            now=datetime.now(UTC),
        )
    data = with_recorded(file, recorded)
    served = bundle_folder(options.serving, None)
    published = train(data, options.output, models=options.models)
    measures = measure(
        data,
        published.out_of_fold,
        candidate=published.folder,
        served=served,
    )
    findings = judge(options.rules, measures)
    gate = Gate(
        candidate=published.manifest.version,
        served=served.name,
        passed=passes(findings),
        file_rows=len(file.applications),
        recorded_rows=data.recorded,
        left_out=dict(recorded.left_out),
        method=METHOD,
        findings=findings,
    )
    print(f"Wrote {write_result(gate, published.folder)}.")
    return gate


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.training.retrain",
        description="Train with recorded outcomes, and compare the candidate with what is served.",
    )
    add_arguments(parser)
    parser.add_argument(
        "--records",
        required=True,
        help="recorded applications: an NDJSON export of the history, or the address of its service"
        " (with the key in API_KEY)",
    )
    parser.add_argument(
        "--gate",
        type=Path,
        default=RULES_FILE,
        help="TOML file of the gate's rules (the product's)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Train again with recorded outcomes, and hold the candidate to the gate; promote nothing."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx

from services.scoring.manifest import MODEL_CARD_FILE, bundle_folder
from services.scoring.store import write_file
from services.training import publishing
from services.training.applications import read_applications
from services.training.comparison import nothing_new
from services.training.gate import (
    RULES_FILE,
    Gate,
    GateError,
    judge,
    passes,
    read_rules,
)
from services.training.main import NOT_TRAINED, add_arguments, chosen_models
from services.training.measures import measure
from services.training.models import ModelsError
from services.training.recorded import METHOD, export_lines, read_recorded, with_recorded
from services.training.train import Published, train, with_card

REFUSED: Final = 3
"""The exit code if the gate refuses the candidate."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if the candidate passes or is the served bundle, ``REFUSED`` if it does not pass.

    And 1 with a reason if there is no candidate.
    """
    options = _parser().parse_args(arguments)
    try:
        gate = retrain(options)
    except (*NOT_TRAINED, ModelsError, GateError) as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, ValueError, httpx.HTTPError) as error:
        print(f"The candidate cannot be made: {error}", file=sys.stderr)
        return 1
    if gate is not None:
        print(*gate.lines(), sep="\n")
    print(f"Nothing was changed in {options.serving}.")
    return 0 if gate is None or gate.passed else REFUSED


def retrain(options: argparse.Namespace) -> Gate | None:
    """Make a candidate of the file and the recorded applications, and write it with its gate.

    Without a gate, and without writing anything, if the candidate is the bundle that is served.
    """
    rules = read_rules(options.gate)
    models = chosen_models(options.models_file, options.models)
    print(f"Reading {options.data} and {options.records}.", flush=True)
    file = read_applications(options.data, target=options.target)
    with export_lines(options.records, key=os.environ.get("API_KEY")) as lines:
        recorded = read_recorded(
            lines,
            known=(application["Loan_ID"] for application in file.applications),
            now=datetime.now(UTC),
        )
    served = bundle_folder(options.serving, None)
    options.output.mkdir(parents=True, exist_ok=True)
    # Judged before it is written, because its card and its manifest have the gate's result.
    with TemporaryDirectory(prefix=".retrained-", dir=options.output) as unfinished:
        data = with_recorded(file, recorded)
        published = train(data, Path(unfinished), models=models)
        if published.manifest.version == served.name:
            print(nothing_new(served.name))
            return None
        measures = measure(data, published.out_of_fold, candidate=published.folder, served=served)
        findings = judge(rules, measures)
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
        _publish(published, gate, options.output)
    return gate


def _publish(published: Published, gate: Gate, output: Path) -> None:
    """Write the candidate with the gate's result in it, and beside it as a file of its own."""
    version = published.manifest.version
    if publishing.find_published(output, version) is None:
        judged = published.manifest.model_copy(update={"gate": gate.model_dump(mode="json")})
        manifest, card = with_card(judged, judged.timings)
        files = {name: (published.folder / name).read_bytes() for name in manifest.files}
        publishing.publish(output, manifest, {**files, MODEL_CARD_FILE: card})
    path = output / f"{version}.gate.json"
    write_file(path, gate.model_dump_json(indent=2).encode() + b"\n")
    print(f"Written to {output / version}; the gate's result is in {path}.")


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

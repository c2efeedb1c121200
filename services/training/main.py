"""Train a bundle from a file, compare it with the one that is served, and promote it if asked."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from services.scoring.manifest import BUNDLE_ROOT, BundleError
from services.scoring.registry import load_bundle
from services.training import publishing
from services.training.applications import DataError, LabelledApplications, read_applications
from services.training.comparison import comparison, nothing_new
from services.training.directions import AgainstDirection
from services.training.export import ParityError
from services.training.models import MODELS_FILE, Model, ModelsError, read_models
from services.training.train import Published, train
from services.training.unknowns import HidingPays
from shared.files.applications import OUTCOME

DEFAULT_OUTPUT: Final = Path(".local/bundles")
"""Outside the tracked tree: a bundle that was only trained decides nothing."""

NOT_TRAINED: Final = (DataError, ParityError, HidingPays, AgainstDirection, BundleError)
"""What ends a training with the sentence that it says."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line; return 0 if a bundle is written, 1 with a reason if not."""
    parser = _parser()
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        models = chosen_models(options.models_file, options.models)
    except ModelsError as error:
        parser.error(str(error))
    try:
        print(f"Reading {options.data}.", flush=True)
        data = read_applications(options.data, target=options.target)
        published = train(data, options.output, models=models)
        compared = _compared(data, published, options.serving)
    except NOT_TRAINED as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The bundle cannot be written to {options.output}: {error}", file=sys.stderr)
        return 1
    print(published.manifest.champion_reason)
    print(compared)
    if published.is_new:
        print(f"Written to {published.folder} in {time.monotonic() - started:.0f} s.")
    else:
        print(f"{published.folder} was written before and is identical; nothing was changed.")
    version = published.manifest.version
    if options.promote:
        try:
            publishing.promote(published.folder, options.serving)
        except (BundleError, OSError) as error:
            print(f"{options.serving} serves what it served before: {error}", file=sys.stderr)
            return 1
        print(f"{options.serving} now serves {version}.")
    elif compared == nothing_new(version):
        print(f"Nothing was changed in {options.serving}.")
    else:
        print(
            f"Nothing was changed in {options.serving}. To try the candidate, set"
            f" BUNDLE_ROOT={options.output.resolve()} BUNDLE_VERSION={version};"
            " to serve it, train with PROMOTE=1."
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.training", description="Train a bundle of models from a file."
    )
    add_arguments(parser)
    parser.add_argument(
        "--promote", action="store_true", help="make the bundle the one that is served"
    )
    return parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every training needs: data, models, and where bundles are."""
    parser.add_argument("data", type=Path, help="labelled applications (CSV, Excel or Parquet)")
    parser.add_argument(
        "--target", default=OUTCOME, help="the column that says what was decided (%(default)s)"
    )
    parser.add_argument(
        "--models-file",
        type=Path,
        default=MODELS_FILE,
        help="TOML file of the models that there are (the product's)",
    )
    parser.add_argument("--models", default="", help="those to train, by commas (all)")
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, help="folder of candidates (%(default)s)"
    )
    parser.add_argument(
        "--serving", type=Path, default=BUNDLE_ROOT, help="folder of served bundles (the product's)"
    )


def chosen_models(file: Path, names: str) -> Mapping[str, Model]:
    """Return those of the models in ``file`` that ``names`` has, by commas, or all of them.

    Raises ``ModelsError``.
    """
    models = read_models(file)
    chosen = names.replace(",", " ").split() or list(models)
    if unknown := [name for name in chosen if name not in models]:
        raise ModelsError(f"{' '.join(unknown)} is none of {', '.join(models)}")
    return {name: model for name, model in models.items() if name in chosen}


def _compared(data: LabelledApplications, published: Published, serving: Path) -> str:
    candidate = load_bundle(published.folder.parent, published.manifest.version)
    try:
        served = load_bundle(serving, None)
    except BundleError as error:
        return f"There is no bundle to compare with. {error}"
    return comparison(data, published.out_of_fold, candidate, served)

"""The command line of the product: ``loan-predictor score IN OUT``."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from shared.version import VERSION

STOPPED: Final = 1

_SCORE: Final = """\
Decide on every application in a file or a folder of files, CSV or Parquet, here or in a store such
as s3://bucket/folder. Nothing is recorded: this is for what-ifs and for scoring a portfolio again.

The result has the columns of the file and those of the decision, one row for each application that
is decided, in order. Faulty rows are named with all their faults in OUT.faults.csv. While a run is
not finished there is a folder OUT.progress.
"""
_EXIT_CODES: Final = """\
exit codes: 0 every row is decided; 1 stopped, one sentence says why; 2 wrong arguments;
3 finished, but some rows are faulty; 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        from services.command.run import run  # noqa: PLC0415 - needs what is in an extra
    except ImportError as error:
        print(
            f"This command needs the extra 'command' of this product: {error.name} is missing.",
            file=sys.stderr,
        )
        return STOPPED
    return run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="loan-predictor", description="Loan decisions on files.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    score = commands.add_parser(
        "score",
        help="decide on the applications in files",
        description=_SCORE,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument("source", metavar="IN", help="a file of applications, or a folder of them")
    score.add_argument(
        "target",
        metavar="OUT",
        help="the file to write: .csv or .parquet; any other name is a folder of parts",
    )
    score.add_argument("--model", help="the model that decides (the bundle's champion)")
    score.add_argument("--bundle", help="a version, or a folder of a bundle (what is served)")
    score.add_argument(
        "--format", choices=("csv", "parquet"), help="of the result (by its name, or like IN)"
    )
    score.add_argument(
        "--resume", action="store_true", help="go on with a run to OUT that was cut off"
    )
    score.add_argument(
        "--engine", choices=("local", "dask"), default="local", help="who works (%(default)s)"
    )
    score.add_argument("--workers", type=_count, help="processes of the local engine (all cores)")
    score.add_argument("--scheduler", help="address of the Dask cluster, such as tcp://host:8786")
    return parser


def _count(value: str) -> int:
    if not value.isdigit() or int(value) == 0:
        raise argparse.ArgumentTypeError(f"{value} is not a number of processes")
    return int(value)

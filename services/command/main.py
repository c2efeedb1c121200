"""The command line: ``loan-predictor score``, ``bundle``, ``rollout`` and ``what-if``."""

import argparse
import importlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from shared.contract.rollout import SHARES
from shared.contract.swaps import Costs
from shared.pipes import ends_with_its_reader
from shared.version import VERSION

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

STOPPED: Final = 1
_WRONG_ARGUMENTS: Final = 2
_UNREAD: Final = 141
"""As a shell reports a process that SIGPIPE ended."""

_SCORE: Final = """\
Decide on every application in a file or a folder of files, CSV or Parquet, here or in a store such
as s3://bucket/folder. Nothing is recorded: this is for what-ifs and for scoring a portfolio again.
The bundle that ships decides, whatever is rolled out, unless --bundle names another.

The result has the columns of the file and those of the decision, one row for each application that
is decided, in order. Faulty rows are named with all their faults in OUT.faults.csv. While a run is
not finished there is a folder OUT.progress.
"""
_SERVICE: Final = """\
The history service, or a gateway that serves it, is at HISTORY_URL (http://127.0.0.1:8001), and
API_KEY needs the scope admin.

exit codes: 0 done; 1 refused or failed, one sentence says why; 2 wrong arguments
"""
_AS_WRITTEN: Final = argparse.RawDescriptionHelpFormatter
_EXIT_CODES: Final = """\
exit codes: 0 every row is decided; 1 stopped, one sentence says why; 2 wrong arguments;
3 finished, but some rows are faulty; 130 interrupted
"""


class WrongArguments(Exception):
    """The command line contradicts itself; the message is one sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        # What decides on files needs what is in an extra.
        module = importlib.import_module(f"services.command.{options.module}")
    except ImportError as error:
        print(
            f"This command needs the extra 'command' of this product: {error.name} is missing.",
            file=sys.stderr,
        )
        return STOPPED
    try:
        with ends_with_its_reader(_UNREAD):
            code: int = module.run(options)
    except WrongArguments as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return _WRONG_ARGUMENTS
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="loan-predictor", description="Loan decisions on files, and which models decide."
    )
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    score = commands.add_parser(
        "score",
        help="decide on the applications in files",
        description=_SCORE,
        epilog=_EXIT_CODES,
        formatter_class=_AS_WRITTEN,
    )
    score.add_argument("source", metavar="IN", help="a file of applications, or a folder of them")
    score.add_argument(
        "target",
        metavar="OUT",
        help="the file to write: .csv or .parquet; any other name is a folder of parts",
    )
    score.add_argument("--model", help="the model that decides (the bundle's champion)")
    score.add_argument(
        "--bundle",
        help="a version, or a folder of a bundle (the one that ships, whatever is rolled out)",
    )
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
    score.set_defaults(module="run")
    _add_bundle(commands)
    _add_rollout(commands)
    _add_what_if(commands)
    return parser


def _add_bundle(commands: "Commands") -> None:
    bundle = commands.add_parser(
        "bundle", help="the registry of bundles", epilog=_SERVICE, formatter_class=_AS_WRITTEN
    )
    bundle.set_defaults(module="administration", room="bundle")
    actions = bundle.add_subparsers(required=True, metavar="ACTION", dest="action")
    actions.add_parser("list", help="all bundles, with who published them and what uses them")
    publish = actions.add_parser("publish", help="verify a bundle and put it into the store")
    publish.add_argument("folder", type=Path, help="the folder of the bundle")
    for name, text in (
        ("show", "one bundle: what was measured, and its card"),
        ("verify", "read every file in the store again, and compare the checksums"),
    ):
        actions.add_parser(name, help=text).add_argument("version")
    compare = actions.add_parser("compare", help="two bundles by what was measured in training")
    compare.add_argument("of")
    compare.add_argument("with_", metavar="with")
    retire = actions.add_parser("retire", help="keep a bundle from deciding anything new")
    retire.add_argument("version")
    retire.add_argument("--reason", required=True)


def _add_rollout(commands: "Commands") -> None:
    rollout = commands.add_parser(
        "rollout", help="which models decide", epilog=_SERVICE, formatter_class=_AS_WRITTEN
    )
    rollout.set_defaults(module="administration", room="rollout")
    actions = rollout.add_subparsers(required=True, metavar="ACTION", dest="action")
    actions.add_parser("show", help="what is in force, what waits, and the replicas")
    report = actions.add_parser("report", help="the two arms of an experiment side by side")
    report.add_argument("experiment", nargs="?", help="such as x13 (the last one)")
    change = actions.add_parser("set", help="say what decides")
    arm = "a bundle's version (then its champion), or version/model"
    change.add_argument("--default", required=True, metavar="ARM", help=arm)
    change.add_argument("--candidate", metavar="ARM", help=f"what meets a share; {arm}")
    change.add_argument("--share", type=_share, metavar="PERCENT", help="of the candidate")
    change.add_argument(
        "--shadow", action="append", default=[], metavar="ARM", help="scores, decides nothing"
    )
    approve = actions.add_parser("approve", help="approve what another key proposed")
    approve.add_argument("epoch", type=int)
    promote = actions.add_parser("promote", help="have the candidate decide everything")
    rollback = actions.add_parser(
        "rollback", help="take the candidate's share away; without one, go back to the former"
    )
    for each in (change, promote, rollback):
        each.add_argument("--reason", required=True)
        each.add_argument(
            "--epoch",
            type=int,
            help="the newest one you have seen; the change is refused if it"
            " is not the newest any more (the newest there is)",
        )


def _add_what_if(commands: "Commands") -> None:
    what_if = commands.add_parser(
        "what-if",
        help="who of a period would be decided otherwise by another rule",
        epilog=_SERVICE,
        formatter_class=_AS_WRITTEN,
    )
    what_if.set_defaults(module="administration", room="what-if")
    actions = what_if.add_subparsers(required=True, metavar="ACTION", dest="action")
    ask = actions.add_parser("ask", help="have a period decided again; nothing on record changes")
    arm = "a bundle's version (then its champion), or version/model"
    ask.add_argument("--arm", metavar="ARM", help=f"the model (the recorded probabilities); {arm}")
    ask.add_argument("--threshold", type=_number, metavar="P", help="approved from there on")
    ask.add_argument(
        "--refer",
        type=_number,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="a person decides in between",
    )
    ask.add_argument("--since", metavar="DAY", help="the first UTC day, such as 2026-01-31")
    ask.add_argument("--until", metavar="DAY", help="the UTC day after the last one")
    ask.add_argument("--decided-by", metavar="ARM", help="only the decisions of this model")
    ask.add_argument(
        "--cost",
        type=_cost,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of a decision, such as approved_bad=900; a gain is negative",
    )
    show = actions.add_parser("show", help="how far one is, and what it found")
    cancel = actions.add_parser("cancel", help="end one that has not ended")
    actions.add_parser("list", help="the newest ones")
    for each in (ask, show):
        each.add_argument("--wait", action="store_true", help="until it has ended")
    for each in (show, cancel):
        each.add_argument("id")


def _cost(value: str) -> tuple[str, float]:
    name, _, amount = value.partition("=")
    if name not in Costs.model_fields:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(Costs.model_fields)}")
    return name, _number(amount)


def _number(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{value} is not a finite number")
    return number


def _share(value: str) -> int:
    """Hundredths of a percent."""
    try:
        share = round(100 * float(value.removesuffix("%")))
    except (ValueError, OverflowError):
        share = 0
    if not 1 <= share <= SHARES:
        raise argparse.ArgumentTypeError(f"{value} is not a percentage from 0.01 to 100")
    return share


def _count(value: str) -> int:
    if not value.isdigit() or int(value) == 0:
        raise argparse.ArgumentTypeError(f"{value} is not a number of processes")
    return int(value)

"""``python -m tests.load.flame``: draws where a process of the whole system spends its time."""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.local.processes import CannotStart
from tests.load import stack, wrk
from tests.load.decision_benchmarks import LOADED, applications_to
from tests.load.stack import open_bench
from tests.load.wrk import NotMeasured

_FOLDER: Final = Path(".local/bench")
_PICTURE: Final = Path(".local/flame.svg")
_SAMPLES_PER_S: Final = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the whole system and draw the stacks of one process, as a flame graph.

    Return 0, or 2 with a reason if that is impossible.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.load.flame", description=__doc__)
    parser.add_argument("--process", choices=("inference", "consumer"), default="inference")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--to", type=Path, default=_PICTURE, help=f"the picture ({_PICTURE})")
    options = parser.parse_args(arguments)
    options.to.parent.mkdir(parents=True, exist_ok=True)
    try:
        wrk.executable()
        with (
            open_bench(_FOLDER.resolve(), seconds=options.seconds) as bench,
            stack.whole_system(bench, database="flame") as system,
        ):
            route = applications_to(bench, system.inference_url, "/predict")
            pid = system.pids[options.process]
            recording = _record(pid, seconds=options.seconds, to=options.to)
            measured = route.run(connections=LOADED, seconds=options.seconds + 1)
            if recording.wait() != 0:
                raise NotMeasured("py-spy was denied access; on some systems it needs root.")
    except (NotMeasured, CannotStart) as error:
        print(error, file=sys.stderr)
        return 2
    title = f"{options.process}, {measured.rate:,.0f} decisions a second while recorded"
    _name(options.to, title)
    print(f"{options.to}: {title}")
    return 0


def _name(picture: Path, title: str) -> None:
    """Replace py-spy's title, which is the command with the machine's paths."""
    text = re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\g<1>{title}", picture.read_text())
    picture.write_text(text)


def _record(pid: int, *, seconds: float, to: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            *(str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid)),
            *("--rate", str(_SAMPLES_PER_S), "--duration", f"{seconds:.0f}"),
            *("--function", "--format", "flamegraph", "--output", str(to)),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

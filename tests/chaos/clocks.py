"""Inference services on hosts whose clocks are wrong."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import httpx

from services.local import components
from tests.chaos.faults import NoEffect
from tests.chaos.stage import Stage
from tests.harness import HOST, free_port

_OFF_BY_S: Final = {"an-hour-ahead": 3600, "an-hour-behind": -3600}
_CLOCK: Final = Path(__file__).parent / "clock"
_SLACK_S: Final = 60


@contextmanager
def clocks_off(stage: Stage) -> Iterator[Sequence[str]]:
    """Yield the addresses of three services: one ahead, one behind, and one on time.

    Raises ``NoEffect`` if a clock is not off.
    """
    path = os.pathsep.join([str(_CLOCK), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    off: dict[str, int] = {}
    with ExitStack() as stack:
        processes = []
        for name, off_by_s in _OFF_BY_S.items():
            env = {**stage.system.environment, "PYTHONPATH": path, "CLOCK_OFF_BY_S": str(off_by_s)}
            port = free_port()
            process = components.inference(env, host=HOST, port=port, logs=stage.folder / name)
            stack.callback(process.stop)
            process.spawn()
            processes.append(process)
            off[f"http://{HOST}:{port}"] = off_by_s
        for process in processes:
            process.wait_ready()
        for url, off_by_s in off.items():
            _check(url, off_by_s)
        yield [stage.system.inference_url, *off]


def _check(url: str, off_by_s: int) -> None:
    """Check the time in the service's answers."""
    shown = parsedate_to_datetime(httpx.get(f"{url}/livez", timeout=5).headers["date"])
    if abs(shown.timestamp() - time.time() - off_by_s) > _SLACK_S:
        raise NoEffect(f"the clock of {url} shows {shown}")

"""Who works off the chunks: the processors of this machine, or a Dask cluster.

An engine takes a function and the chunks, and yields the results in any order. It holds a bounded
number of chunks at a time. Work is repeated if a worker dies, so it has to be idempotent.
"""

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, Final, TypeVar

from shared.version import VERSION

_Chunk = TypeVar("_Chunk")
_Result = TypeVar("_Result")

_CHUNKS_PER_WORKER: Final = 2
"""One that it works on, and the next."""
_MAX_DEATHS: Final = 5
_ANSWER_S: Final = 60.0
"""How long a worker of a cluster may take to say its version."""


class EngineError(Exception):
    """The work cannot go on; the message is the one sentence that says why."""


class CannotBegin(EngineError):
    """No chunk was handed to anything that works."""


def on_processes(
    work: Callable[[_Chunk], _Result], chunks: Iterable[_Chunk], *, workers: int
) -> Iterator[_Result]:
    """Work on so many processes; those that are killed are replaced, and their chunks repeated.

    Raises ``EngineError`` if processes die again and again without a result.
    """
    coming = iter(chunks)
    waiting: deque[_Chunk] = deque()
    deaths = 0
    while deaths < _MAX_DEATHS:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare_process)
        running: dict[Future[_Result], _Chunk] = {}
        try:
            while True:
                room = workers * _CHUNKS_PER_WORKER - len(running) - len(waiting)
                waiting.extend(islice(coming, max(room, 0)))
                while waiting:
                    future = pool.submit(work, waiting[0])
                    running[future] = waiting.popleft()
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    del running[future]
                    deaths = 0
                    yield result
        except BrokenProcessPool:
            deaths += 1
            waiting.extendleft(reversed(running.values()))
        finally:
            pool.shutdown(cancel_futures=True)
    raise EngineError(
        f"Worker processes died {deaths} times without a result;"
        " is there too little memory for so many (--workers)?"
    )


def _prepare_process() -> None:
    # The terminal sends Ctrl-C to every process; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent:
        parent.join()
        # The pool waits for its next chunk for ever.
        os._exit(1)


def on_dask(
    work: Callable[[_Chunk], _Result], chunks: Iterable[_Chunk], *, scheduler: str
) -> Iterator[_Result]:
    """Work on all workers of the Dask cluster with this scheduler, which has to be running.

    Dask itself repeats what a dead worker had. Raises ``EngineError``.
    """
    try:
        from distributed import (  # noqa: PLC0415 - of an extra
            CancelledError,
            Client,
            KilledWorker,
            as_completed,
        )
        from distributed.client import ClosedClientError  # noqa: PLC0415
        from distributed.comm import CommClosedError  # noqa: PLC0415
    except ImportError:
        raise CannotBegin("--engine dask needs the extra 'dask' of this product.") from None
    _silence()
    try:
        client = Client(scheduler)
    except (OSError, ValueError) as error:
        raise CannotBegin(f"No scheduler answers at {scheduler}: {error}") from None
    coming = iter(chunks)

    def submitted(number: int) -> list[Any]:
        return [client.submit(work, chunk, pure=False) for chunk in islice(coming, number)]

    try:
        with client:
            running = as_completed(submitted(_threads(client, scheduler) * _CHUNKS_PER_WORKER))
            for future in running:
                result: _Result = future.result()
                running.update(submitted(1))
                yield result
    except KilledWorker as error:
        raise EngineError(f"Dask gave up: {error}") from None
    except (CancelledError, ClosedClientError, CommClosedError):
        raise EngineError(
            f"The scheduler at {scheduler} went away; once it is back, --resume goes on."
        ) from None


def _silence() -> None:
    # Each has a level of its own.
    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _threads(client: Any, scheduler: str) -> int:
    """How many threads a cluster has; raises ``CannotBegin`` if it cannot do the work."""
    try:
        versions = _versions(client)
        threads = sum(client.nthreads().values())
    except OSError:
        raise CannotBegin(
            f"The scheduler at {scheduler} went away, or one of its workers does not answer;"
            " once they do, --resume goes on."
        ) from None
    if versions != {VERSION}:
        raise CannotBegin(
            f"The scheduler at {scheduler} and its workers need this product, too, in version"
            f" {VERSION}, with the extras 'command' and 'dask'."
        )
    if not threads:
        raise CannotBegin(f"The scheduler at {scheduler} has no workers.")
    return int(threads)


def _versions(client: Any) -> set[object]:
    """The versions of this product in a cluster, with an error for each place without it.

    Raises ``OSError`` if a place does not answer.
    """
    try:
        of_scheduler: object = client.run_on_scheduler(_version, callback_timeout=_ANSWER_S)
    except ImportError as error:
        of_scheduler = error
    of_workers = client.run(_version, on_error="return", callback_timeout=_ANSWER_S).values()
    for found in of_workers:
        if isinstance(found, OSError):
            raise found
    return {of_scheduler, *of_workers}


def _version() -> str:
    return VERSION

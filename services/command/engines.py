"""Who works off the chunks: the processors of this machine, or a Dask cluster.

An engine takes a function and the chunks, and yields the results in any order. It holds a bounded
number of chunks at a time. Work is repeated if a worker dies, so it has to be idempotent.
"""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import Any, Final, TypeVar

from shared.version import VERSION

_Chunk = TypeVar("_Chunk")
_Result = TypeVar("_Result")

_CHUNKS_PER_WORKER: Final = 2
"""One that it works on, and the next."""
_MAX_DEATHS: Final = 5


class EngineError(Exception):
    """The work cannot go on; the message is the one sentence that says why."""


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
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _ignore_interrupts)
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


def _ignore_interrupts() -> None:
    # The terminal sends Ctrl-C to every process; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def on_dask(
    work: Callable[[_Chunk], _Result], chunks: Iterable[_Chunk], *, scheduler: str
) -> Iterator[_Result]:
    """Work on all workers of the Dask cluster with this scheduler, which has to be running.

    Dask itself repeats what a dead worker had. Raises ``EngineError``.
    """
    try:
        from distributed import Client, KilledWorker, as_completed  # noqa: PLC0415 - of an extra
    except ImportError:
        raise EngineError("--engine dask needs the extra 'dask' of this product.") from None
    try:
        client = Client(scheduler)
    except (OSError, ValueError) as error:
        raise EngineError(f"No scheduler answers at {scheduler}: {error}") from None
    with client:
        if _versions(client) != {VERSION}:
            raise EngineError(
                f"The scheduler at {scheduler} and its workers need this product, too, in version"
                f" {VERSION}: install 'loan-predictor[command,dask]' there."
            )
        threads = sum(client.nthreads().values())
        if not threads:
            raise EngineError(f"The scheduler at {scheduler} has no workers.")
        coming = iter(chunks)

        def submitted(number: int) -> list[Any]:
            return [client.submit(work, chunk, pure=False) for chunk in islice(coming, number)]

        running = as_completed(submitted(threads * _CHUNKS_PER_WORKER))
        try:
            for future in running:
                result: _Result = future.result()
                running.update(submitted(1))
                yield result
        except KilledWorker as error:
            raise EngineError(f"Dask gave up: {error}") from None


def _versions(client: Any) -> set[object]:
    """The versions of this product in a cluster, with an error for each place without it."""
    try:
        of_scheduler: object = client.run_on_scheduler(_version)
    except ImportError as error:
        of_scheduler = error
    return {of_scheduler, *client.run(_version, on_error="return").values()}


def _version() -> str:
    return VERSION

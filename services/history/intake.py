"""The HTTP sink: store events that could not go through the stream, all of them or none."""

import time

from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.cache import Cache
from services.history.database import Unstorable, reporting_outages
from services.history.recorder import Undecodable, decode, store
from services.history.records import Row
from shared.contract.errors import MAX_FAULTS, Fault, InvalidInput
from shared.observability.logs import get_logger
from shared.observability.tracing import NO_TRACING, Tracing
from shared.redis import REDIS_ERRORS

_log = get_logger(__name__)


async def take_in(
    engine: AsyncEngine, cache: Cache, body: bytes, *, tracing: Tracing = NO_TRACING
) -> None:
    """Return once every event of ``body``, one JSON per line, is committed.

    Sending the events again is harmless. Raises ``InvalidInput``, which names the lines at fault,
    or ``StoreUnavailable``; then nothing is stored.
    """
    rows = _decode_lines(body)
    began_ns = time.time_ns()
    try:
        with reporting_outages():
            await store(engine, rows)
    except Unstorable as error:
        raise InvalidInput([Fault(field="body", message=str(error))]) from error
    tracing.committed(body.split(b"\n"), rows=len(rows), began_ns=began_ns)
    try:
        await cache.invalidate()
    except REDIS_ERRORS as error:
        # This sink is used while Redis is away; what is cached there expires by its age.
        _log.warning("caches not invalidated", error=repr(error))


def _decode_lines(body: bytes) -> list[Row]:
    rows: list[Row] = []
    faults: list[Fault] = []
    for number, line in enumerate(body.split(b"\n"), start=1):
        if len(faults) == MAX_FAULTS:
            break
        if not line.strip():
            continue
        try:
            rows.append(decode(line))
        except Undecodable as error:
            faults.append(Fault(field=f"line {number}", message=str(error)))
    if not rows and not faults:
        faults.append(Fault(field="body", message="holds no event; send one per line"))
    if faults:
        raise InvalidInput(faults)
    return rows

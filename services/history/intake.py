"""The sink for events past the stream: store them at once, all of them or none."""

import time

from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.cache import Cache
from services.history.copying import EncodedRow
from services.history.database import DATABASE_ERRORS, is_data_error, is_outage
from services.history.errors import StoreUnavailable
from services.history.recorder import Undecodable, read_row, store
from shared.contract.errors import MAX_FAULTS, Fault, InvalidInput
from shared.observability.logs import get_logger
from shared.observability.tracing import NO_TRACING, Tracing

_log = get_logger(__name__)


async def take_in(
    engine: AsyncEngine, cache: Cache, body: bytes, *, tracing: Tracing = NO_TRACING
) -> None:
    """Return once every event of ``body``, one JSON per line, is committed.

    Sending again is harmless. Raises ``InvalidInput`` naming the lines at fault and
    ``StoreUnavailable``; nothing is stored then.
    """
    rows = _decode_lines(body)
    began_ns = time.time_ns()
    try:
        await store(engine, rows)
    except DATABASE_ERRORS as error:
        if isinstance(error, DBAPIError) and is_data_error(error):
            raise InvalidInput([Fault(field="body", message=str(error.orig))]) from error
        if not is_outage(error):
            raise
        raise StoreUnavailable("The database does not answer; try again shortly.") from error
    tracing.committed(body.split(b"\n"), rows=len(rows), began_ns=began_ns)
    try:
        await cache.invalidate()
    except (RedisError, OSError) as error:
        # This sink is taken when Redis is away; what it still holds then ends by its age.
        _log.warning("caches not invalidated", error=repr(error))


def _decode_lines(body: bytes) -> list[EncodedRow]:
    rows: list[EncodedRow] = []
    faults: list[Fault] = []
    for number, line in enumerate(body.split(b"\n"), start=1):
        if len(faults) == MAX_FAULTS:
            break
        if not line.strip():
            continue
        try:
            rows.append(read_row(line))
        except Undecodable as error:
            faults.append(Fault(field=f"line {number}", message=str(error)))
    if not rows and not faults:
        faults.append(Fault(field="body", message="holds no event; send one per line"))
    if faults:
        raise InvalidInput(faults)
    return rows

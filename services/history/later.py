"""Reasons that are found after a decision: stored once, with an entry in the audit log."""

from typing import Final

from pydantic import ValidationError
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history import audit
from services.history.cache import Cache
from services.history.database import transaction
from services.history.errors import AnotherDecision, Erased, unknown
from services.history.queries import is_decision
from services.history.reasons import pack
from services.history.records import Record, record_of
from services.history.tables import predictions
from shared.contract.errors import Fault, InvalidInput, message_of
from shared.contract.events import Decision, ReasonsFound
from shared.observability.logs import get_logger
from shared.redis import REDIS_ERRORS

_ADDED: Final = {"reasons", "reasons_basis"}
_log = get_logger(__name__)


async def store_reasons(engine: AsyncEngine, cache: Cache, body: bytes) -> Record:
    """Add the reasons to their record unless it has some, and return the record.

    ``body`` is a ``ReasonsFound``. Its decision must be the recorded one, so that no reasons are
    stored that were found for other values. Raises ``InvalidInput``, ``NotFound``, ``Erased``,
    ``AnotherDecision`` or ``StoreUnavailable``; then nothing is stored.
    """
    found = _read(body)
    prediction_id = found.decision.prediction_id
    async with transaction(engine) as opened:
        turn = await audit.take_turn(opened)
        row = (
            await opened.execute(select(predictions).where(is_decision(prediction_id)))
        ).one_or_none()
        if row is None:
            raise unknown(prediction_id)
        if row.erased_at is not None:
            raise Erased(prediction_id, row.erased_at)
        record = record_of(row)
        if record.reasons is not None:
            return record
        if record.prediction == "Approved" or not _is_recorded(found.decision, record):
            raise AnotherDecision(prediction_id)
        # Last: without them, what fits the document is another decision than the recorded one.
        _require_later(found.decision)
        await opened.execute(
            update(predictions)
            .where(predictions.c.id == row.id)
            .values(reasons=pack(found.decision.model_dump(include=_ADDED)))
        )
        # Reasons follow from personal values, which an entry of the log would keep for good.
        await audit.append(
            opened,
            turn,
            actor=found.client,
            action="add reasons",
            subject=str(prediction_id),
            details={"model": record.model_info.name, "bundle": record.model_info.version},
        )
    await _expire(cache, f"/history/{prediction_id}")
    return record.model_copy(update=_added(found.decision))


def _read(body: bytes) -> ReasonsFound:
    try:
        found = ReasonsFound.model_validate_json(body)
    except ValidationError as error:
        [fault, *_] = error.errors(include_url=False)
        field = ".".join(map(str, fault["loc"])) or "body"
        raise InvalidInput([Fault(field=field, message=message_of(fault))]) from None
    return found


def _require_later(decision: Decision) -> None:
    basis = decision.reasons_basis
    if not decision.reasons or basis is None or not basis.later:
        raise InvalidInput(
            [Fault(field="decision", message="has no reasons that were found later")]
        )


def _added(decision: Decision) -> dict[str, object]:
    return {name: getattr(decision, name) for name in _ADDED}


def _is_recorded(decision: Decision, record: Record) -> bool:
    recorded = record.model_dump(include=set(Decision.model_fields) - _ADDED)
    return decision.model_dump(exclude=_ADDED) == recorded


async def _expire(cache: Cache, path: str) -> None:
    try:
        await cache.invalidate()
        await cache.drop(path)
    except REDIS_ERRORS as error:
        # A copy without the reasons expires by its age; asked again, the same ones are found.
        _log.warning("caches not invalidated", error=repr(error))

"""Erase a person's values from every store.

A tombstone stays: the decision's id, time and outcome, and the caller. It keeps the roll-ups
provable, and an event delivered again after the erasure is still found stored.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from redis.asyncio import Redis
from sqlalchemy import ColumnElement, Uuid, delete, func, literal, null, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.expression import case
from sqlalchemy.types import Text

from services.history import audit
from services.history.cache import Cache
from services.history.daily import forget_inputs
from services.history.database import connection, transaction
from services.history.errors import NotErased, unknown
from services.history.queries import is_decision
from services.history.schemas import AuditEntry, Erasure
from services.history.tables import (
    PERSONAL,
    WARNINGS,
    predictions,
    shadow_decisions,
    shadow_queue,
)
from shared.contract.events import IDEMPOTENCY_KEEP_S, answer_key
from shared.redis import REDIS_ERRORS, failure

_NOTHING_ERASED: Final = "nothing was erased; try again shortly."

# Warnings name the thresholds that the values crossed, and ``imputed`` names the inputs that were
# missing, so both are erased. The roll-ups count only whether there was a warning.
_BLANK: Final[dict[str, Any]] = {
    **dict.fromkeys(PERSONAL, null()),
    "imputed": null(),
    "warnings": case((WARNINGS > 0, array(["erased"], type_=Text))),
}


_KEPT: Final = (
    "id",
    "derived_id",
    "decided_at",
    "model",
    "bundle_version",
    "arm",
    "client",
    "prediction",
)


class Stores(NamedTuple):
    """The stores of personal data."""

    engine: AsyncEngine
    redis: Redis
    cache: Cache
    erasing: asyncio.Lock
    """Held while erasing: erasures are serialised anyway, and those that wait must not occupy the
    connections that readers need."""


class ErasureAudit(NamedTuple):
    """What the audit log records about an erasure."""

    actor: str
    action: str
    subject: str


async def erase_decision(stores: Stores, prediction_id: UUID, *, actor: str) -> Erasure:
    """Erase one decision; raises ``NotFound`` if it is not recorded (yet), else as ``erase``.

    Erasing it again erases nothing more and is recorded again.
    """
    condition = is_decision(prediction_id)
    async with connection(stores.engine) as opened:
        found = await opened.execute(select(predictions.c.id).where(condition))
    if found.one_or_none() is None:
        raise unknown(prediction_id)
    audited = ErasureAudit(actor, "erase decision", str(prediction_id))
    return await erase(stores, condition, audited, answers=[prediction_id])


async def erase_loan(stores: Stores, loan_id: str, *, actor: str) -> Erasure:
    """Erase every decision about one application; raises as ``erase`` does.

    A loan id is personal, and so short that its bare hash could be guessed. The log holds the hash
    of a salt and the id; only the answer holds the salt. With the salt one can prove what the row
    is about; without it one cannot learn it.
    """
    salt = secrets.token_hex(16)
    subject = f"sha256:{hashlib.sha256((salt + loan_id).encode()).hexdigest()}"
    audited = ErasureAudit(actor, "erase loan", subject)
    erasure = await erase(stores, predictions.c.loan_id == loan_id, audited, loan_id=loan_id)
    return erasure.model_copy(update={"salt": salt})


async def erase(
    stores: Stores,
    condition: ColumnElement[bool],
    audited: ErasureAudit,
    *,
    answers: Iterable[UUID] = (),
    loan_id: str | None = None,
) -> Erasure:
    """Erase the decisions that meet ``condition``, all or none, and record it in the audit log.

    Once it returns, no request is answered with their values. ``answers`` are the ids of decisions
    whose stored answers are removed even if they were erased before. Raises ``StoreUnavailable``
    and ``NotErased``; erasing again is always safe, and completes an erasure that was interrupted.
    """
    async with stores.erasing:
        # First, so that nothing is erased unless Redis answers.
        await _forget(stores.cache, _NOTHING_ERASED)
        async with transaction(stores.engine) as opened:
            turn = await audit.take_turn(opened)
            erased = await opened.execute(
                update(predictions)
                .where(condition, predictions.c.erased_at.is_(None))
                .values(erased_at=turn.occurred_at, **_BLANK)
                .returning(*(predictions.c[name] for name in _KEPT))
            )
            rows = erased.all()
            await forget_inputs(opened, rows)
            # A day may pass before a decision is answered, and a day until its answer expires.
            answers_since = turn.occurred_at - timedelta(seconds=2 * IDEMPOTENCY_KEEP_S)
            derived_ids = {
                row.derived_id
                for row in rows
                if row.derived_id is not None and row.decided_at > answers_since
            }
            await _note_for_batches(
                opened, [row.derived_id for row in rows if row.derived_id is not None], loan_id
            )
            await _forget_shadows(opened, [row.id for row in rows])
            # Before the commit: afterwards a loan's decisions cannot be found any more.
            await _empty_answers(stores.redis, derived_ids.union(answers))
            head = await audit.append(
                opened, turn, **audited._asdict(), details={"erased": len(rows)}
            )
        # An answer computed from a row read before the commit is cached in the old generation.
        await _forget(stores.cache, "copies may be left in the cache; send the same request again.")
    return Erasure(
        erased=len(rows),
        erased_at=turn.occurred_at,
        audit=AuditEntry(id=head.id, hash=head.hash.hex()),
        salt=None,
    )


# What is noted is hidden by the batch service at once, and soon erased by its worker.
_NOTE_DECISIONS: Final = text("""
INSERT INTO batch.erasures (prediction_id)
SELECT erased FROM unnest(CAST(:ids AS uuid[])) AS erased
WHERE EXISTS (SELECT FROM batch.batches WHERE erased BETWEEN first_id AND last_id)
""")
_NOTE_LOAN: Final = text("""
INSERT INTO batch.erasures (loan_id)
SELECT CAST(:loan_id AS text) WHERE EXISTS (SELECT FROM batch.batches)
""")


async def _note_for_batches(
    opened: AsyncConnection, derived_ids: Sequence[UUID], loan_id: str | None
) -> None:
    """Have the files and the results of batches lose what is erased."""
    if derived_ids:
        await opened.execute(_NOTE_DECISIONS, {"ids": derived_ids})
    if loan_id is not None:
        await opened.execute(_NOTE_LOAN, {"loan_id": loan_id})


async def _forget_shadows(opened: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Delete what shadows made of the decisions, and what waits for them."""
    # The queue first: a worker that has these rows is waited for, and then its results are seen.
    for table in (shadow_queue, shadow_decisions):
        await opened.execute(
            delete(table).where(table.c.decision == func.any(literal(ids, ARRAY(Uuid))))
        )


async def _forget(cache: Cache, otherwise: str) -> None:
    try:
        await cache.forget()
    except REDIS_ERRORS as error:
        raise NotErased(f"{failure(error)}, so {otherwise}") from error


async def _empty_answers(redis: Redis, prediction_ids: Iterable[UUID]) -> None:
    """Empty the answers stored for requests with an Idempotency-Key.

    The empty value stays, so that the answer of a request still in progress is not stored again.
    """
    pipeline = redis.pipeline(transaction=False)
    for prediction_id in prediction_ids:
        pipeline.set(answer_key(prediction_id), b"", ex=IDEMPOTENCY_KEEP_S)
    try:
        await pipeline.execute()
    except REDIS_ERRORS as error:
        raise NotErased(f"{failure(error)}, so {_NOTHING_ERASED}") from error

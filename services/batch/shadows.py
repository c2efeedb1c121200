"""Shadows: models of a roll-out that score what is on record and decide nothing.

The history queues each decision that it stores while a roll-out has shadows. Queue, results and
counts change in one transaction, in which the queue's rows are locked: a worker that is killed
leaves them as they were, and an erasure waits for one at work.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date
from time import monotonic
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

import numpy as np

from services.batch.database import Connection, Pool, transaction
from services.batch.population import (
    DECISION,
    NO_OUTCOME,
    Rows,
    counted,
    find_bundle,
    read,
    scored,
    unscored,
)
from services.scoring.engine import shown_probabilities
from services.scoring.manifest import BundleError
from services.scoring.registry import Bundle
from services.scoring.replay import Bundles
from shared.contract.rollout import Arm, Rollout
from shared.contract.swaps import Swap
from shared.observability.logs import get_logger

CHUNK_ROWS: Final = 1000
_RETRY_S: Final = 5.0
"""After this long a bundle that cannot be used is tried again."""
_log = get_logger(__name__)

_NEXT_EPOCH: Final = """
SELECT epoch FROM shadow_queue WHERE epoch <> ALL($1) ORDER BY decision LIMIT 1
"""
_TAKE: Final = """
SELECT decision FROM shadow_queue WHERE epoch = $1 ORDER BY decision LIMIT $2
FOR UPDATE SKIP LOCKED
"""
_DECIDERS: Final = """
SELECT id, decided_at, bundle_version, model FROM predictions
WHERE id = ANY($1) AND erased_at IS NULL
"""
_READ: Final = f"""
SELECT {DECISION}, {NO_OUTCOME}, 1::int2 FROM predictions WHERE id = ANY($1) AND erased_at IS NULL
"""  # noqa: S608 - the product's own columns
_GIVE_UP: Final = """
DELETE FROM shadow_queue WHERE epoch < (
    SELECT max(epoch) FROM rollout_states
    WHERE state = 'active' AND reached_at < now() - make_interval(secs => $1)
)
"""
_ADD_UP: Final = """
INSERT INTO shadow_rollup AS total
SELECT * FROM unnest(CAST($1 AS shadow_rollup[]))
ON CONFLICT ON CONSTRAINT shadow_rollup_pkey DO UPDATE SET
    decisions = total.decisions + excluded.decisions
"""


class _Decider(NamedTuple):
    """What decided on record, and on which UTC day."""

    day: date
    bundle: str
    model: str


_Shadows: TypeAlias = Mapping[Arm, Bundle]
_Result: TypeAlias = tuple[UUID, float, bool, str, str]


class Shadows:
    """Works the queue off."""

    def __init__(self, pool: Pool, bundles: Bundles) -> None:
        self._pool = pool
        self._bundles = bundles
        self._retry_at_s: dict[int, float] = {}

    async def score(self) -> int:
        """Score one chunk, if some is queued; return how many decisions left the queue.

        Raises ``BundleError`` if a bundle cannot be used; what waits for it waits on, and other
        roll-outs' decisions go on.
        """
        now_s = monotonic()
        failed = [epoch for epoch, retry_at_s in self._retry_at_s.items() if retry_at_s > now_s]
        async with transaction(self._pool) as connection:
            epoch = await connection.fetchval(_NEXT_EPOCH, failed)
            if epoch is None:
                return 0
            content = await connection.fetchval(
                "SELECT content FROM rollouts WHERE epoch = $1", epoch
            )
        try:
            shadows = await self._load(Rollout.model_validate_json(content))
        except BundleError:
            self._retry_at_s[epoch] = now_s + _RETRY_S
            raise
        async with transaction(self._pool) as connection:
            return await _score(connection, epoch, shadows)

    async def _load(self, rollout: Rollout) -> _Shadows:
        return {arm: await find_bundle(self._bundles, arm) for arm in rollout.shadows}


async def _score(connection: Connection, epoch: int, shadows: _Shadows) -> int:
    taken = await connection.fetch(_TAKE, epoch, CHUNK_ROWS)
    if not taken:
        return 0
    ids = [row["decision"] for row in taken]
    deciders = {
        identifier: _Decider(decided_at.astimezone(UTC).date(), bundle, model)
        for identifier, decided_at, bundle, model in await connection.fetch(_DECIDERS, ids)
    }
    rows = await read(connection, _READ, ids)
    results, counts = await asyncio.to_thread(_scored, rows, deciders, shadows)
    await connection.copy_records_to_table(
        "shadow_decisions",
        records=results,
        columns=("decision", "probability_approved", "approved", "bundle", "model"),
    )
    # In one order, so that workers cannot deadlock.
    await connection.execute(_ADD_UP, sorted(counts))
    await connection.execute("DELETE FROM shadow_queue WHERE decision = ANY($1)", ids)
    return len(ids)


def _scored(
    rows: Rows, deciders: Mapping[UUID, _Decider], shadows: _Shadows
) -> tuple[list[_Result], list[tuple[Any, ...]]]:
    """The results, and the rows to add to ``shadow_rollup``."""
    ids = [UUID(bytes=value.tobytes()) for value in rows["id"]]
    by_decider = _places([deciders[each] for each in ids])
    results: list[_Result] = []
    counts: Counter[tuple[Any, ...]] = Counter()
    for arm, bundle in shadows.items():
        threshold = bundle.models[arm.model].threshold
        for decider, places in by_decider.items():
            part = rows[places]
            approved, takes = scored(part, bundle, arm.model)
            swaps = counted(part[takes], approved, threshold) + unscored(part[~takes])
            for swap, decisions in swaps.items():
                counts[(decider.day, *_names(arm), *decider[1:], *_key(swap))] += decisions
            results += (
                (ids[place], shown, probability >= threshold, *_names(arm))
                for place, shown, probability in zip(
                    np.array(places)[takes].tolist(),
                    shown_probabilities(approved, threshold).tolist(),
                    approved.tolist(),
                    strict=True,
                )
            )
    return results, [(*key, decisions) for key, decisions in counts.items()]


def _places(deciders: Sequence[_Decider]) -> dict[_Decider, list[int]]:
    places: dict[_Decider, list[int]] = {}
    for place, decider in enumerate(deciders):
        places.setdefault(decider, []).append(place)
    return places


def _names(arm: Arm) -> tuple[str, str]:
    return arm.bundle, arm.model


def _key(swap: Swap) -> tuple[str, ...]:
    # Nothing is known of a loan when its decision has just been stored.
    return swap.attribute, swap.value, swap.decided, swap.instead


async def give_up(pool: Pool, *, days: float) -> int:
    """Delete from the queue what waits for a roll-out that is over for so long; return how many."""
    async with transaction(pool) as connection:
        done = await connection.execute(_GIVE_UP, days * 86_400)
    return int(done.removeprefix("DELETE "))

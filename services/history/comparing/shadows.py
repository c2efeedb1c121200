"""The report of the shadows, from counts that are kept while they score."""

from collections import Counter
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.comparing.schemas import ShadowComparison, ShadowQuery, ShadowReport
from services.history.comparing.swaps import swaps_of
from services.history.rollout.board import read_board
from services.history.tables import shadow_queue, shadow_rollup
from shared.contract.rollout import Arm
from shared.contract.swaps import Decider, Swap, Tally

_MOST_COUNTED: Final = 100_000
_METHOD: Final = (
    "A shadow scores every decision that is recorded while the roll-out names it, off the path of"
    " the answer. Shares have Wilson's 95 % interval, differences of the two shares on the same"
    " decisions Newcombe's for paired data (method 10). Each interval is right for one look."
)


async def read_shadows(connection: AsyncConnection, query: ShadowQuery) -> ShadowReport:
    """Each shadow beside each model that decided in that time, those in force first."""
    rollup = shadow_rollup.c
    arms = (rollup.bundle, rollup.model, rollup.decider_bundle, rollup.decider_model)
    keys = (*arms, rollup.attribute, rollup.value, rollup.decided, rollup.instead)
    statement = select(*keys, func.sum(rollup.decisions).label("decisions")).group_by(*keys)
    if query.since is not None:
        statement = statement.where(rollup.day >= query.since)
    if query.until is not None:
        statement = statement.where(rollup.day < query.until)
    tallies: dict[tuple[Arm, Decider], Tally] = {}
    for row in await connection.execute(statement):
        shadow = Arm(bundle=row.bundle, model=row.model)
        decider = Decider(bundle=row.decider_bundle, model=row.decider_model)
        tally = tallies.setdefault((shadow, decider), Counter())
        tally[Swap(row.attribute, row.value, row.decided, row.instead)] = int(row.decisions)
    active = (await read_board(connection)).active
    shadows = active.shadows if active else []
    waiting = select(func.count()).select_from(
        select(shadow_queue.c.decision).limit(_MOST_COUNTED).subquery()
    )
    comparisons = [
        ShadowComparison(
            shadow=shadow, decider=decider, shadowing=shadow in shadows, swaps=swaps_of(tally)
        )
        for (shadow, decider), tally in tallies.items()
    ]
    return ShadowReport(
        comparisons=sorted(
            comparisons,
            key=lambda each: (not each.shadowing, -each.swaps.all.decisions, str(each.shadow)),
        ),
        waiting=(await connection.execute(waiting)).scalar_one(),
        method=_METHOD,
    )

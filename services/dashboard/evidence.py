"""What can be said about one recorded decision: its record, and what the services find today."""

import asyncio
from collections.abc import Awaitable
from typing import Generic, NamedTuple, TypeVar

from loan_predictor_client import AsyncLoanPredictorClient, CallFailed
from loan_predictor_client.models import ChampionInfo, Decision, Explanation, Record, Replay

T = TypeVar("T")


class Attempt(NamedTuple, Generic[T]):
    """What a call returned, or else None and why it failed."""

    value: T | None
    failure: str = ""


class Evidence(NamedTuple):
    """One decision, and what was found out about it just now."""

    record: Record
    replay: Attempt[Replay]
    served: Attempt[ChampionInfo]
    """The champion of the bundle served now, which need not be the record's."""
    explanation: Attempt[Explanation]
    """By the record's own bundle."""


async def attempted(call: Awaitable[T]) -> Attempt[T]:
    """The result of ``call`` or its failure; a page that can do without it goes on."""
    try:
        return Attempt(await call)
    except CallFailed as error:
        return Attempt(None, str(error))


async def explained(
    api: AsyncLoanPredictorClient, decision: Decision, *, asked: bool
) -> Attempt[Explanation]:
    """What counted for ``decision``, by its own bundle.

    For one without reasons only where ``asked``, because it takes longer.
    """
    if not (decision.reasons or asked):
        return Attempt(None)
    info = decision.model_info
    return await attempted(api.explain(decision.input_data, model=info.name, bundle=info.version))


async def evidence_of(
    api: AsyncLoanPredictorClient, prediction_id: str, *, asked: bool = False
) -> Evidence:
    """Everything about one decision; raises ``CallFailed`` only without its record."""
    record = await _with_reasons(api, await api.record(prediction_id))
    replay, served, explanation = await asyncio.gather(
        attempted(api.replay(prediction_id)),
        attempted(api.model_info()),
        explained(api, record, asked=asked),
    )
    return Evidence(record, replay, served, explanation)


async def _with_reasons(api: AsyncLoanPredictorClient, record: Record) -> Record:
    """A refusal with its reasons, which are found and recorded now if it was decided without."""
    if record.prediction == "Approved" or record.reasons:
        return record
    found = (await attempted(api.find_reasons(record))).value
    return record.model_copy(
        update={"reasons": found.reasons, "reasons_basis": found.reasons_basis} if found else {}
    )

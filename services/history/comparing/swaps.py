"""Who would be decided otherwise, from counts: pure functions."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from services.history.comparing.schemas import (
    Swapped,
    SwappedAttribute,
    SwappedBand,
    SwappedGroup,
    Swaps,
    WhatIfCost,
)
from services.history.estimates import Pairs, mean, paired_difference, proportion
from services.history.monitoring.fairness import LEAST_DECISIONS, NOT_KNOWN
from services.history.monitoring.schemas import Estimated, estimated
from shared.contract.swaps import BANDS, GROUPED, MISSING, SCORE, UNSCORED, Costs, Swap, Tally

_APPROVED: Final = "Approved"
_REJECTED: Final = "Rejected"
_LEAST_FOR_MEAN: Final = 2


def swaps_of(tally: Tally) -> Swaps:
    """The decisions in ``tally`` that would come out otherwise, by band and by group."""
    bands = _parts(tally, SCORE)
    return Swaps(
        all=Swapped(**_swapped(_joined(bands.values()))),
        bands=[
            SwappedBand(low=band / BANDS, high=(band + 1) / BANDS, **_swapped(bands[str(band)]))
            for band in range(BANDS)
            if str(band) in bands
        ],
        attributes=[_attribute(field.name, _parts(tally, field.column)) for field in GROUPED],
        least_decisions=LEAST_DECISIONS,
        unscored=sum(count for swap, count in tally.items() if swap.attribute == UNSCORED),
    )


def cost_of(tally: Tally, costs: Costs) -> WhatIfCost | None:
    """What the decisions cost whose outcome is known; None if that is known of none."""
    known = Counter(
        {swap: n for swap, n in tally.items() if swap.attribute == SCORE and swap.outcome}
    )
    decisions = known.total()
    if not decisions:
        return None
    refused = sum(n for swap, n in known.items() if swap.decided == _REJECTED)
    on_record = _sum(known, lambda swap: _cost(costs, swap.decided, swap.outcome))
    instead = _sum(known, lambda swap: _cost(costs, swap.instead, swap.outcome))

    def gap(swap: Swap) -> float:
        return _cost(costs, swap.instead, swap.outcome) - _cost(costs, swap.decided, swap.outcome)

    return WhatIfCost(
        decisions=decisions,
        refused=refused,
        on_record=on_record,
        instead=instead,
        difference=estimated(
            mean(decisions, _sum(known, gap), _sum(known, lambda swap: gap(swap) ** 2))
        )
        if decisions >= _LEAST_FOR_MEAN
        else None,
        on_whom=(
            f"Outcomes are known of {decisions:,} of these decisions, {refused:,} of them refused"
            " on record. What loans would have become that were never given is not known, so the"
            " cost of approving more people is not in these numbers."
        ),
    )


def _cost(costs: Costs, decision: str, outcome: str) -> float:
    if decision == "Referred":
        return costs.referred
    found: float = getattr(costs, f"{decision.lower()}_{outcome}")
    return found


def _sum(tally: Tally, value: Callable[[Swap], float]) -> float:
    return sum(count * value(swap) for swap, count in tally.items())


_Counts = Mapping[tuple[str, str], int]
"""By what was decided, and what would be instead."""


def _parts(tally: Tally, attribute: str) -> dict[str, Counter[tuple[str, str]]]:
    parts: dict[str, Counter[tuple[str, str]]] = {}
    for swap, count in tally.items():
        if swap.attribute == attribute and count:
            part = parts.setdefault(swap.value, Counter())
            part[swap.decided, swap.instead] += count
    return parts


def _joined(parts: Iterable[Counter[tuple[str, str]]]) -> _Counts:
    return sum(parts, Counter())


def _attribute(name: str, parts: Mapping[str, Counter[tuple[str, str]]]) -> SwappedAttribute:
    named = {NOT_KNOWN if value == MISSING else value: counts for value, counts in parts.items()}
    shown = [group for group in sorted(named) if named[group].total() >= LEAST_DECISIONS]
    return SwappedAttribute(
        attribute=name,
        groups=[SwappedGroup(group=group, **_swapped(named[group])) for group in shown],
        suppressed=sorted(named.keys() - shown),
    )


def _swapped(counts: _Counts) -> dict[str, Any]:
    def of(decided: Sequence[str], instead: Sequence[str]) -> int:
        return sum(counts.get((one, other), 0) for one in decided for other in instead)

    either, not_approved = (_APPROVED, _REJECTED), (_REJECTED, "Referred")
    decisions = sum(counts.values())
    newly_approved, newly_refused = of((_REJECTED,), (_APPROVED,)), of((_APPROVED,), (_REJECTED,))
    referred = of(either, ("Referred",))
    pairs = Pairs(
        both=of((_APPROVED,), (_APPROVED,)),
        only_first=newly_approved,
        only_second=of((_APPROVED,), not_approved),
        neither=of((_REJECTED,), not_approved),
    )

    def share(hits: int) -> Estimated | None:
        return estimated(proportion(hits, decisions)) if decisions else None

    return {
        "decisions": decisions,
        "agreed": share(decisions - newly_approved - newly_refused - referred),
        "newly_approved": newly_approved,
        "newly_approved_share": share(newly_approved),
        "newly_refused": newly_refused,
        "newly_refused_share": share(newly_refused),
        "referred": referred,
        "referred_share": share(referred),
        "approval_share": share(pairs.both + pairs.only_second),
        "approval_share_instead": share(pairs.both + pairs.only_first),
        "difference": estimated(paired_difference(pairs)) if decisions else None,
    }

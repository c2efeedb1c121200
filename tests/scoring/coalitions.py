"""Shapley values by their definition."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from math import factorial


def shapley_values(
    players: Sequence[str], value: Callable[[frozenset[str]], float]
) -> dict[str, float]:
    """What each player adds to a coalition, averaged over all orders in which they may join."""
    return dict(_each(players, value))


def _each(
    players: Sequence[str], value: Callable[[frozenset[str]], float]
) -> Iterator[tuple[str, float]]:
    values = {
        frozenset(coalition): value(frozenset(coalition))
        for size in range(len(players) + 1)
        for coalition in combinations(players, size)
    }
    for player in players:
        yield (
            player,
            sum(
                factorial(len(coalition))
                * factorial(len(players) - len(coalition) - 1)
                / factorial(len(players))
                * (values[coalition | {player}] - without)
                for coalition, without in values.items()
                if player not in coalition
            ),
        )

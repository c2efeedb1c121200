"""The histograms of a row of ``daily_rollup``: which there are, and how values are counted in them.

They stand one after the other in the row's ``counts``; its ``layout`` names them and their sizes.
So rows of another layout, from another bundle or another version of the product, merge by name.
"""

import sys
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from math import inf, nextafter
from operator import itemgetter
from time import monotonic
from typing import Annotated, Any, Final, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import asyncpg
from pydantic import BaseModel, Field, FiniteFloat, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.records import COLUMNS
from services.history.tables import HISTOGRAM_BUCKETS, MISSING
from shared.contract import application
from shared.contract.application import FIELDS_BY_USE

SCORE: Final = "score"
"""The histogram of the probability of approval, in ``HISTOGRAM_BUCKETS`` equal bins. A probability
between two bins counts with the one that is further from one half, as its confidence does."""

OTHER: Final = "other"
"""Stands for a value of a category that this version does not know."""

BINNED: Final = tuple(field for field in FIELDS_BY_USE if field.use in ("scored", "monitored"))
"""The inputs whose distribution is kept."""

ASK_AGAIN_S: Final = 1.0
"""How often the bins of a bundle that is not registered yet are looked up at most."""


class _Reference(BaseModel):
    """What a manifest says about an input; a category has no edges."""

    bin_edges: Annotated[list[FiniteFloat], Field(min_length=2, max_length=50)] | None = None


class _References(BaseModel):
    inputs: dict[str, _Reference] = {}


Edges: TypeAlias = Mapping[str, Sequence[float]]
"""By the name of a numeric input, where its bins begin, and where the last one ends."""


def edges_of(manifest: str) -> Edges:
    """The edges in a manifest; none where a later version of manifests writes them otherwise."""
    try:
        inputs = _References.model_validate_json(manifest).inputs
    except ValidationError:
        return {}
    return {name: found.bin_edges for name, found in inputs.items() if found.bin_edges}


def values_of(field: application.Field) -> tuple[str, ...]:
    """What each bin of a category stands for."""
    return (*map(str, field.allowed), OTHER, MISSING)


class Bins:
    """How the decisions of one bundle are counted.

    A numeric input has a bin below the first edge, those of the bundle, one above the last edge,
    and one for missing values; it is left out if the bundle has no edges for it.
    """

    def __init__(self, edges: Edges) -> None:
        coded = {
            field.column: _values(field.allowed) if field.allowed else _numbers(edges[field.name])
            for field in BINNED
            if field.allowed or field.name in edges
        }
        sizes = {name: len(each.bins) for name, each in coded.items()}
        self.layout: Final = layout_of({SCORE: HISTOGRAM_BUCKETS} | sizes)
        self._codings: Final = tuple(coded.values())
        self._inputs_of: Final = itemgetter(*map(COLUMNS.index, coded))

    def codes(self, columns: Sequence[Sequence[Any]]) -> list[bytes]:
        """For each input the bins of all rows, a byte each; ``columns`` are ``records.COLUMNS``."""
        inputs = self._inputs_of(columns)
        return [each.code(column) for each, column in zip(self._codings, inputs, strict=True)]

    def counts(self, codes: Sequence[bytes], part: slice) -> list[int]:
        """The histograms of some of the rows: to count bytes costs least, however few they are."""
        return [
            of_part.count(bin_)
            for coding, code in zip(self._codings, codes, strict=True)
            for of_part in (code[part],)
            for bin_ in coding.bins
        ]


class _Coding(NamedTuple):
    """How the values of an input become bins, and the codes of these in the order of the bins."""

    code: Callable[[Iterable[Any]], bytes]
    bins: Sequence[int]


class _CodeOf(dict[object, int]):
    def __missing__(self, value: object) -> int:
        return len(self) - 1


def _values(allowed: Sequence[object]) -> _Coding:
    # A value that is not known has the code between the known ones and that of a missing one.
    code_of = _CodeOf({value: code for code, value in enumerate(allowed)})
    code_of[None] = len(allowed) + 1
    return _Coding(lambda values: bytes(map(code_of.__getitem__, values)), range(len(allowed) + 2))


def _numbers(edges: Sequence[float]) -> _Coding:
    # Below all others is what stands for a missing value. The last bin includes its upper edge.
    starts = [-sys.float_info.max, *edges[:-1], nextafter(edges[-1], inf)]

    def code(values: Iterable[float | None]) -> bytes:
        known = [-inf if value is None else value for value in values]
        return bytes(map(bisect_right, repeat(starts), known))

    return _Coding(code, [*range(1, len(starts) + 1), 0])


def layout_of(sizes: Mapping[str, int]) -> str:
    """The layout of histograms of these sizes, in their order."""
    return " ".join(f"{name}:{size}" for name, size in sizes.items())


def histograms(layout: str, counts: Sequence[int]) -> dict[str, Sequence[int]]:
    """The histograms in ``counts``, by their names."""
    found = {}
    start = 0
    for each in layout.split(" "):
        name, _, size = each.partition(":")
        found[name] = counts[start : start + int(size)]
        start += int(size)
    return found


class KnownBins:
    """The bins of the bundles that were looked up in one database; a bundle never changes."""

    def __init__(self) -> None:
        self._registered: dict[str, Bins] = {}
        self._ask_again_at_s: dict[str, float] = {}

    @cached_property
    def _unregistered(self) -> Bins:
        return Bins({})

    async def find(
        self, connection: asyncpg.Connection, versions: Collection[str]
    ) -> Mapping[str, Bins]:
        """The bins of each version; a bundle that is not registered has none for numbers."""
        now_s = monotonic()
        due = [
            version
            for version in versions
            if version not in self._registered and self._ask_again_at_s.get(version, 0.0) <= now_s
        ]
        if due:
            found = await connection.fetch(_FIND, due)
            self._registered |= {version: Bins(edges_of(content)) for version, content in found}
            self._ask_again_at_s |= dict.fromkeys(due, now_s + ASK_AGAIN_S)
        return {version: self._registered.get(version, self._unregistered) for version in versions}


_FIND: Final = "SELECT version, manifest FROM bundles WHERE version = ANY($1)"
_known: Final[WeakKeyDictionary[AsyncEngine, KnownBins]] = WeakKeyDictionary()


def known_bins(engine: AsyncEngine) -> KnownBins:
    """What this process knows of the bundles in the database of ``engine``."""
    return _known.setdefault(engine, KnownBins())

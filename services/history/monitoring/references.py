"""What a bundle's manifest says of the rows its models were trained on."""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from operator import add
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.history.binning import OTHER
from services.history.estimates import Count
from services.history.tables import HISTOGRAM_BUCKETS, MISSING, bundles
from shared.contract.application import COUNTS_AS_ZERO, FIELDS

SCORE_BINS: Final = HISTOGRAM_BUCKETS // 2


class _Numeric(BaseModel):
    kind: Literal["numeric"]
    bin_edges: Annotated[list[float], Field(min_length=2)]
    counts: list[int]
    missing: int


class _Categorical(BaseModel):
    kind: Literal["categorical"]
    counts: dict[str, int]
    missing: int


class Rates(BaseModel):
    """Out of fold, by group of an attribute."""

    selection_rates: dict[str, float]
    true_positive_rates: dict[str, float]


class _Model(BaseModel):
    fairness: dict[str, Rates] = {}


class _Manifest(BaseModel):
    threshold: float = 0.5
    inputs: dict[str, Annotated[_Numeric | _Categorical, Field(discriminator="kind")]]
    models: dict[str, _Model]
    scores: dict[str, list[int]] | None = None


class Bin(NamedTuple):
    """A value of a category, or a range; a range without a bound has none on that side."""

    value: str | None
    at_least: float | None = None
    below: float | None = None


class ReferenceBins(NamedTuple):
    """The reference of an input or of the score, in the bins of the roll-up's histograms."""

    bins: Sequence[Bin]
    counts: Sequence[int]
    missing_counts_in: int | None = None
    """The bin of the value that a missing one stands for; None where it has a bin of its own."""

    def placed(self, counts: Sequence[int]) -> Sequence[int]:
        """Counts of the same bins with missing values where they belong."""
        if self.missing_counts_in is None:
            return counts
        moved = [*counts[:-1], 0]
        moved[self.missing_counts_in] += counts[-1]
        return moved


class TrainingReference(NamedTuple):
    """What one bundle's models were trained on."""

    inputs: Mapping[str, ReferenceBins]
    """By the input's name; its last bin is for missing values."""
    scores: Mapping[str, ReferenceBins]
    """By model: of the probability of approval, out of fold; not in an older bundle."""
    approves_from: int | None
    """The first bin of the score in which applications are approved; None if that is within one."""
    rates: Mapping[str, Mapping[str, Rates]]
    """By model and attribute."""

    def approved(self, model: str) -> Count | None:
        """How many of the training rows ``model`` approves, out of fold."""
        scores = self.scores.get(model)
        if scores is None or self.approves_from is None:
            return None
        return Count(sum(scores.counts[self.approves_from :]), sum(scores.counts))


async def read_references(
    connection: AsyncConnection, versions: Collection[str]
) -> Mapping[str, TrainingReference]:
    """By bundle, of those that are registered with a manifest that can be read."""
    statement = select(bundles.c.version, bundles.c.manifest).where(bundles.c.version.in_(versions))
    return {
        version: reference
        for version, content in await connection.execute(statement)
        if (reference := parse_reference(content)) is not None
    }


def parse_reference(content: str) -> TrainingReference | None:
    """What a manifest says; None where a later version of manifests writes it otherwise."""
    try:
        manifest = _Manifest.model_validate_json(content)
    except ValidationError:
        return None
    inputs: dict[str, ReferenceBins] = {}
    for field in FIELDS:
        found = manifest.inputs.get(field.name)
        if isinstance(found, _Numeric):
            inputs[field.name] = _numeric(found, missing_is_zero=field.name in COUNTS_AS_ZERO)
        elif found is not None and field.allowed:
            inputs[field.name] = _categorical(found, [str(value) for value in field.allowed])
    scores = {
        model: ReferenceBins(_SCORE_BINS, tenths(counts))
        for model, counts in (manifest.scores or {}).items()
        if len(counts) == HISTOGRAM_BUCKETS
    }
    approves_from = manifest.threshold * SCORE_BINS
    return TrainingReference(
        inputs=_usable(inputs),
        scores=_usable(scores),
        approves_from=int(approves_from) if approves_from.is_integer() else None,
        rates={name: model.fairness for name, model in manifest.models.items()},
    )


def _usable(found: Mapping[str, ReferenceBins]) -> Mapping[str, ReferenceBins]:
    """Without those that no count can be compared with."""
    return {
        name: reference
        for name, reference in found.items()
        if len(reference.counts) == len(reference.bins) and any(reference.counts)
    }


_SCORE_BINS: Final = tuple(
    Bin(None, number / SCORE_BINS, (number + 1) / SCORE_BINS) for number in range(SCORE_BINS)
)


def tenths(counts: Sequence[int]) -> Sequence[int]:
    """The histogram of the score, in bins of a tenth: finer ones would hold too few rows each."""
    return [*map(add, counts[::2], counts[1::2])]


def _numeric(found: _Numeric, *, missing_is_zero: bool) -> ReferenceBins:
    edges = found.bin_edges
    ranges = [
        Bin(None, at_least, below)
        for at_least, below in zip([None, *edges], [*edges, None], strict=True)
    ]
    return ReferenceBins(
        bins=(*ranges, Bin(MISSING)),
        counts=(0, *found.counts, 0, found.missing),
        missing_counts_in=bisect_right(edges, 0.0) if missing_is_zero else None,
    )


def _categorical(found: _Categorical, allowed: Sequence[str]) -> ReferenceBins:
    counts = [found.counts.get(value, 0) for value in allowed]
    other = sum(found.counts.values()) - sum(counts)
    return ReferenceBins(
        bins=(*map(Bin, allowed), Bin(OTHER), Bin(MISSING)),
        counts=(*counts, other, found.missing),
    )

"""How fast each route answers, from the histograms that Prometheus gets."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Final

from pydantic import BaseModel, Field

from shared.observability.metrics.names import CACHE_HITS, CACHE_MISSES, HTTP_REQUEST_DURATION
from shared.observability.metrics.samples import Distribution, Sample, merged

_MS_PER_S: Final = 1000
_BOUNDS: Final = HTTP_REQUEST_DURATION.bounds
_LONGEST_MS: Final = _BOUNDS[-1] * _MS_PER_S
_WIDEST: Final = max(upper / lower for lower, upper in pairwise(_BOUNDS))
_ESTIMATED: Final = (
    "An estimate in milliseconds: interpolated in a bucket of the histogram whose upper bound is at"
    f" most {_WIDEST:.2f} times its lower one; in the first, between 0 and"
    f" {_BOUNDS[0] * _MS_PER_S:g}. {_LONGEST_MS:g} stands for that and everything longer."
)


class RoutePerformance(BaseModel):
    """How long the answers of one route took, from a request's arrival to its answer's end."""

    method: str
    route: str = Field(description="The template of the path; unknown for paths of no route.")
    requests: int = Field(description="Whatever the status of their answers.")
    mean_ms: float = Field(description="In milliseconds, exact.")
    median_ms: float = Field(description=_ESTIMATED)
    p95_ms: float = Field(description=_ESTIMATED)
    p99_ms: float = Field(description=_ESTIMATED)


class Performance(BaseModel):
    """All requests since this replica of the service was started."""

    routes: list[RoutePerformance] = Field(description="The most requested first.")
    cache_hit_rate: float | None = Field(
        description="Share of the answers that could come from the cache and did, 0 to 1; null"
        " before the first, and where there is no cache."
    )


def performance_of(samples: Iterable[Sample]) -> Performance:
    """The performance that a process's samples show."""
    durations: dict[tuple[str, str], list[Distribution]] = {}
    cache = {CACHE_HITS: 0.0, CACHE_MISSES: 0.0}
    for metric, value, labels in samples:
        if metric is HTTP_REQUEST_DURATION and isinstance(value, Distribution):
            method, route, _ = labels
            durations.setdefault((method, route), []).append(value)
        elif metric in cache and isinstance(value, float | int):
            cache[metric] = value
    routes = [
        _route(method, route, merged(of_statuses))
        for (method, route), of_statuses in durations.items()
    ]
    hits, answers = cache[CACHE_HITS], sum(cache.values())
    return Performance(
        routes=sorted(routes, key=lambda route: (-route.requests, route.route, route.method)),
        cache_hit_rate=hits / answers if answers else None,
    )


def _route(method: str, route: str, durations: Distribution) -> RoutePerformance:
    return RoutePerformance(
        method=method,
        route=route,
        requests=durations.size,
        mean_ms=durations.total / durations.size * _MS_PER_S,
        median_ms=quantile(durations, _BOUNDS, 0.5) * _MS_PER_S,
        p95_ms=quantile(durations, _BOUNDS, 0.95) * _MS_PER_S,
        p99_ms=quantile(durations, _BOUNDS, 0.99) * _MS_PER_S,
    )


def quantile(found: Distribution, bounds: Sequence[float], share: float) -> float:
    """The value that ``share`` of the values do not exceed, as if each bucket were evenly filled.

    Like Prometheus' ``histogram_quantile``; beyond the last bound it is that bound.
    """
    wanted = share * found.size
    lower, below = 0.0, 0
    for upper, up_to in zip(bounds, accumulate(found.counts), strict=False):
        if up_to >= wanted:
            return lower + (upper - lower) * (wanted - below) / (up_to - below)
        lower, below = upper, up_to
    return bounds[-1]

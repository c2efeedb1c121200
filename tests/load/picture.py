"""A picture of a load run: answers per second, and how long they took."""

from collections import defaultdict
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.load.results import Results, percentile

_MS_PER_S: Final = 1000
_OVER_TIME: Final = (50.0, 99.0, 99.9)
_DISTRIBUTION: Final = (10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 100)


def draw(path: Path, results: Results, *, starts_at_s: float, title: str) -> None:
    """Write an SVG of throughput and latency over time, and of latency by percentile."""
    seconds: defaultdict[int, list[float]] = defaultdict(list)
    for sample in results.samples:
        seconds[int(sample.done_s - starts_at_s)].append(sample.latency_s * _MS_PER_S)
    figure = Figure(figsize=(9, 9), layout="constrained")
    throughput, latency, distribution = figure.subplots(3, 1)
    figure.suptitle(title)
    _draw_throughput(throughput, seconds)
    _draw_latency(latency, seconds)
    _draw_distribution(distribution, [time for times in seconds.values() for time in times])
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(path, format="svg")


def _draw_throughput(axes: Axes, seconds: dict[int, list[float]]) -> None:
    moments = sorted(seconds)
    axes.bar(moments, [len(seconds[moment]) for moment in moments], width=1.0, align="edge")
    axes.set(xlabel="second", ylabel="answered per second")
    axes.grid(visible=True, alpha=0.3)


def _draw_latency(axes: Axes, seconds: dict[int, list[float]]) -> None:
    moments = sorted(seconds)
    ordered = [sorted(seconds[moment]) for moment in moments]
    for rank in _OVER_TIME:
        axes.plot(moments, [percentile(times, rank) for times in ordered], label=f"p{rank:g}")
    axes.set(xlabel="second", ylabel="latency from the schedule, ms", yscale="log")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()


def _draw_distribution(axes: Axes, times: list[float]) -> None:
    ordered = sorted(times)
    axes.plot(
        [f"{rank:g}" for rank in _DISTRIBUTION],
        [percentile(ordered, rank) for rank in _DISTRIBUTION] if ordered else [],
        marker="o",
    )
    axes.set(xlabel="percentile", ylabel="latency from the schedule, ms", yscale="log")
    axes.grid(visible=True, alpha=0.3)

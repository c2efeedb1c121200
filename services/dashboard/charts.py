"""Pictures of figures as SVG and HTML: no script, readable in both themes and by a screen reader.

Each picture says in words what it shows; the figures themselves stand beside it as text.
"""

from collections.abc import Iterable, Sequence
from math import pi
from typing import Final, NamedTuple

from markupsafe import Markup

from loan_predictor_client.models import Bucket, Day, Interval, Probability, Summary
from services.dashboard.formatting import count, percent

_MOST_LABELS: Final = 6
_EMPTY: Final = Markup("")


def ring(share: float, *, approved: bool, label: str) -> Markup:
    """A ring filled by ``share``, with the figure in its middle."""
    radius = 42
    length = 2 * pi * radius
    return Markup(
        '<svg class="lp-ring" viewBox="0 0 104 104" role="img" aria-label="{label}">'
        '<circle cx="52" cy="52" r="{r}" fill="none" stroke="var(--sunken)" stroke-width="10"/>'
        '<circle cx="52" cy="52" r="{r}" fill="none" stroke="var(--{kind})" stroke-width="10"'
        ' stroke-linecap="round" stroke-dasharray="{filled:.2f} {length:.2f}"'
        ' transform="rotate(-90 52 52)"/>'
        '<text x="52" y="59" text-anchor="middle">{figure}</text></svg>'
    ).format(
        label=label,
        r=radius,
        kind="yes" if approved else "no",
        filled=length * share,
        length=length,
        figure=percent(share),
    )


def split(probability: Probability) -> Markup:
    """Both probabilities as one bar, with their figures."""
    approved, rejected = percent(probability.approved), percent(probability.rejected)
    return Markup(
        '<div class="lp-split"><div class="lp-split-bar" role="img"'
        ' aria-label="Probability of approval {yes}, of rejection {no}">'
        '<span class="lp-fill-yes" style="width:{width:.3f}%"></span>'
        '<span class="lp-fill-no" style="flex:1"></span></div>'
        '<div class="lp-split-legend">'
        '<span><i class="lp-dot lp-fill-yes"></i>Approval'
        ' <b data-figure="approved">{yes}</b></span>'
        '<span><i class="lp-dot lp-fill-no"></i>Rejection <b data-figure="rejected">{no}</b></span>'
        "</div></div>"
    ).format(yes=approved, no=rejected, width=probability.approved * 100)


def rate_bars(groups: Iterable[tuple[str, str, Summary]]) -> Markup:
    """The approval rate of each group, given as (key, title, figures)."""
    return Markup('<div class="lp-bars">{}</div>').format(
        _EMPTY.join(
            Markup(
                '<div class="lp-bar-row" data-group="{key}"><div><span>{title}</span><span>'
                '<b data-figure="rate">{rate}</b> <span class="lp-muted">of '
                '<span data-figure="total">{total}</span></span></span></div>'
                '<div class="lp-track" aria-hidden="true">'
                '<span class="lp-fill-accent" style="width:{width:.2f}%"></span></div></div>'
            ).format(
                key=key,
                title=title,
                rate=percent(summary.approval_rate),
                total=count(summary.total_predictions),
                width=(summary.approval_rate or 0) * 100,
            )
            for key, title, summary in groups
        )
    )


def trend(days: Sequence[Day]) -> Markup:
    """The approval rate of each day as a curve over columns of the days' decisions."""
    most = max((day.total_predictions for day in days), default=1) or 1
    slots = [
        ((i + 0.5) * 100 / len(days), day.approval_rate or 0.0, day) for i, day in enumerate(days)
    ]
    columns = _EMPTY.join(
        Markup('<i class="lp-soft" style="left:{:.2f}%;height:{:.2f}%"></i>').format(
            x, 60 * day.total_predictions / most
        )
        for x, _, day in slots
    )
    points = _EMPTY.join(
        Markup('<i class="lp-point" style="left:{:.2f}%;bottom:{:.2f}%"></i>').format(x, rate * 100)
        for x, rate, _ in slots
    )
    curve = Markup(
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">'
        '<polyline points="{}"/></svg>'
    ).format(" ".join(f"{x:.2f},{100 - rate * 100:.2f}" for x, rate, _ in slots))
    scale = _EMPTY.join(
        Markup('<span style="bottom:{}%">{}</span>').format(share * 100, percent(share, 0))
        for share in (0, 0.5, 1)
    )
    every = -(-len(slots) // _MOST_LABELS)
    labels = _EMPTY.join(
        Markup('<span style="left:{:.2f}%">{}</span>').format(x, f"{day.date.day} {day.date:%b}")
        for i, (x, _, day) in enumerate(slots)
        if i % every == 0
    )
    return Markup(
        '<div class="lp-trend" role="img" aria-label="Approval rate by day, over the number of'
        ' decisions of each day"><div class="lp-scale">{}</div><div class="lp-plot">{}{}{}</div>'
        '<div class="lp-under">{}</div></div>'
    ).format(scale, columns, curve, points, labels)


def histogram(buckets: Sequence[Bucket]) -> Markup:
    """How many decisions each range of confidence has, from the first to the last that has any."""
    used = [i for i, bucket in enumerate(buckets) if bucket.predictions]
    buckets = buckets[used[0] : used[-1] + 1] if used else ()
    most = max((bucket.predictions for bucket in buckets), default=1) or 1
    columns = _EMPTY.join(
        Markup(
            '<div><b data-bucket="{low:.2f}">{n}</b><i style="height:{tall:.2f}%"></i>'
            "<span>{low_text}</span></div>"
        ).format(
            low=bucket.at_least,
            n=count(bucket.predictions),
            tall=80 * bucket.predictions / most,
            low_text=percent(bucket.at_least, 0),
        )
        for bucket in buckets
    )
    return Markup('<div class="lp-columns">{}</div>').format(columns)


class Ranged(NamedTuple):
    """One line of ``intervals``."""

    title: str
    interval: Interval
    is_baseline: bool


def intervals(rows: Sequence[Ranged]) -> Markup:
    """Means with their 95 % intervals on one scale; the figures stand beside each."""
    lowest = min(row.interval.low for row in rows)
    span = max(row.interval.high for row in rows) - lowest or 1.0

    def line(row: Ranged) -> Markup:
        low, mean, high = (
            (value - lowest) / span * 100
            for value in (row.interval.low, row.interval.mean, row.interval.high)
        )
        return Markup(
            '<div class="lp-range{kind}"><span>{title}</span>'
            '<div class="lp-whiskers" aria-hidden="true">'
            '<i class="lp-whisker" style="left:{low:.2f}%;width:{width:.2f}%"></i>'
            '<i class="lp-mean" style="left:{mean:.2f}%"></i></div>'
            '<span><b data-figure="accuracy">{figure}</b>'
            " <small>{from_}&ndash;{to}</small></span></div>"
        ).format(
            kind=" lp-base" if row.is_baseline else "",
            title=row.title,
            low=low,
            width=high - low,
            mean=mean,
            figure=percent(row.interval.mean),
            from_=percent(row.interval.low),
            to=percent(row.interval.high),
        )

    return Markup('<div class="lp-ranges">{}</div>').format(_EMPTY.join(map(line, rows)))

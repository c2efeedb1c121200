"""How the card writes tables, pictures and numbers."""

from collections.abc import Iterable, Mapping, Sequence

from services.scoring.manifest import PICTURE_FOLDER, Interval, Manifest
from services.training.models import BASELINE_TITLES


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = (header, ("---",) * len(header), *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def picture(name: str, description: str) -> str:
    """The link to a picture of the bundle."""
    return f"![{description}]({PICTURE_FOLDER}/{name}.png)"


def title_of(manifest: Manifest, name: str) -> str:
    """The name for people of a model, or of a baseline; the champion's is marked."""
    model = manifest.models.get(name)
    if model is None:
        return BASELINE_TITLES[name]
    return f"**{model.title}** (champion)" if name == manifest.champion else model.title


def interval_text(interval: Interval) -> str:
    """A mean with its interval."""
    return f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def difference_text(interval: Interval | None) -> str:
    """A paired difference with its interval, signed."""
    if interval is None:
        return "n/a"
    return f"{interval.mean:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"


def rates_text(rates: Mapping[str, float]) -> str:
    """Each group's rate."""
    return ", ".join(f"{group} {rate:.3f}" for group, rate in rates.items())


def optional_text(value: float | None) -> str:
    """A number, or that there is none."""
    return "n/a" if value is None else f"{value:.3f}"

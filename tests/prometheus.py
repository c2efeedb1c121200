"""What a process told Prometheus, read as Prometheus reads it."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


class Exposition:
    """The answer of one /metrics."""

    def __init__(self, text: str) -> None:
        self.families: list[Metric] = list(text_string_to_metric_families(text))

    @property
    def names(self) -> set[str]:
        """Of all metrics, as they are documented."""
        return {
            family.name + ("_total" if family.type == "counter" else "") for family in self.families
        }

    def sum_of(self, name: str, **labels: str) -> float:
        """The sum of every series of that name that has these labels; ``KeyError`` without any."""
        values = [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        if not values:
            raise KeyError((name, labels))
        return sum(values)

    def has(self, names: Iterable[str]) -> set[str]:
        """Those of the names that are there."""
        return self.names.intersection(names)

"""What a process counts about itself, for Prometheus; names and labels are in ``names``.

A request pays a tenth of a microsecond per value: it adds to plain numbers, which become samples
only when Prometheus asks.
"""

from shared.observability.metrics.names import UNKNOWN_ROUTE
from shared.observability.metrics.process import PATH, Metrics, build_info
from shared.observability.metrics.samples import Sample, Source, Tally

__all__ = ["PATH", "UNKNOWN_ROUTE", "Metrics", "Sample", "Source", "Tally", "build_info"]

"""What a process counts about itself, for Prometheus; every name and label stands in ``names``.

Counting costs a request a tenth of a microsecond: it adds to plain numbers, which are made into
samples when somebody asks. Where several workers serve one port, any of them answers for all.
"""

from shared.observability.metrics.names import UNKNOWN_ROUTE
from shared.observability.metrics.process import PATH, Metrics, build_info
from shared.observability.metrics.samples import Sample, Source, Tally

__all__ = ["PATH", "UNKNOWN_ROUTE", "Metrics", "Sample", "Source", "Tally", "build_info"]

"""When each request is due, in an open model: a slow answer delays no later request."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """``rate`` requests per second for ``duration_s``, evenly spaced from ``starts_at_s``.

    Times are from ``time.monotonic``, which all processes of a machine share.
    """

    starts_at_s: float
    rate: float
    duration_s: float

    @property
    def requests(self) -> int:
        """The total number of requests."""
        return round(self.rate * self.duration_s)

    @property
    def ends_at_s(self) -> float:
        """One interval after the last request is due."""
        return self.starts_at_s + self.duration_s

    def share(self, process: int, *, of: int) -> Iterator[tuple[int, float]]:
        """Yield the number and due time of each request that one of the processes sends."""
        for number in range(process, self.requests, of):
            yield number, self.starts_at_s + number / self.rate

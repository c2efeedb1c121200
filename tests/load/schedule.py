"""When each request is due: an open model, in which a slow answer delays no later request."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """``rate`` requests per second for ``duration_s`` from ``starts_at_s`` on, at equal distances.

    Times are of ``time.monotonic``, which all processes of a machine share.
    """

    starts_at_s: float
    rate: float
    duration_s: float

    @property
    def requests(self) -> int:
        """How many requests there are in all."""
        return round(self.rate * self.duration_s)

    @property
    def ends_at_s(self) -> float:
        """When the last request is due, and one distance has passed."""
        return self.starts_at_s + self.duration_s

    def share(self, process: int, *, of: int) -> Iterator[tuple[int, float]]:
        """The number and the due time of each request that one of the processes sends."""
        for number in range(process, self.requests, of):
            yield number, self.starts_at_s + number / self.rate

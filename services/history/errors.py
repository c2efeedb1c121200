"""The errors of the history service that a caller can be told about."""

from typing import ClassVar

from shared.errors import ServiceError


class StoreUnavailable(ServiceError):
    """The database cannot be reached or does not take part just now; asking again may help."""

    status = 503
    title = "Records unavailable"
    retry_after_s: ClassVar[int] = 1

    def headers(self) -> dict[str, str]:
        """Say when to try again."""
        return {"retry-after": str(self.retry_after_s)}

"""Why the registry refuses a change of bundles or of the roll-out."""

from shared.contract.errors import Fault, InvalidInput, NotFound, ServiceError, TryAgain


class UnusableBundle(InvalidInput):
    """The bundle is not one that can be served; nothing is kept or changed."""

    title = "Unusable bundle"

    def __init__(self, detail: str) -> None:
        super().__init__([Fault(field="bundle", message=detail)])
        self.detail = detail


class RolloutChanged(ServiceError):
    """The change is based on a roll-out that is not the newest any more."""

    status = 409
    title = "Roll-out changed"

    def __init__(self, newest: int) -> None:
        super().__init__(
            f"The newest roll-out has the epoch {newest}: look at it, and send the change with that"
            " epoch."
        )
        self.newest = newest

    def members(self) -> dict[str, object]:
        """The epoch to base a change on."""
        return {"epoch": self.newest}


class NotPossible(ServiceError):
    """What is asked for does not fit what is rolled out."""

    status = 409
    title = "Not possible now"


class SecondPersonNeeded(ServiceError):
    """The caller proposed this, and so cannot approve it."""

    status = 403
    title = "Second person needed"

    def __init__(self, proposer: str) -> None:
        super().__init__(f"{proposer} proposed this roll-out; another key has to approve it.")


class StoreUnusable(TryAgain):
    """The bundle store cannot be read or written just now."""

    title = "Bundle store unusable"


def unknown_bundle(version: str) -> NotFound:
    """The error for a bundle that is not registered."""
    return NotFound(f"No bundle {version} is registered here; loan-predictor bundle list has all.")

"""Errors of the inference service that a caller can be told about."""

from shared.errors import NotFound


class UnknownModel(NotFound):
    """No model of that name is served."""

    title = "Unknown model"

    def __init__(self, name: str, served: tuple[str, ...]) -> None:
        super().__init__(f"There is no model {name!r}; there are: {', '.join(served)}.")

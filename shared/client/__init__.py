"""The client of both services, for other Python programs.

``LoanPredictorClient`` and ``AsyncLoanPredictorClient`` have the same methods. What is asked is in
``calls``, what is answered in ``answers``, when to ask again in ``attempts``: all of it without
any input or output, so that the two clients differ only in how they send and how they wait.
"""

from shared.client.asynchronous import AsyncLoanPredictorClient
from shared.client.attempts import Patience
from shared.client.errors import (
    AccessDenied,
    ApiError,
    CallFailed,
    InvalidRequest,
    MissingResource,
    RateLimited,
    ServiceUnreachable,
    Unavailable,
    UnreadableAnswer,
)
from shared.client.filters import Filters
from shared.client.synchronous import LoanPredictorClient

__all__ = [
    "AccessDenied",
    "ApiError",
    "AsyncLoanPredictorClient",
    "CallFailed",
    "Filters",
    "InvalidRequest",
    "LoanPredictorClient",
    "MissingResource",
    "Patience",
    "RateLimited",
    "ServiceUnreachable",
    "Unavailable",
    "UnreadableAnswer",
]

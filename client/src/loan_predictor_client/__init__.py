"""The client of both services, for other Python programs.

``LoanPredictorClient`` and ``AsyncLoanPredictorClient`` have the same methods. What is asked is in
``calls``, what is answered in ``answers``, when to ask again in ``attempts``: all of it without
any input or output, so that the two clients differ only in how they send and how they wait.
"""

from loan_predictor_client.asynchronous import AsyncLoanPredictorClient
from loan_predictor_client.attempts import RetryPolicy
from loan_predictor_client.errors import (
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
from loan_predictor_client.filters import Filters
from loan_predictor_client.synchronous import LoanPredictorClient

__all__ = [
    "AccessDenied",
    "ApiError",
    "AsyncLoanPredictorClient",
    "CallFailed",
    "Filters",
    "InvalidRequest",
    "LoanPredictorClient",
    "MissingResource",
    "RateLimited",
    "RetryPolicy",
    "ServiceUnreachable",
    "Unavailable",
    "UnreadableAnswer",
]

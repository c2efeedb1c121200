"""The Python client of the loan predictor.

``LoanPredictorClient`` and ``AsyncLoanPredictorClient`` have the same methods. ``calls`` defines what
is sent and how the answer is read, ``models`` the answers, ``attempts`` when to send again. None of
them does any input or output, so the two clients differ only in how they send and how they wait.
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
from loan_predictor_client.models import Application, Decision, Fault, Record
from loan_predictor_client.synchronous import LoanPredictorClient

__all__ = [
    "AccessDenied",
    "ApiError",
    "Application",
    "AsyncLoanPredictorClient",
    "CallFailed",
    "Decision",
    "Fault",
    "Filters",
    "InvalidRequest",
    "LoanPredictorClient",
    "MissingResource",
    "RateLimited",
    "Record",
    "RetryPolicy",
    "ServiceUnreachable",
    "Unavailable",
    "UnreadableAnswer",
]

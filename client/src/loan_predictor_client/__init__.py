"""The Python client of the loan predictor.

``LoanPredictorClient`` and ``AsyncLoanPredictorClient`` have the same methods. ``calls`` defines
the requests and how their answers are parsed, ``models`` the answers, ``attempts`` the retries.
None of them does input or output, so the two differ only in how they send and how they wait.
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
    UnsendableCall,
)
from loan_predictor_client.filters import Cohorts, Filters, OutcomeKind, Prediction
from loan_predictor_client.models import Application, Decision, Fault, Record
from loan_predictor_client.synchronous import LoanPredictorClient

__all__ = [
    "AccessDenied",
    "ApiError",
    "Application",
    "AsyncLoanPredictorClient",
    "CallFailed",
    "Cohorts",
    "Decision",
    "Fault",
    "Filters",
    "InvalidRequest",
    "LoanPredictorClient",
    "MissingResource",
    "OutcomeKind",
    "Prediction",
    "RateLimited",
    "Record",
    "RetryPolicy",
    "ServiceUnreachable",
    "Unavailable",
    "UnreadableAnswer",
    "UnsendableCall",
]

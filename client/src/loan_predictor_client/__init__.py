"""The Python client of the loan predictor.

``LoanPredictorClient`` and ``AsyncLoanPredictorClient`` have the same methods. ``calls`` defines
the requests and how their answers are parsed, ``models`` the answers, ``attempts`` the retries.
None of them does input or output, so the two differ only in how they send and how they wait.
"""

from loan_predictor_client.asynchronous import AsyncLoanPredictorClient
from loan_predictor_client.attempts import RetryPolicy
from loan_predictor_client.calls import FaultyRow
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
from loan_predictor_client.models import (
    Analytics,
    Application,
    Batch,
    BatchPage,
    Benchmark,
    ChampionInfo,
    Decision,
    Erasure,
    Explanation,
    Fault,
    Health,
    LivePerformance,
    ManyDecisions,
    ModelComparison,
    ModelDetail,
    ModelList,
    ModelScorecard,
    OutcomeReceipt,
    Page,
    Performance,
    Record,
    Replay,
    Statistics,
    ValidationReport,
    ValidationRules,
    Vintages,
)
from loan_predictor_client.synchronous import LoanPredictorClient

__all__ = [
    "AccessDenied",
    "Analytics",
    "ApiError",
    "Application",
    "AsyncLoanPredictorClient",
    "Batch",
    "BatchPage",
    "Benchmark",
    "CallFailed",
    "ChampionInfo",
    "Cohorts",
    "Decision",
    "Erasure",
    "Explanation",
    "Fault",
    "FaultyRow",
    "Filters",
    "Health",
    "InvalidRequest",
    "LivePerformance",
    "LoanPredictorClient",
    "ManyDecisions",
    "MissingResource",
    "ModelComparison",
    "ModelDetail",
    "ModelList",
    "ModelScorecard",
    "OutcomeKind",
    "OutcomeReceipt",
    "Page",
    "Performance",
    "Prediction",
    "RateLimited",
    "Record",
    "Replay",
    "RetryPolicy",
    "ServiceUnreachable",
    "Statistics",
    "Unavailable",
    "UnreadableAnswer",
    "UnsendableCall",
    "ValidationReport",
    "ValidationRules",
    "Vintages",
]

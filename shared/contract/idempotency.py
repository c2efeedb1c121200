"""Where answers to requests with an Idempotency-Key are kept in Redis, for both services.

Inference stores them; history removes the answer of a decision that is erased.
"""

from uuid import UUID


def answer_key(prediction_id: UUID) -> str:
    """The key of the bytes that answered the request whose decision has this id."""
    return f"idempotency:answer:{prediction_id}"

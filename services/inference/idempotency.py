"""What an Idempotency-Key names a request by."""

from hashlib import sha256
from typing import Any, Final

from starlette.types import Scope

from services.scoring.idempotency import NamedRequest
from shared.access.middleware import address_of, caller_of
from shared.web.idempotency import header_doc

HEADER_DOC: Final[dict[str, Any]] = header_doc(
    "Names this request: sent again by the same caller within 24 hours, with the same body, it gets"
    " the same answer and is not recorded again."
)


def named_request(scope: Scope, *, key: bytes, body: bytes) -> NamedRequest:
    """The request as its key names it. An anonymous caller is its address."""
    caller = caller_of(scope)
    name = ("client", caller.name) if caller.authenticated else ("at", address_of(scope))
    operation: str = scope["path"]
    if query := scope["query_string"]:
        operation += "?" + query.decode("latin-1")
    return NamedRequest(name, operation, key, sha256(body).digest())

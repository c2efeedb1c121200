"""The Idempotency-Key header, and what it names a request by."""

import re
from hashlib import sha256
from typing import Any, Final

from starlette.types import Scope

from services.scoring.idempotency import NamedRequest
from shared.access.middleware import address_of, caller_of
from shared.contract.errors import Fault, InvalidInput

MAX_KEY_LENGTH: Final = 255

_HEADER: Final = b"idempotency-key"
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_KEY_LENGTH)

HEADER_DOC: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Names this request: sent again by the same caller within 24 hours, with the"
    " same body, it gets the same answer and is not recorded again.",
    "schema": {"type": "string", "pattern": f"^[!-~]{{1,{MAX_KEY_LENGTH}}}$"},
}


def idempotency_key(scope: Scope) -> bytes | None:
    """The request's Idempotency-Key, None without one; raises ``InvalidInput``."""
    key: bytes | None = None
    # A plain loop: every request goes through it, and hardly one has the header.
    for name, value in scope["headers"]:
        if name == _HEADER:
            if key is not None:
                raise _fault("must be sent once", value)
            key = value
    if key is not None and not _VISIBLE.fullmatch(key):
        raise _fault(f"must be 1 to {MAX_KEY_LENGTH} visible ASCII characters", key)
    return key


def named_request(scope: Scope, *, key: bytes, body: bytes) -> NamedRequest:
    """The request as its key names it. An anonymous caller is its address."""
    caller = caller_of(scope)
    name = ("client", caller.name) if caller.authenticated else ("at", address_of(scope))
    return NamedRequest(name, scope["path"], key, sha256(body).digest())


def _fault(message: str, value: bytes) -> InvalidInput:
    fault = Fault(field="Idempotency-Key", message=message, value=value.decode("latin-1"))
    return InvalidInput([fault])

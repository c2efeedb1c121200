"""The Idempotency-Key header of a request."""

import re
from typing import Any, Final

from starlette.types import Scope

from shared.contract.errors import Fault, InvalidInput

MAX_KEY_LENGTH: Final = 255

_HEADER: Final = b"idempotency-key"
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_KEY_LENGTH)


def header_doc(description: str) -> dict[str, Any]:
    """The parameter object of the header for OpenAPI."""
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": description,
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


def _fault(message: str, value: bytes) -> InvalidInput:
    fault = Fault(field="Idempotency-Key", message=message, value=value.decode("latin-1"))
    return InvalidInput([fault])

"""Callers and what they may do: API keys with scopes.

Only hashes of keys are configured. A key is 32 random bytes, so a plain SHA-256 of it cannot be
reversed; a slow password hash would only slow every request down. To rotate a key, configure the
new one next to the old one for a while: several keys may have one name.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hmac import compare_digest
from typing import Final, Literal, cast, get_args

from starlette.types import Scope

from shared.access.limits import UNLIMITED, Limits, parse_limits
from shared.contract.errors import ServiceError
from shared.contract.events import ANONYMOUS

KeyScope = Literal[
    "predict",
    "batch",
    "history:read",
    "history:erase",
    "outcomes:write",
    "replay",
    "admin",
    "internal",
]
"""What a key allows; ``internal`` is for the services among themselves."""
KEY_SCOPES: Final[tuple[KeyScope, ...]] = get_args(KeyScope)
DASHBOARD_SCOPES: Final[tuple[KeyScope, ...]] = (
    *("predict", "batch", "history:read", "outcomes:write", "replay"),
)
"""What people do on the dashboard."""

_KEY_PREFIX: Final = "lp_"
_MAX_NAME_LENGTH: Final = 64
_MAX_SHOWN_LENGTH: Final = 20
_NAME_RULE: Final = "the name must be letters, digits and hyphens"
_DIGEST: Final = re.compile("[0-9a-fA-F]{64}")


class Unauthenticated(ServiceError):
    """The request has no API key where one is needed, or an unknown one."""

    status = 401
    title = "Not authenticated"

    def __init__(
        self, detail: str = "Send a valid API key as X-API-Key or Authorization: Bearer."
    ) -> None:
        super().__init__(detail)


class Forbidden(ServiceError):
    """The caller is known and may not do this."""

    status = 403
    title = "Not allowed"

    def __init__(self, scope: KeyScope) -> None:
        super().__init__(f"This needs an API key with the scope {scope}.")


@dataclass(frozen=True)
class Caller:
    """Where a request comes from; ``limits`` None means those of anonymous callers."""

    name: str
    scopes: frozenset[KeyScope]
    limits: Limits | None
    authenticated: bool = True

    def require(self, scope: KeyScope) -> None:
        """Raise ``Unauthenticated`` or ``Forbidden`` unless the caller has ``scope``."""
        if scope in self.scopes:
            return
        if not self.authenticated:
            raise Unauthenticated
        raise Forbidden(scope)


def anonymous(*scopes: KeyScope) -> Caller:
    """A caller without a key, allowed ``scopes``."""
    return Caller(name=ANONYMOUS, scopes=frozenset(scopes), limits=None, authenticated=False)


@dataclass(frozen=True)
class ApiKey:
    """A configured key: the hash of its secret, and the caller that has it."""

    digest: bytes
    caller: Caller


def mint_key(name: str, scopes: Iterable[str], limits: str = UNLIMITED) -> tuple[str, str]:
    """A fresh secret, to be shown once, and its entry for ``parse_keys``.

    Raises ``ValueError`` for a name, scope or limit that ``parse_keys`` would refuse.
    """
    secret = _KEY_PREFIX + secrets.token_urlsafe(32)
    return secret, key_entry(secret, name, scopes, limits)


def key_entry(secret: str, name: str, scopes: Iterable[str], limits: str = UNLIMITED) -> str:
    """The entry that makes ``secret`` a key; raises ``ValueError`` as ``parse_keys`` does."""
    if ":" in name:
        raise ValueError(_NAME_RULE)
    entry = f"{name}:{limits}:{_digest(secret.encode()).hex()}:{','.join(scopes)}"
    parse_keys(entry)
    return entry


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys in ``text``: entries ``name:limits:sha256:scope,scope`` between white space.

    Raises ``ValueError`` naming the entry that is wrong, never its hash or its secret, even if
    they stand in the wrong place.
    """
    return tuple(_parse_entry(number, entry) for number, entry in enumerate(text.split(), start=1))


def _parse_entry(number: int, entry: str) -> ApiKey:
    parts = entry.split(":", 3)
    if len(parts) != 4:
        raise ValueError(f"API key entry {number} must be name:limits:sha256:scope,scope")
    name, limits, digest, scopes = parts
    unknown = set(scopes.split(",")) - set(KEY_SCOPES)
    if unknown:
        shown = sorted(map(_shown, unknown))
        raise ValueError(
            f"API key entry {number}: unknown scopes {shown}; there are {', '.join(KEY_SCOPES)}"
        )
    if name == ANONYMOUS or not (name.isascii() and name.replace("-", "").isalnum()):
        raise ValueError(f"API key entry {number}: {_NAME_RULE}")
    if len(name) > _MAX_NAME_LENGTH:
        raise ValueError(f"API key entry {number}: the name has over {_MAX_NAME_LENGTH} characters")
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"API key entry {number} ({name}): the hash must be 64 hex digits")
    try:
        parsed_limits = parse_limits(limits)
    except ValueError:
        raise ValueError(f"API key entry {number}: {_shown(limits)} is no limit") from None
    caller = Caller(
        name=name,
        scopes=cast("frozenset[KeyScope]", frozenset(scopes.split(","))),
        limits=parsed_limits,
    )
    return ApiKey(digest=bytes.fromhex(digest), caller=caller)


def _shown(text: str) -> str:
    """The text, shortened if it may be a hash or a secret in the wrong place."""
    return text if len(text) <= _MAX_SHOWN_LENGTH else f"{text[:3]}…"


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def identify(scope: Scope, keys: Iterable[ApiKey], anonymous: Caller) -> Caller:
    """The caller whose key the request has; ``anonymous`` if it has none.

    Compares every configured key in constant time. Raises ``Unauthenticated`` for an empty or
    unknown key, for two keys, and for an ``Authorization`` of another form without a key.
    """
    secret = _presented(scope)
    if secret is None:
        return anonymous
    digest = _digest(secret)
    found = None
    for key in keys:
        if compare_digest(digest, key.digest):
            found = key.caller
    if found is None:
        raise Unauthenticated
    return found


def _presented(scope: Scope) -> bytes | None:
    """The key in the request, perhaps empty; None without a header for one."""
    presented: list[bytes] = []
    unreadable = False
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            presented.append(value)
        elif name == b"authorization":
            scheme, _, secret = value.partition(b" ")
            if scheme.lower() == b"bearer":
                presented.append(secret.strip())
            else:
                unreadable = True
    if len(presented) > 1:
        raise Unauthenticated("The request has more than one API key; send one.")
    if presented:
        return presented[0]
    if unreadable:
        raise Unauthenticated("Authorization has no API key: send it as Bearer, then the key.")
    return None

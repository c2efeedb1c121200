"""Sessions, in this process's memory, so that signing out ends one at once.

The browser holds a signed random number and nothing else. A restart ends all sessions.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from loan_predictor_client import AsyncLoanPredictorClient

LIFETIME_S: Final = 12 * 3600
MAX_SESSIONS: Final = 1000
"""A further one ends the oldest."""


class SignedOut(Exception):
    """The session of an open page has ended."""


@dataclass
class Session:
    """A signed-in visitor, and the client that calls the services in their name."""

    name: str
    client: AsyncLoanPredictorClient = field(repr=False)
    ends_at_s: float = float("inf")
    identifier: str = field(default="", repr=False)

    @property
    def can_end(self) -> bool:
        """Whether there is anything to sign out of."""
        return self.identifier != ""

    @property
    def api(self) -> AsyncLoanPredictorClient:
        """The client; raises ``SignedOut`` once the session has ended."""
        if time.monotonic() >= self.ends_at_s:
            raise SignedOut
        return self.client


class Sessions:
    """All sessions. ``now_s`` is monotonic."""

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._secret = secrets.token_bytes(32)
        self._sessions: dict[str, Session] = {}
        self._now_s = now_s

    def begin(self, name: str, client: AsyncLoanPredictorClient) -> str:
        """Begin a session; returns the cookie's value."""
        identifier = secrets.token_urlsafe(32)
        while len(self._sessions) >= MAX_SESSIONS:
            self.end(next(iter(self._sessions.values())))
        self._sessions[identifier] = Session(
            name, client, ends_at_s=self._now_s() + LIFETIME_S, identifier=identifier
        )
        return f"{identifier}.{self._signature(identifier)}"

    def find(self, cookie: str) -> Session | None:
        """The session of a cookie's value; None if it has ended or never existed."""
        identifier, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(identifier).encode()):
            return None
        session = self._sessions.get(identifier)
        if session is not None and self._now_s() >= session.ends_at_s:
            self.end(session)
            return None
        return session

    def end(self, session: Session) -> None:
        """End ``session``, also for the pages that are open."""
        session.ends_at_s = float("-inf")
        self._sessions.pop(session.identifier, None)

    def _signature(self, identifier: str) -> str:
        return hmac.new(self._secret, identifier.encode(), hashlib.sha256).hexdigest()

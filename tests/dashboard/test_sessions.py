"""Who is signed in, and for how long."""

import pytest

from loan_predictor_client import AsyncLoanPredictorClient
from services.dashboard.sessions import LIFETIME_S, MAX_SESSIONS, Session, Sessions, SignedOut

_CLIENT = AsyncLoanPredictorClient("http://127.0.0.1:1")


def _found(sessions: Sessions, cookie: str) -> Session:
    session = sessions.find(cookie)
    assert session is not None
    return session


def test_session_ends_when_its_time_is_over() -> None:
    """It is found until then, and forgotten after."""
    now_s = 0.0
    sessions = Sessions(now_s=lambda: now_s)
    cookie = sessions.begin("visitor", _CLIENT)
    now_s = LIFETIME_S - 1
    session = _found(sessions, cookie)
    now_s = LIFETIME_S
    assert sessions.find(cookie) is None
    with pytest.raises(SignedOut):
        _ = session.api


def test_ended_session_calls_nothing() -> None:
    """Not even from a page that is still open."""
    sessions = Sessions()
    session = _found(sessions, sessions.begin("visitor", _CLIENT))
    assert session.api is _CLIENT
    sessions.end(session)
    with pytest.raises(SignedOut):
        _ = session.api


def test_signature_of_another_process_or_session_is_refused() -> None:
    """So is the number alone."""
    sessions = Sessions()
    first, second = (sessions.begin("visitor", _CLIENT) for _ in range(2))
    identifier, _, signature = first.partition(".")
    assert Sessions().find(first) is None
    assert sessions.find(identifier) is None
    assert sessions.find(f"{second.partition('.')[0]}.{signature}") is None


def test_oldest_session_is_displaced() -> None:
    """Memory is bounded."""
    sessions = Sessions()
    cookies = [sessions.begin("visitor", _CLIENT) for _ in range(MAX_SESSIONS + 1)]
    assert sessions.find(cookies[0]) is None
    assert sessions.find(cookies[1]) is not None
    assert sessions.find(cookies[-1]) is not None


def test_this_machines_own_session_has_nothing_to_end() -> None:
    """There is no cookie, so there is no sign-out."""
    session = Session("this machine", _CLIENT)
    assert not session.can_end
    assert session.api is _CLIENT
    assert "127.0.0.1" not in repr(session)

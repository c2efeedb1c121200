"""API keys: minted once, configured as hashes, compared whole."""

import pytest

from shared.access.api_keys import (
    Caller,
    Forbidden,
    Unauthenticated,
    identify,
    mint_key,
    parse_keys,
)

_ANONYMOUS = Caller("anonymous", frozenset({"predict"}), None, authenticated=False)


def _request(*headers: tuple[bytes, bytes]) -> dict[str, object]:
    return {"type": "http", "headers": list(headers)}


@pytest.mark.parametrize(
    ("name", "prefix"),
    [(b"x-api-key", b""), (b"authorization", b"Bearer "), (b"authorization", b"bearer ")],
)
def test_minted_key_identifies_its_client(name: bytes, prefix: bytes) -> None:
    """Either header will do, and the client has the scopes and limits of the key."""
    secret, entry = mint_key("broker-7", ["predict", "history:read"], "1000/minute")
    client = identify(_request((name, prefix + secret.encode())), parse_keys(entry), _ANONYMOUS)
    assert client.name == "broker-7"
    assert client.scopes == {"predict", "history:read"}
    assert client.limits is not None
    assert [str(limit) for limit in client.limits] == ["1000 per 1 minute"]


def test_entry_does_not_hold_the_secret() -> None:
    """What is configured cannot be used as a key."""
    secret, entry = mint_key("broker", ["predict"])
    assert secret not in entry
    assert len(secret) > 40


def test_overlapping_keys_of_one_client_both_work() -> None:
    """Rotation: the old and the new key stand side by side."""
    (old, first), (new, second) = (mint_key("broker", ["predict"]) for _ in range(2))
    keys = parse_keys(f"{first}\n{second}")
    for secret in (old, new):
        assert (
            identify(_request((b"x-api-key", secret.encode())), keys, _ANONYMOUS).name == "broker"
        )


def test_caller_without_a_key_is_anonymous() -> None:
    """No key is not a wrong key."""
    assert identify(_request(), (), _ANONYMOUS) is _ANONYMOUS


@pytest.mark.parametrize("value", [b"Basic abc", b"lp_key", b"", b"Digest username=x"])
def test_authorization_of_another_form_is_not_anonymous(value: bytes) -> None:
    """Whoever sends it means to be known, and would be limited with the anonymous."""
    with pytest.raises(Unauthenticated, match="send it as Bearer"):
        identify(_request((b"authorization", value)), (), _ANONYMOUS)
    secret, entry = mint_key("broker", ["predict"])
    both = _request((b"authorization", value), (b"x-api-key", secret.encode()))
    assert identify(both, parse_keys(entry), _ANONYMOUS).name == "broker"


@pytest.mark.parametrize("second", [(b"x-api-key", b"lp_other"), (b"authorization", b"Bearer lp")])
def test_two_keys_are_refused(second: tuple[bytes, bytes]) -> None:
    """Which of them counts would depend on their order."""
    secret, entry = mint_key("broker", ["predict"])
    first = (b"x-api-key", secret.encode())
    for headers in ((first, second), (second, first)):
        with pytest.raises(Unauthenticated, match="more than one API key"):
            identify(_request(*headers), parse_keys(entry), _ANONYMOUS)


def test_name_that_holds_a_colon_is_named_as_the_fault() -> None:
    """A colon would end the name in the entry."""
    with pytest.raises(ValueError, match=r"^the name must be letters, digits and hyphens$"):
        mint_key("b:b", ["predict"])


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer"),
        (b"authorization", b"bearer "),
        (b"x-api-key", b""),
    ],
)
def test_empty_key_is_not_anonymous(header: tuple[bytes, bytes]) -> None:
    """A caller whose key got lost on the way learns it, and is not limited with the anonymous."""
    with pytest.raises(Unauthenticated):
        identify(_request(header), (), _ANONYMOUS)


def test_unknown_key_is_refused() -> None:
    """A wrong key never falls back to what anonymous callers may."""
    _, entry = mint_key("broker", ["predict"])
    with pytest.raises(Unauthenticated):
        identify(_request((b"x-api-key", b"lp_wrong")), parse_keys(entry), _ANONYMOUS)


def test_scope_is_required_of_known_clients_and_a_key_of_unknown_ones() -> None:
    """403 for a client that may not, 401 for a caller that has not said who it is."""
    known = Caller("broker", frozenset({"predict"}), ())
    known.require("predict")
    with pytest.raises(Forbidden):
        known.require("history:read")
    with pytest.raises(Unauthenticated):
        _ANONYMOUS.require("history:read")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("broker", "must be name:limits:sha256:scope"),
        (f"broker:unlimited:{'0' * 64}:fly", "unknown scopes"),
        (f"broker:unlimited:{'0' * 63}:predict", "64 hex digits"),
        (f"broker:unlimited:{'z' * 64}:predict", "broker.*64 hex digits"),
        (f"bro ker:unlimited:{'0' * 64}:predict", "must be name"),
        (f"bro_ker:unlimited:{'0' * 64}:predict", "letters, digits and hyphens"),
        (f"anonymous:unlimited:{'0' * 64}:predict", "letters, digits and hyphens"),
        (f"{'b' * 65}:unlimited:{'0' * 64}:predict", "over 64 characters"),
        (f"broker:often:{'0' * 64}:predict", "often"),
    ],
)
def test_wrong_entry_is_named(entry: str, reason: str) -> None:
    """A mistake in the configuration is found at the start, with a sentence."""
    with pytest.raises(ValueError, match=reason):
        parse_keys(entry)

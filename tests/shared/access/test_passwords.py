"""Passwords of people: what is configured, and what opens."""

import pytest

from shared.access.passwords import check_entry, is_password, password_entry


def test_entry_opens_for_its_password_alone_and_shows_nothing_of_it() -> None:
    """A plain word that fits an environment file."""
    entry = password_entry("correct horse")
    assert check_entry(entry) == entry
    assert is_password("correct horse", entry)
    assert not is_password("Correct horse", entry)
    assert "correct" not in entry
    assert not set(entry) & set("$'\" #=")


@pytest.mark.parametrize(
    "entry", ["", "plain", "scrypt:x:00:00", "scrypt:16384:00:00", "md5:1:00:" + "00" * 32]
)
def test_what_is_no_entry_is_refused(entry: str) -> None:
    """At start, rather than at the first attempt to sign in."""
    with pytest.raises(ValueError, match="scrypt:cost:salt:hash"):
        check_entry(entry)

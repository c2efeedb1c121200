"""Who is counted as one caller."""

import pytest

from shared.access.middleware import subscriber


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("unknown", "unknown", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_an_ipv6_subscriber_is_one_caller(one: str, other: str, same: bool) -> None:
    """Who is given a whole network of addresses does not get a limit for each of them."""
    assert (subscriber(one) == subscriber(other)) is same

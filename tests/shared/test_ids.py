"""Identifiers that sort by time, and identifiers that are derived."""

from shared.ids import uuid7, uuid8


def test_uuid7_has_version_variant_and_time() -> None:
    """The fields stand where RFC 9562 puts them."""
    moment_ms = 1_700_000_000_123
    identifier = uuid7(moment_ms)
    assert identifier.version == 7
    assert identifier.variant == "specified in RFC 4122"
    assert identifier.int >> 80 == moment_ms


def test_uuid7_sorts_by_time_and_never_repeats() -> None:
    """A later millisecond sorts later, and one millisecond holds many."""
    assert str(uuid7(1000)) < str(uuid7(1001))
    assert len({uuid7(1000) for _ in range(10_000)}) == 10_000


def test_uuid8_keeps_the_digest_but_for_version_and_variant() -> None:
    """122 bits of it stand where they stood, so that two digests collide as seldom as can be."""
    digest = bytes(range(256))[-32:]
    identifier = uuid8(digest)
    assert identifier.version == 8
    assert identifier.variant == "specified in RFC 4122"
    differing = identifier.int ^ int.from_bytes(digest[:16], "big")
    assert differing & ~(0xF << 76 | 0b11 << 62) == 0

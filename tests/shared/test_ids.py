"""Identifiers that sort by time."""

from shared.ids import uuid7


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

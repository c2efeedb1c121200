"""Identifiers that sort by time, and identifiers that are derived."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from shared.contract.ids import first_uuid7_at, is_uuid7, uuid7, uuid7_from, uuid8

_OTHER = UUID("2489e9ad-2ee2-8e00-8ec9-32d5f69181c0")
"""Of version 8, from RFC 9562, appendix B.2, but for its last digits."""


def test_uuid7_has_version_variant_and_time() -> None:
    """The fields stand where RFC 9562 puts them."""
    moment_ms = 1_700_000_000_123
    identifier = UUID(uuid7(moment_ms))
    assert identifier.version == 7
    assert identifier.variant == "specified in RFC 4122"
    assert identifier.int >> 80 == moment_ms


def test_uuid7_sorts_by_time_and_never_repeats() -> None:
    """A later millisecond sorts later, and one millisecond holds many."""
    assert uuid7(1000) < uuid7(1001)
    assert len({uuid7(1000) for _ in range(10_000)}) == 10_000


def test_uuid8_keeps_the_digest_but_for_version_and_variant() -> None:
    """122 bits of it stand where they stood, so that two digests collide as seldom as can be."""
    digest = bytes(range(256))[-32:]
    identifier = uuid8(digest)
    assert identifier.version == 8
    assert identifier.variant == "specified in RFC 4122"
    differing = identifier.int ^ int.from_bytes(digest[:16], "big")
    assert differing & ~(0xF << 76 | 0b11 << 62) == 0


def test_uuid7_from_another_id_is_the_same_each_time_and_sorts_by_the_time() -> None:
    """The time stands first, whatever the other id; two ids of one time differ."""
    moment = datetime(2026, 3, 1, 12, 0, 0, 123_999, UTC)
    identifier = uuid7_from(moment, _OTHER)
    assert identifier == uuid7_from(moment, _OTHER)
    assert is_uuid7(identifier)
    assert identifier.version == 7
    assert identifier.int >> 80 == int(moment.timestamp() * 1000)
    assert first_uuid7_at(moment) < identifier < first_uuid7_at(moment + timedelta(milliseconds=1))
    assert uuid7_from(moment, UUID(int=_OTHER.int + 1)) != identifier


def test_only_version_7_of_the_standard_variant_is_taken_for_one() -> None:
    """Another version, and the same digit in another variant, are something else."""
    assert is_uuid7(UUID(uuid7(1000)))
    assert not is_uuid7(_OTHER)
    assert not is_uuid7(uuid4())
    assert not is_uuid7(UUID(int=UUID(uuid7(1000)).int & ~(0b11 << 62)))

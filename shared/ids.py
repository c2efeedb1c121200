"""Identifiers that sort by the time they were made."""

import os
from uuid import UUID

_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62
_RANDOM_A = (1 << 12) - 1
_RANDOM_B = (1 << 62) - 1


def uuid7(unix_ms: int) -> UUID:
    """A UUID of version 7: 48 bits of Unix milliseconds, then 74 random bits.

    Source: RFC 9562, section 5.7. The standard library has it from Python 3.14 on.
    """
    random_bits = int.from_bytes(os.urandom(10), "big")
    return UUID(
        int=unix_ms << 80
        | _VERSION_7
        | (random_bits >> 68 & _RANDOM_A) << 64
        | _VARIANT
        | random_bits & _RANDOM_B
    )

"""Passwords of people, kept as scrypt hashes: slow to guess, as keys need not be."""

import hashlib
import secrets
from hmac import compare_digest
from typing import Final

_NAME: Final = "scrypt"
_COST: Final = 1 << 14
_BLOCK_SIZE: Final = 8
_PARALLEL: Final = 1
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_MAX_MEMORY_BYTES: Final = 64 * 1024 * 1024


def password_entry(password: str) -> str:
    """The setting for ``password``: ``scrypt:cost:salt:hash``.

    It has no character that is special to a shell or a compose file.
    """
    salt = secrets.token_bytes(_SALT_BYTES)
    return f"{_NAME}:{_COST}:{salt.hex()}:{_hash(password, salt, _COST).hex()}"


def check_entry(entry: str) -> str:
    """``entry`` unchanged; raises ``ValueError`` if ``password_entry`` cannot have made it."""
    _parse(entry)
    return entry


def is_password(password: str, entry: str) -> bool:
    """Whether ``entry`` is that of ``password``; takes tens of milliseconds of processor time."""
    cost, salt, expected = _parse(entry)
    return compare_digest(_hash(password, salt, cost), expected)


def _parse(entry: str) -> tuple[int, bytes, bytes]:
    try:
        name, cost, salt, expected = entry.split(":")
        parsed = int(cost), bytes.fromhex(salt), bytes.fromhex(expected)
    except ValueError:
        name, parsed = "", (0, b"", b"")
    if name != _NAME or len(parsed[2]) != _HASH_BYTES:
        raise ValueError("a password entry must be scrypt:cost:salt:hash, as make password prints")
    return parsed


def _hash(password: str, salt: bytes, cost: int) -> bytes:
    return hashlib.scrypt(
        password.encode(),
        salt=salt,
        n=cost,
        r=_BLOCK_SIZE,
        p=_PARALLEL,
        dklen=_HASH_BYTES,
        maxmem=_MAX_MEMORY_BYTES,
    )

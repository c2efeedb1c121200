"""Signatures of bundles: a manifest has the checksum of every file, so its signature is for all.

A signature is made elsewhere, by whoever has the private key, for instance with
``openssl pkeyutl -sign -rawin -inkey key.pem -in manifest.json -out manifest.sig``.
Importing this takes 70 ms and 15 MiB, so it is imported only where a key is configured.
"""

import base64
import binascii

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from services.scoring.manifest import SIGNATURE_FILE, BundleError


def read_key(text: str) -> Ed25519PublicKey:
    """The key in the one line of base64 that its PEM file has; raises ``ValueError``."""
    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("must be an Ed25519 public key: the line between those of its PEM file")
    return key


def check_signature(version: str, manifest: bytes, signature: bytes, key: str) -> None:
    """Return if ``signature`` is that of ``manifest`` by the key; raises ``BundleError``."""
    try:
        read_key(key).verify(signature, manifest)
    except InvalidSignature:
        raise BundleError(
            f"The bundle {version} is not signed by the key of BUNDLE_PUBLIC_KEY: {SIGNATURE_FILE}"
            f" {'is of another key or manifest' if signature else 'is missing'}."
        ) from None

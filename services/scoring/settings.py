"""Settings of every process that reads bundles, from environment variables of the same names."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings

from services.scoring.manifest import BUNDLE_ROOT, BundleError, check_version
from services.scoring.store import BundleStore, StoreAddress


def _bundle_version(value: str) -> str:
    try:
        return check_version(value) if value else value
    except BundleError as error:
        raise ValueError(str(error)) from None


def _public_key(value: str) -> str:
    if value:
        from services.scoring.signature import read_key  # noqa: PLC0415 - takes long, and is seldom needed

        read_key(value)
    return value


class BundleSettings(BaseSettings):
    """Where bundles are, and who must have signed those that are published."""

    bundle_root: Path = Field(default=BUNDLE_ROOT, description="Folder of bundles and CURRENT.")
    bundle_store: StoreAddress = Field(
        default=None,
        description="Where bundles are published: a folder that all processes share, or the address"
        " of an object store, such as s3://bucket/bundles.",
    )
    bundle_public_key: Annotated[str, AfterValidator(_public_key)] | None = Field(
        default=None,
        description="Ed25519 key, as the line of base64 in its PEM file: published bundles must"
        " be signed by it.",
    )

    def open_store(self) -> BundleStore:
        """The bundles that ship and those that are published."""
        return BundleStore(
            self.bundle_store, shipped=self.bundle_root, public_key=self.bundle_public_key or None
        )


class DecidingSettings(BundleSettings):
    """Which bundle decides until there is a roll-out."""

    bundle_version: Annotated[str, AfterValidator(_bundle_version)] | None = Field(
        default=None, description="Decide with this version instead of the one CURRENT names."
    )

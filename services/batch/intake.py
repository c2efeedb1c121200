"""Taking a file in: streamed to disk, its form and header checked, and kept with its order."""

import re
import time
from collections.abc import Iterator
from hashlib import sha256
from tempfile import TemporaryFile
from typing import IO, Final
from urllib.parse import urlsplit
from uuid import UUID

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Request
from pydantic_core import to_json
from redis.asyncio import Redis

from services.batch.checking import MEDIA_TYPES, check
from services.batch.jobs import PIECE_BYTES, Kind, Order
from services.batch.schemas import OrderQuery
from services.batch.settings import BatchSettings
from services.scoring.manifest import MANIFEST_FILE, Manifest, bundle_folder, read_manifest
from services.scoring.remembered import remembered
from services.scoring.store import BundleStore
from shared.access.middleware import caller_of
from shared.contract.errors import (
    BodyTooLarge,
    Fault,
    InvalidInput,
    UnknownModel,
    UnsupportedMediaType,
)
from shared.contract.ids import uuid7
from shared.files.tables import FileError
from shared.web.idempotency import idempotency_key

_MS_PER_S: Final = 1000
_WEB_ADDRESS: Final = re.compile(r"https?://[!-~]+")


class UnusableFile(InvalidInput):
    """The file as a whole cannot be used; nothing of it is kept."""

    title = "Unusable file"

    def __init__(self, detail: str) -> None:
        super().__init__([Fault(field="body", message=detail)])
        self.detail = detail


async def served_manifest(settings: BatchSettings, store: BundleStore, redis: Redis) -> Manifest:
    """The bundle that new batches are decided with, and its champion; raises ``BundleError``.

    If no model is named, the worker has the last word: it follows the roll-outs.
    """
    rollout = await remembered(redis)

    def read() -> Manifest:
        if rollout is None:
            folder = bundle_folder(settings.bundle_root, settings.bundle_version)
            return read_manifest(folder / MANIFEST_FILE)
        manifest = read_manifest(store.folder(rollout.default.bundle) / MANIFEST_FILE)
        return manifest.model_copy(update={"champion": rollout.default.model})

    return await run_sync(read)


def check_order(query: OrderQuery, manifest: Manifest, settings: BatchSettings) -> None:
    """Raise ``UnknownModel`` or ``InvalidInput`` for what cannot be done, before the file comes."""
    if query.model is not None and query.model not in manifest.models:
        raise UnknownModel(query.model, manifest.models)
    if query.webhook is not None and not _is_allowed(query.webhook, settings):
        raise InvalidInput(
            [
                Fault(
                    field="webhook",
                    message="must be on a host that BATCH_WEBHOOK_HOSTS allows",
                    value=query.webhook,
                )
            ]
        )


def _is_allowed(address: str, settings: BatchSettings) -> bool:
    if not _WEB_ADDRESS.fullmatch(address):
        return False
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    # A name and a password before the host are no part of what is compared.
    return "@" not in parts.netloc and parts.netloc.lower() in settings.batch_webhook_hosts


async def take_in(
    request: Request,
    query: OrderQuery,
    file: IO[bytes],
    *,
    manifest: Manifest,
    settings: BatchSettings,
    checking: CapacityLimiter,
) -> Order:
    """Write the request's body to ``file`` and return the order, its header being usable.

    Raises ``UnsupportedMediaType``, ``BodyTooLarge``, ``UnusableFile``, ``UnknownModel`` and
    ``InvalidInput``. One file at a time is in memory, under the limiter ``checking``.
    """
    check_order(query, manifest, settings)
    key = idempotency_key(request.scope)
    kind = _kind(request)
    body = sha256()
    size = 0
    if int(request.headers.get("content-length", 0)) > settings.batch_max_bytes:
        raise BodyTooLarge(settings.batch_max_bytes)
    async for piece in request.stream():
        size += len(piece)
        if size > settings.batch_max_bytes:
            raise BodyTooLarge(settings.batch_max_bytes)
        body.update(piece)
        file.write(piece)

    def check_file() -> None:
        file.seek(0)
        checked = check(file.read(), kind, max_rows=settings.batch_max_rows)
        if checked.misspelt and query.unknown == "stop":
            raise FileError(f"{checked.misspelt} Rename it, or leave it out with unknown=skip.")

    try:
        await run_sync(check_file, limiter=checking)
    except FileError as error:
        raise UnusableFile(str(error)) from None
    # The same batch comes of either value of unknown.
    options = to_json([kind, query.model_dump(exclude={"unknown"})])
    return Order(
        id=UUID(uuid7(time.time_ns() // (_MS_PER_S * 1000))),
        client=caller_of(request.scope).name,
        key_digest=key and sha256(key).digest(),
        request_digest=sha256(body.digest() + options).digest(),
        kind=kind,
        model=query.model or manifest.champion,
        bundle_version=manifest.version,
        by_rollout=query.model is None,
        record=query.record,
        faulty_rows=query.faulty,
        spellings=query.spelling,
        webhook=query.webhook,
    )


def _kind(request: Request) -> Kind:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    kind = MEDIA_TYPES.get(media_type)
    if kind is None or request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType(" or ".join(MEDIA_TYPES))
    return kind


def spooled() -> IO[bytes]:
    """A nameless file on disk, which is gone when it is closed."""
    return TemporaryFile()


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    """The content of ``file`` in pieces as it is stored."""
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        yield piece

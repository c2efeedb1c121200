"""The registry of bundles: what is published, verified, compared and retired.

The files are in the bundle store, the manifests and who did what in PostgreSQL. A bundle is never
removed: a retired one decides nothing new and stays there for replays.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import IO, Any, Final

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.history import audit
from services.history.bundles import cross_validated
from services.history.database import connection, transaction
from services.history.monitoring.schemas import CrossValidated
from services.history.rollout.archive import read_archive
from services.history.rollout.board import Board, read_board
from services.history.rollout.errors import (
    NotPossible,
    StoreUnusable,
    UnusableBundle,
    unknown_bundle,
)
from services.history.rollout.replicas import read_living
from services.history.rollout.schemas import (
    BundleComparison,
    BundleDetail,
    Measured,
    RegisteredBundle,
    Verification,
)
from services.history.tables import AnyRow, bundles
from services.scoring.manifest import (
    MANIFEST_FILE,
    MODEL_CARD_FILE,
    BundleError,
    check_files,
    content_version,
    read_file,
    read_manifest,
)
from services.scoring.store import BundleStore
from shared.contract.errors import NotFound
from shared.contract.rollout import Arm, Rollout

_NOT_COMPARED: Final = frozenset({"version", "files", "timings", "models", "baselines", "data"})
"""Members that differ between any two bundles, or are compared otherwise."""


async def publish(
    engine: AsyncEngine, store: BundleStore, file: IO[bytes], *, actor: str
) -> RegisteredBundle:
    """Put the bundle in the ZIP archive ``file`` into the store, and register it.

    Every checksum is verified before anything is kept. Publishing what is registered and can be
    read already, such as a bundle that ships, changes nothing. Raises ``UnusableBundle`` or
    ``StoreUnusable``.
    """
    files = await asyncio.to_thread(_read, store, file)
    manifest = files[MANIFEST_FILE].decode()
    version = json.loads(manifest)["version"]
    async with connection(engine) as opened:
        known = await _find(opened, version)
    if known is not None and json.loads(known.manifest) != json.loads(manifest):
        raise UnusableBundle(f"Another bundle is registered as {version}.")
    try:
        is_there = version in await asyncio.to_thread(store.versions)
        await asyncio.to_thread(store.publish, files)
    except (BundleError, OSError) as error:
        raise StoreUnusable(str(error)) from error
    async with transaction(engine) as opened:
        if known is not None and is_there:
            return await _registered(opened, version)
        turn = await audit.take_turn(opened)
        published = {"published_at": turn.occurred_at, "published_by": actor}
        statement = insert(bundles).values(version=version, manifest=manifest, **published)
        added = await opened.execute(
            statement.on_conflict_do_update(
                index_elements=[bundles.c.version],
                set_=published,
                where=bundles.c.published_at.is_(None),
            ).returning(bundles.c.version)
        )
        if added.one_or_none():
            await audit.append(
                opened,
                turn,
                actor=actor,
                action="publish bundle",
                subject=version,
                details={"data_sha256": _data_of(json.loads(manifest))},
            )
        return await _registered(opened, version)


def _read(store: BundleStore, file: IO[bytes]) -> Mapping[str, bytes]:
    files = read_archive(file)
    try:
        version = store.check(files).version
    except BundleError as error:
        raise UnusableBundle(str(error)) from error
    if (hashed := content_version(files[MANIFEST_FILE])) != version:
        raise UnusableBundle(
            f"The manifest of {version} is altered: by its content the version is {hashed}."
        )
    return files


async def read_bundles(connection: AsyncConnection) -> list[RegisteredBundle]:
    """All bundles, the one registered last first."""
    board = await read_board(connection)
    statement = select(bundles).order_by(bundles.c.registered_at.desc(), bundles.c.version)
    rows = await connection.execute(statement)
    return [_described(row, json.loads(row.manifest), board) for row in rows]


async def read_bundle(engine: AsyncEngine, store: BundleStore, version: str) -> BundleDetail:
    """One bundle with its manifest and its card; raises ``NotFound``."""
    async with connection(engine) as opened:
        row, board = await _row(opened, version), await read_board(opened)
    manifest = json.loads(row.manifest)
    return BundleDetail(
        **dict(_described(row, manifest, board)),
        manifest=manifest,
        card=await asyncio.to_thread(_card, store, version),
    )


def _card(store: BundleStore, version: str) -> str | None:
    try:
        folder = store.folder(version)
        content = read_file(folder, read_manifest(folder / MANIFEST_FILE), MODEL_CARD_FILE)
    except (BundleError, KeyError):
        return None
    return content.decode(errors="replace")


async def verify(engine: AsyncEngine, store: BundleStore, version: str) -> Verification:
    """Read every file of a registered bundle in the store again; raises ``NotFound``."""
    async with connection(engine) as opened:
        row = await _row(opened, version)
    fault = await asyncio.to_thread(_fault, store, version, row.manifest)
    return Verification(version=version, intact=fault is None, fault=fault)


async def check_intact(engine: AsyncEngine, store: BundleStore, versions: Iterable[str]) -> None:
    """Raise ``UnusableBundle`` if a registered one of these bundles is not intact in the store."""
    for version in versions:
        try:
            found = await verify(engine, store, version)
        except NotFound:
            continue
        if found.fault is not None:
            raise UnusableBundle(found.fault)


def _fault(store: BundleStore, version: str, registered: str) -> str | None:
    try:
        folder = store.folder(version)
        check_files(folder, read_manifest(folder / MANIFEST_FILE))
        manifest = (folder / MANIFEST_FILE).read_text(encoding="utf-8")
    except (BundleError, OSError) as error:
        return str(error)
    # The checksums are the manifest's, which somebody may have written anew.
    if json.loads(manifest) != json.loads(registered):
        return f"The manifest of {version} is not the one that is registered."
    return None


async def retire(engine: AsyncEngine, version: str, *, actor: str, reason: str) -> RegisteredBundle:
    """Keep a bundle from deciding anything new; raises ``NotFound``, or ``NotPossible`` in use."""
    async with transaction(engine) as opened:
        turn = await audit.take_turn(opened)
        found = await _registered(opened, version)
        if found.retired_at is not None:
            return found
        if found.uses:
            epochs = ", ".join(map(str, found.uses))
            raise NotPossible(f"{version} is in use: roll-out {epochs} names it.")
        serving = [row.replica for row in await read_living(opened) if row.bundle == version]
        if serving:
            raise NotPossible(f"{version} is in use: it decides at {', '.join(serving)}.")
        await opened.execute(
            update(bundles)
            .where(bundles.c.version == version)
            .values(retired_at=turn.occurred_at, retired_by=actor)
        )
        await audit.append(
            opened,
            turn,
            actor=actor,
            action="retire bundle",
            subject=version,
            details={"reason": reason},
        )
        return await _registered(opened, version)


async def compare(connection: AsyncConnection, of: str, with_: str) -> BundleComparison:
    """Two bundles side by side, by their manifests; raises ``NotFound``."""
    board = await read_board(connection)
    rows = [await _row(connection, version) for version in (of, with_)]
    first, second = (json.loads(row.manifest) for row in rows)
    names = sorted(first.keys() | second.keys())
    return BundleComparison(
        of=_described(rows[0], first, board),
        with_=_described(rows[1], second, board),
        same_data=_data_of(first) is not None and _data_of(first) == _data_of(second),
        differs=[
            name
            for name in names
            if name not in _NOT_COMPARED and first.get(name) != second.get(name)
        ],
        measured=list(_measured(first["models"], second["models"])),
    )


def _measured(
    first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]]
) -> Iterable[Measured]:
    for model in sorted(first.keys() | second.keys()):
        ours, theirs = (cross_validated(models.get(model, {})) for models in (first, second))
        for metric in CrossValidated.model_fields:
            of, with_ = getattr(ours, metric, None), getattr(theirs, metric, None)
            if of or with_:
                yield Measured(model=model, metric=metric, of=of, with_=with_)


def passed_gate(manifest: Mapping[str, Any]) -> bool | None:
    """Whether the gate of its training lets a bundle decide; None without one."""
    gate = manifest.get("gate")
    return bool(gate.get("passed")) if isinstance(gate, dict) else None


async def _row(connection: AsyncConnection, version: str) -> AnyRow:
    row = await _find(connection, version)
    if row is None:
        raise unknown_bundle(version)
    return row


async def _find(connection: AsyncConnection, version: str) -> AnyRow | None:
    statement = select(bundles).where(bundles.c.version == version)
    return (await connection.execute(statement)).one_or_none()


async def _registered(connection: AsyncConnection, version: str) -> RegisteredBundle:
    row = await _row(connection, version)
    return _described(row, json.loads(row.manifest), await read_board(connection))


def _described(row: AnyRow, manifest: Mapping[str, Any], board: Board) -> RegisteredBundle:
    return RegisteredBundle(
        version=row.version,
        registered_at=row.registered_at,
        published_at=row.published_at,
        published_by=row.published_by,
        retired_at=row.retired_at,
        retired_by=row.retired_by,
        data_sha256=_data_of(manifest),
        champion=manifest.get("champion"),
        models=sorted(manifest["models"]),
        gate_passed=passed_gate(manifest),
        uses=[
            rollout.epoch
            for rollout in board.in_use
            if row.version in {arm.bundle for arm in _arms(rollout)}
        ],
    )


def _arms(rollout: Rollout) -> Iterable[Arm]:
    yield rollout.default
    if rollout.candidate is not None:
        yield rollout.candidate
    yield from rollout.shadows


def _data_of(manifest: Mapping[str, Any]) -> str | None:
    data = manifest.get("data")
    digest = data.get("sha256") if isinstance(data, dict) else None
    return digest if isinstance(digest, str) else None

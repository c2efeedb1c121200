"""Register the bundles with the history service, which compares live figures with theirs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import httpx

from services.scoring.manifest import MANIFEST_FILE
from shared.contract.events import INTERNAL_BUNDLES_PATH
from shared.observability.logs import get_logger

FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
_DEADLINE_S: Final = 10.0
_REFUSED: Final = frozenset({400, 413})
_log = get_logger(__name__)


@asynccontextmanager
async def registering(
    client: httpx.AsyncClient, root: Path, *, history_url: str, api_key: str | None
) -> AsyncIterator[None]:
    """Register every bundle under ``root`` in the background of the block, until all are accepted.

    Without a key, which the history service asks for, nothing is registered.
    """
    if api_key is None:
        yield
        return
    url = history_url.rstrip("/") + INTERNAL_BUNDLES_PATH
    task = asyncio.create_task(_register_all(client, root, url=url, api_key=api_key))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _register_all(client: httpx.AsyncClient, root: Path, *, url: str, api_key: str) -> None:
    headers = {"content-type": "application/json", "x-api-key": api_key}
    waiting = await asyncio.to_thread(_manifests, root)
    pause_s = FIRST_PAUSE_S
    while waiting:
        path = waiting[0]
        try:
            content = await asyncio.to_thread(path.read_bytes)
            answer = await client.post(url, content=content, headers=headers, timeout=_DEADLINE_S)
            if answer.status_code in _REFUSED:
                _log.warning("bundle not registered", bundle=path.parent.name, why=answer.text)
            else:
                answer.raise_for_status()
        except (httpx.HTTPError, OSError) as error:
            _log.info("bundle not registered yet", bundle=path.parent.name, error=repr(error))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        else:
            del waiting[0]


def _manifests(root: Path) -> list[Path]:
    return sorted(root.glob(f"*/{MANIFEST_FILE}"))

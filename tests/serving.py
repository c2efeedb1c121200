"""An app behind a real server in this process, so that a test can hold both ends."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.types import ASGIApp

from shared.web.protocol import BoundedHttpProtocol
from tests.harness import HOST


@asynccontextmanager
async def served(
    app: ASGIApp, *, headers: Mapping[str, str] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``app``, which uvicorn serves on a port of its own."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=BoundedHttpProtocol,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
        )
    )
    with socket.create_server((HOST, 0)) as listener:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            assert not running.done(), "the app did not start; see the captured log"
            await asyncio.sleep(0.01)
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            yield client
        server.should_exit = True
        await running

"""HTTP byte by byte, for what no client library would send."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """One answer as it came; ``closed`` tells that the server ended the connection after it."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool

    def problem(self) -> dict[str, Any]:
        """The problem document in it; fails if it is none."""
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        assert document["request_id"] == self.headers["x-request-id"]
        return document


class Connection:
    """A connection to send any bytes on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        """Send the pieces one by one; a server that has hung up meanwhile is no error."""
        for piece in pieces:
            self._writer.write(piece)
            try:
                await self._writer.drain()
            except ConnectionError:
                return
            await asyncio.sleep(pause_s)

    async def answer(self) -> Answer:
        """The next answer; raises ``asyncio.IncompleteReadError`` when none comes any more."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(
            status=int(status_line.split()[1]),
            headers=headers,
            body=body,
            closed=headers.get("connection") == "close" and await self.is_closed(),
        )

    async def piece(self) -> bytes:
        """What comes next, as much as is there."""
        return await self._reader.read(2**16)

    async def is_closed(self) -> bool:
        """Wait until the server ends the connection; whether nothing more came before."""
        try:
            return await self._reader.read(1) == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection to the server at ``url``."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()

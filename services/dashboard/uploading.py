"""The file in an uploaded form, of bounded size and in memory only."""

from typing import Final, NamedTuple

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message, Receive

from shared.contract.errors import BodyTooLarge

MAX_BYTES: Final = 5 * 1024 * 1024
TOO_LARGE: Final = f"It has more than {MAX_BYTES // 1024 // 1024} MB."
REFUSED: Final = "refused"
"""The query parameter of a page whose form sent a file that is too large."""
NO_FILE: Final = "There is no form with a file in this request."
_MULTIPART_BYTES: Final = 4096
"""The most that a form adds to the file."""
_MOST_DRAINED_BYTES: Final = 20 * MAX_BYTES
"""How much of a file that is too large is received, and dropped, so that the page can say so."""


class File(NamedTuple):
    """An uploaded file."""

    name: str
    content: bytes


async def uploaded(request: Request) -> File | None:
    """The ``file`` of the form in the body; None if there is no form with one.

    Raises ``BodyTooLarge``.
    """
    bounded = Request(request.scope, _bounded(request.receive, MAX_BYTES + _MULTIPART_BYTES))
    try:
        parser = _InMemory(request.headers, bounded.stream(), max_files=1, max_fields=1)
        form = await parser.parse()
    except (MultiPartException, LookupError, UnicodeError):
        return None
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            return None
        return File(file.filename or "file", await file.read())
    finally:
        await form.close()


class _InMemory(MultiPartParser):
    """Keeps an upload in memory: it is about people, and the disk may be full."""

    spool_max_size = MAX_BYTES + _MULTIPART_BYTES


def _bounded(receive: Receive, limit_bytes: int) -> Receive:
    """``receive``, but it raises ``BodyTooLarge`` beyond ``limit_bytes``."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit_bytes:
            # A browser shows no answer before it has sent everything.
            while message.get("more_body") and taken <= _MOST_DRAINED_BYTES:
                message = await receive()
                taken += len(message.get("body", b""))
            raise BodyTooLarge(MAX_BYTES)
        return message

    return bounded

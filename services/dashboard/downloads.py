"""Downloads that pass on what a service streams."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from fastapi import Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from loan_predictor_client import ApiError, CallFailed


async def download(
    opened: AbstractAsyncContextManager[AsyncIterator[bytes]], *, media_type: str, name: str
) -> Response:
    """The file ``name``, piece by piece; what went wrong, as text, if the call fails."""
    try:
        # Entered before the response starts, so that an outage still has a status of its own.
        pieces = await opened.__aenter__()
    except CallFailed as error:
        status = error.status if isinstance(error, ApiError) else 503
        return PlainTextResponse(str(error), status)

    async def all_pieces() -> AsyncIterator[bytes]:
        try:
            async for piece in pieces:
                yield piece
        finally:
            await opened.__aexit__(None, None, None)

    return StreamingResponse(
        all_pieces(),
        media_type=media_type,
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )

"""What the door answers: JSON, errors in one form, and streams that end with their client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeVar

import structlog
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from services.rpc.errors import ErrorCode, QilaError, unavailable

Result = TypeVar("Result")

_LOG: Final = structlog.get_logger("services.gateway.http")
_STATUSES: Final = {
    ErrorCode.CANCELLED: 499,
    ErrorCode.INVALID_ARGUMENT: 400,
    ErrorCode.DEADLINE_EXCEEDED: 504,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.ALREADY_EXISTS: 409,
    ErrorCode.PERMISSION_DENIED: 403,
    ErrorCode.RESOURCE_EXHAUSTED: 429,
    ErrorCode.FAILED_PRECONDITION: 409,
    ErrorCode.ABORTED: 409,
    ErrorCode.OUT_OF_RANGE: 409,
    ErrorCode.UNIMPLEMENTED: 501,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.UNAUTHENTICATED: 401,
}
# Where HTTP has a better word than the code's.
_STATUSES_OF_REASONS: Final = {
    "BODY_TOO_LARGE": 413,
    # The request is well-formed: it is the workspace, or what the operator allows, that it does not fit.
    "HOST_NOT_ALLOWED": 403,
    "MANIFEST_INVALID": 409,
    "TARGET_AMBIGUOUS": 409,
    "TARGET_NOT_FOUND": 409,
    "TARGET_UNSUPPORTED": 409,
    "FILE_TOO_LARGE": 413,
    "FILES_TOO_MANY": 413,
    "RANGE_NOT_SATISFIABLE": 416,
    "FILE_NO_SPACE": 507,
    "DISK_LOW": 507,
    "HEADERS_TOO_LARGE": 431,
    "METHOD_NOT_ALLOWED": 405,
    "BODY_TOO_SLOW": 408,
}
_INTERNAL_STATUS: Final = 500


class ClientGoneError(Exception):
    """The client closed the connection: nobody is left to answer."""


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer, with a line's end: it is read in terminals too."""
    text = json.dumps(content, ensure_ascii=False, separators=(", ", ": ")) + "\n"
    return Response(text.encode("utf-8", "replace"), status, headers, "application/json")


def error_document(error: QilaError) -> dict[str, Any]:
    """An error as every answer and every stream tells it."""
    document = {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "metadata": dict(error.metadata),
    }
    return {"error": document}


def status_of(error: QilaError) -> int:
    """The HTTP status that says the same."""
    return _STATUSES_OF_REASONS.get(error.reason, _STATUSES.get(error.code, _INTERNAL_STATUS))


def error_response(error: QilaError, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that tells an error."""
    if error.reason == "RANGE_NOT_SATISFIABLE":
        headers = {**(headers or {}), "content-range": f"bytes */{error.metadata['size']}"}
    return json_response(error_document(error), status_of(error), headers)


async def while_wanted(work: Coroutine[Any, Any, Result], receive: Receive, stopping: asyncio.Event) -> Result:
    """Does the work as long as its client is there and the door is open.

    Raises:
        ClientGoneError: the client left; the work was cancelled.
        QilaError: UNAVAILABLE, GATEWAY_STOPPING; the work was cancelled.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({working, gone, stop}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return await working
    finally:
        for task in (working, gone, stop):
            task.cancel()
        await asyncio.gather(working, gone, stop, return_exceptions=True)
    if gone.done() and not gone.cancelled():
        raise ClientGoneError
    raise unavailable("GATEWAY_STOPPING", "the gateway is stopping; an exec goes on, ask for it again in a moment")


class Stream(Response):
    """Chunks as they come: at the reader's own pace, and no longer than there is one."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        stopping: asyncio.Event,
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        status: int = 200,
    ) -> None:
        super().__init__(None, status, headers, media_type)
        if "content-length" not in (headers or {}):
            # Starlette's own says that there is nothing.
            del self.headers["content-length"]
        self._chunks = chunks
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends; what breaks off in the middle is left without its end, so that the client can tell."""
        del scope
        try:
            await while_wanted(self._send(send), receive, self._stopping)
        except ClientGoneError:
            return
        except QilaError as error:
            _LOG.info("stream_broken_off", reason=error.reason)

    async def _send(self, send: Send) -> None:
        async with aclosing(self._chunks):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for chunk in self._chunks:
                await send(_body(chunk, more=True))
            await send(_body(b"", more=False))


def _body(chunk: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        # What is left of a body.
        pass

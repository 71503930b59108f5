"""A file, or the archive of a tree, as an answer: whole, a part of it, or not again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.responses import Response

from services.gateway.http.answers import Stream
from services.gateway.http.operation import Answer, Call
from services.gateway.http.ranges import Asked, Part
from services.rpc.errors import ErrorCode, QilaError

# What a program wrote must never be shown as a page.
_ATTACHMENT: Final[Mapping[str, str]] = {"content-disposition": "attachment"}
NOT_AGAIN: Final = Answer(description="The client has it already, as If-None-Match says.", status=304)


@dataclass(frozen=True, kw_only=True)
class Content:
    """What was opened: `etag` stands for it, `size` is that of the whole, `responses` bring its chunks and its end."""

    etag: str
    size: int
    responses: AsyncGenerator[Any, None]
    headers: Mapping[str, str] = field(default_factory=dict)

    async def chunks(self, length: int) -> AsyncGenerator[bytes, None]:
        """So many bytes of it."""
        try:
            async for response in self.responses:
                chunk: bytes = response.chunk[:length]
                length -= len(chunk)
                if chunk:
                    yield chunk
                if not length:
                    return
        finally:
            await self.responses.aclose()


# From an offset, so many bytes or (0) to the end, of the content with that etag if one is named.
Opening = Callable[[int, int, str], Awaitable[Content]]


async def answer_content(call: Call, opening: Opening, media_type: str) -> Response:
    """The content that a request asks for.

    Raises:
        QilaError: OUT_OF_RANGE, the range lies behind the end; ABORTED, it changed meanwhile; what opening it raises.
    """
    asked = Asked.of(call.request.headers)
    content = await opening(0, 1 if asked.is_part else 0, "")
    try:
        if asked.has(content.etag):
            await content.responses.aclose()
            return Response(status_code=NOT_AGAIN.status, headers={"etag": content.etag})
        part = asked.part(content.size, content.etag)
        if asked.is_part:
            content = await _reopened(content, part, opening)
    except BaseException:
        await content.responses.aclose()
        raise
    return Stream(
        content.chunks(part.length),
        call.services.stopping,
        media_type=media_type,
        headers={**_ATTACHMENT, **content.headers, **part.headers(content.etag)},
        status=206 if part.asked_for else 200,
    )


async def _reopened(content: Content, part: Part, opening: Opening) -> Content:
    await content.responses.aclose()
    again = await opening(part.offset, part.length, content.etag)
    if again.etag != content.etag:
        await again.responses.aclose()
        raise QilaError(ErrorCode.ABORTED, "FILE_CHANGED", "it changed while it was looked at; repeat the call")
    return again

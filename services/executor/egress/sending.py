"""How an artefact goes to a client: from the cache, or from a download while it comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from services.executor.egress.cache.port import Held
from services.executor.egress.download import Follower
from services.executor.egress.ecosystems.port import Artefact
from services.executor.egress.verdicts import TurnedAway, Visit

_CLIENT_STALL_SECONDS = 120
_SENT_AT_ONCE_BYTES = 1024 * 1024


async def send_head(request: web.BaseRequest, visit: Visit, artefact: Artefact, size: int | None) -> web.StreamResponse:
    """Begin the answer; for HEAD that is all."""
    response = web.StreamResponse(headers={"Content-Type": artefact.content_type})
    response.content_length = size
    visit.status = 200
    await response.prepare(request)
    if request.method == "HEAD":
        visit.conclude("allowed", artefact.rule, 200)
    return response


async def send_held(request: web.BaseRequest, visit: Visit, artefact: Artefact, held: Held) -> web.StreamResponse:
    """Send what the cache has, by the kernel alone."""
    size = held.entry.size
    response = await send_head(request, visit, artefact, size)
    if request.method == "HEAD":
        return response
    loop = asyncio.get_running_loop()
    async with _concluded(request, visit, artefact):
        while visit.bytes < size:
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError
            count = min(_SENT_AT_ONCE_BYTES, size - visit.bytes)
            await visit.allowance.spend(count)
            async with asyncio.timeout(_CLIENT_STALL_SECONDS):
                visit.bytes += await loop.sendfile(request.transport, held.file, visit.bytes, count)
        async with asyncio.timeout(_CLIENT_STALL_SECONDS):
            await response.write_eof()
    return response


async def send_followed(
    request: web.BaseRequest, visit: Visit, artefact: Artefact, follower: Follower, size: int | None
) -> web.StreamResponse:
    """Send what comes. The client gets the last piece only if the whole is what it was promised.

    Raises:
        TurnedAway: that is known before anything was sent.
    """
    piece = await follower.piece()
    response = await send_head(request, visit, artefact, size)
    async with _concluded(request, visit, artefact):
        while piece:
            await visit.allowance.spend(len(piece))
            async with asyncio.timeout(_CLIENT_STALL_SECONDS):
                await response.write(piece)
            visit.bytes += len(piece)
            piece = await follower.piece()
        async with asyncio.timeout(_CLIENT_STALL_SECONDS):
            await response.write_eof()
    return response


@asynccontextmanager
async def _concluded(request: web.BaseRequest, visit: Visit, artefact: Artefact) -> AsyncIterator[None]:
    """Settle `visit`; an answer that cannot be completed is cut, so that nobody takes it for whole."""
    try:
        yield
    except TurnedAway as reason:
        _cut(request)
        visit.conclude(reason.verdict, reason.rule, 200)
    except TimeoutError:
        _cut(request)
        visit.conclude("failed", "client stalled", 200)
    except ConnectionError:
        _cut(request)
        visit.conclude("failed", "client closed", 200)
    else:
        visit.conclude("allowed", artefact.rule, 200)


def _cut(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()

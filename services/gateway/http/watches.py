"""What changes in a workspace, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, cast

from starlette.responses import Response

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.http.events import event_response, sent_event
from services.gateway.http.operation import EVENT_STREAM, Answer, Call, Operation
from services.gateway.http.plain import plain
from services.gateway.http.queries import WatchQuery


async def watch(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/watch."""
    request = cast("WatchQuery", call.query).message(call.sandbox_id)
    return await event_response(_rendered(call, request), call.services.heartbeat, call.services.stopping)


async def _rendered(call: Call, request: pb.WatchFilesRequest) -> AsyncGenerator[bytes, None]:
    responses = cast("AsyncGenerator[pb.WatchFilesResponse, None]", call.gateway.WatchFiles(request, None))
    async with aclosing(responses):
        async for response in responses:
            kind = response.WhichOneof("event") or "unknown"
            yield sent_event(kind, plain(response)[kind])


OPERATIONS: Final = (
    Operation(
        name="watchFiles",
        method="GET",
        path="/v1/sandboxes/{sandbox_id}/watch",
        summary="What changes below a directory, from `ready` to `ended`; behind `overflow`, list again.",
        handle=watch,
        calls=("WatchFiles",),
        query=WatchQuery,
        answers=(Answer(description="The events.", media={EVENT_STREAM: {}}),),
    ),
)

"""What is done to an exec that runs: its input, its terminal, signals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, cast

from starlette.responses import Response

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks
from services.gateway.http.answers import json_response
from services.gateway.http.bodies import MAX_STDIN_BYTES, read_bytes
from services.gateway.http.models import SignalBody, TerminalBody
from services.gateway.http.operation import BYTES, JSON, TEXT, Answer, Call, Operation
from services.gateway.http.queries import StdinQuery


async def write_stdin(call: Call) -> Response:
    """POST /v1/sandboxes/{sandbox_id}/execs/{exec_id}/stdin."""
    query = cast("StdinQuery", call.query)
    writer = _Writer(call, await read_bytes(call.request, MAX_STDIN_BYTES), query)
    accepted: int = await call.wanted(writer.write())
    return json_response({"accepted": accepted, "ended": query.end})


class _Writer:
    """One body on its way into a program's input."""

    def __init__(self, call: Call, body: bytes, query: StdinQuery) -> None:
        self._call = call
        self._body = body
        self._end = query.end
        self._offset = query.offset
        self._begun = asyncio.Event()

    async def write(self) -> int:
        """How long the input is when all of it can no longer be lost. QilaError, as the proto says of WriteStdin."""
        accepted = 0
        async with aclosing(self._requests()) as requests:
            answers = cast("AsyncGenerator[pb.WriteStdinResponse, None]", self._call.gateway.WriteStdin(requests, None))
            async with aclosing(answers):
                async for answer in answers:
                    accepted = answer.accepted
                    if self._offset is None:
                        self._offset = accepted
                    self._begun.set()
        return accepted

    async def _requests(self) -> AsyncGenerator[pb.WriteStdinRequest, None]:
        header = pb.WriteStdinHeader(sandbox_id=self._call.sandbox_id, exec_id=self._call.exec_id)
        yield pb.WriteStdinRequest(header=header)
        await self._begun.wait()
        offset = self._offset or 0
        for start in range(0, len(self._body), checks.MAX_CHUNK_BYTES):
            data = self._body[start : start + checks.MAX_CHUNK_BYTES]
            yield pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=offset + start, data=data))
        if self._end:
            yield pb.WriteStdinRequest(end=pb.StdinEnd(offset=offset + len(self._body)))


async def resize(call: Call) -> Response:
    """POST /v1/sandboxes/{sandbox_id}/execs/{exec_id}/resize."""
    terminal = cast("TerminalBody", call.body).message()
    request = pb.ResizeTerminalRequest(sandbox_id=call.sandbox_id, exec_id=call.exec_id, terminal=terminal)
    await call.gateway.ResizeTerminal(request, None)
    return Response(status_code=204)


async def signal(call: Call) -> Response:
    """POST /v1/sandboxes/{sandbox_id}/execs/{exec_id}/signal."""
    number = cast("SignalBody", call.body).signal
    request = pb.SignalExecRequest(sandbox_id=call.sandbox_id, exec_id=call.exec_id, signal=number)
    await call.gateway.SignalExec(request, None)
    return Response(status_code=204)


_EXEC: Final = "/v1/sandboxes/{sandbox_id}/execs/{exec_id}"
_ACCEPTED: Final = {
    "type": "object",
    "properties": {
        "accepted": {"type": "integer", "description": "Bytes of the whole input that can no longer be lost."},
        "ended": {"type": "boolean"},
    },
    "required": ["accepted", "ended"],
}
OPERATIONS: Final = (
    Operation(
        name="writeStdin",
        method="POST",
        path=f"{_EXEC}/stdin",
        summary="Writes at most 1 MiB to a program's input, and answers when the sandbox holds them.",
        handle=write_stdin,
        calls=("WriteStdin",),
        query=StdinQuery,
        upload=(BYTES, TEXT),
        answers=(Answer(description="How far the input is.", media={JSON: _ACCEPTED}),),
    ),
    Operation(
        name="resizeTerminal",
        method="POST",
        path=f"{_EXEC}/resize",
        summary="Gives an exec's terminal another size.",
        handle=resize,
        calls=("ResizeTerminal",),
        body=TerminalBody,
        body_required=True,
        answers=(Answer(description="It has that size.", status=204),),
    ),
    Operation(
        name="signalExec",
        method="POST",
        path=f"{_EXEC}/signal",
        summary="Sends a signal to an exec's process group; how the program takes it is its own affair.",
        handle=signal,
        calls=("SignalExec",),
        body=SignalBody,
        body_required=True,
        answers=(Answer(description="It was sent.", status=204),),
    ),
)

"""Server-sent events, whose ids hold the whole position: after any of them an exec's stream goes on exactly."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from starlette.responses import Response

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.http.answers import Stream, error_document
from services.gateway.http.models import EVENT_ID
from services.gateway.http.plain import plain
from services.rpc.errors import QilaError, invalid_argument

_ID: Final = re.compile(EVENT_ID)
_BEGIN_SECONDS: Final = 0.5
_HEARTBEAT: Final = b": the stream lives\n\n"


@dataclass(frozen=True, kw_only=True)
class Position:
    """What a client has of an exec: control events up to a sequence, and bytes of a run's streams."""

    exec_id: str
    sequence: int = 0
    run: int = 0
    stdout: int = 0
    stderr: int = 0
    terminal: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """The position that an event's id says. INVALID_ARGUMENT if it is none."""
        found = _ID.fullmatch(text)
        if found is None:
            message = "Last-Event-ID must be the id of an event of this exec, as it came"
            raise invalid_argument("EVENT_ID_INVALID", message)
        sequence, run, stdout, stderr, terminal = (int(number) for number in found.groups("0")[1:])
        return cls(exec_id=found[1], sequence=sequence, run=run, stdout=stdout, stderr=stderr, terminal=terminal)

    def __str__(self) -> str:
        # A run has a terminal, or the two others.
        terminal = f".{self.terminal}" if self.terminal else ""
        return f"{self.exec_id}.{self.sequence}.{self.run}.{self.stdout}.{self.stderr}{terminal}"

    def request(self, sandbox_id: str) -> pb.AttachExecRequest:
        """Asks for what comes after."""
        asked = pb.AttachExecRequest(sandbox_id=sandbox_id, exec_id=self.exec_id, after_sequence=self.sequence)
        offsets = pb.OutputOffsets(stdout=self.stdout, stderr=self.stderr, terminal=self.terminal, run=self.run)
        getattr(asked, "from").CopyFrom(offsets)
        return asked

    def after(self, event: pb.ExecEvent) -> Position:
        """The position behind an event."""
        if event.sequence:
            begins = event.phase_started.phase == pb.PHASE_RUN
            moved = replace(self, sequence=event.sequence)
            return replace(moved, run=event.phase_started.run, stdout=0, stderr=0, terminal=0) if begins else moved
        if not event.HasField("output"):
            # A heartbeat.
            return self
        end = event.output.offset + len(event.output.data)
        moved = replace(self, run=event.output.run)
        match event.output.stream:
            case pb.STREAM_STDOUT:
                return replace(moved, stdout=end)
            case pb.STREAM_TERMINAL:
                return replace(moved, terminal=end)
            case _:
                return replace(moved, stderr=end)


async def event_response(chunks: AsyncGenerator[bytes, None], heartbeat: float, stopping: asyncio.Event) -> Response:
    """The events as a stream; what is refused at once is raised. 204 if there are none: an EventSource stays away then.

    Args:
        chunks: events on the wire.
        heartbeat: seconds of silence after which a comment is sent.
        stopping: ends the stream.
    """
    begun_chunks = await begun(chunks, _BEGIN_SECONDS)
    if begun_chunks is None:
        return Response(status_code=204)
    return Stream(beating(begun_chunks, heartbeat), stopping, media_type="text/event-stream")


async def rendered(
    events: AsyncGenerator[pb.ExecEvent, None], position: Position | None
) -> AsyncGenerator[bytes, None]:
    """The events of an exec on the wire.

    Args:
        events: from the position on.
        position: what the client has; None if it has nothing, and the first event tells the exec's id.
    """
    behind = position
    async with aclosing(events):
        async for event in events:
            behind = (behind or Position(exec_id=event.created.exec_id)).after(event)
            yield sent_event(event.WhichOneof("event") or "unknown", plain(event), str(behind))


def sent_event(kind: str, document: Any, event_id: str = "") -> bytes:
    """One event on the wire. JSON holds no bare line's end, so that its data is one line."""
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {kind}\ndata: {data}\n\n".encode("utf-8", "replace")


async def beating(chunks: AsyncGenerator[bytes, None], heartbeat: float) -> AsyncGenerator[bytes, None]:
    """The chunks, with a comment wherever none comes for so many seconds; an error ends them as an event `failed`."""
    async with aclosing(chunks):
        following = asyncio.ensure_future(anext(chunks, b""))
        try:
            while True:
                await asyncio.wait({following}, timeout=heartbeat)
                if not following.done():
                    yield _HEARTBEAT
                    continue
                chunk = await following
                if not chunk:
                    return
                yield chunk
                following = asyncio.ensure_future(anext(chunks, b""))
        except QilaError as error:
            yield sent_event("failed", error_document(error))
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def begun(chunks: AsyncGenerator[bytes, None], patience: float) -> AsyncGenerator[bytes, None] | None:
    """The same chunks, after waiting a moment for the first: what is refused at once is raised here.

    Args:
        chunks: what raises before the first of them is an answer of its own.
        patience: seconds after which the stream begins without one.

    Returns:
        The chunks; None if they have ended without one.
    """
    first = asyncio.ensure_future(anext(chunks, b""))
    try:
        await asyncio.wait({first}, timeout=patience)
        if first.done() and not await first:
            return None
    except BaseException:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await chunks.aclose()
        raise
    return _with_first(first, chunks)


async def _with_first(first: asyncio.Future[bytes], chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        try:
            chunk = await first
            if not chunk:
                return
            yield chunk
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        async for chunk in chunks:
            yield chunk

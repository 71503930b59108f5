"""Execs: one answer at the end, or events as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final, cast

from starlette.responses import Response

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.http.answers import json_response
from services.gateway.http.events import Position, event_response, rendered
from services.gateway.http.models import EVENT_ID_PATTERN, ExecBody
from services.gateway.http.operation import EVENT_STREAM, JSON, Answer, Call, Operation
from services.gateway.http.plain import plain
from services.gateway.http.queries import EventsQuery, ListExecsQuery
from services.gateway.http.results import ExecResult, result_schema
from services.rpc.errors import failed_precondition


async def start(call: Call) -> Response:
    """POST /v1/sandboxes/{sandbox_id}/exec."""
    body = cast("ExecBody", call.body).root
    request = body.message(call.sandbox_id)
    last = call.request.headers.get("last-event-id", "")
    if call.wants_events and last:
        return await _resumed(call, request, Position.parse(last))
    events = _started(call, request)
    if call.wants_events:
        return await _streamed(call, events, None)
    if body.wait:
        return json_response(await call.wanted(_result(events)))
    created = await _created(events)
    return await _told(call, created.exec_id, 202)


async def list_all(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/execs."""
    request = cast("ListExecsQuery", call.query).message(call.sandbox_id)
    return json_response(plain(await call.gateway.ListExecs(request, None)))


async def get(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/execs/{exec_id}."""
    return await _told(call, call.exec_id, 200)


async def result(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/execs/{exec_id}/result."""
    events = _attached(call, Position(exec_id=call.exec_id))
    return json_response(await call.wanted(_result(events)))


async def events_of(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/execs/{exec_id}/events."""
    last = call.request.headers.get("last-event-id", "") or cast("EventsQuery", call.query).after
    position = Position.parse(last) if last else Position(exec_id=call.exec_id)
    if position.exec_id != call.exec_id:
        raise failed_precondition("EVENT_OF_ANOTHER_EXEC", "Last-Event-ID is of another exec")
    return await _streamed(call, _attached(call, position), position)


async def cancel(call: Call) -> Response:
    """POST /v1/sandboxes/{sandbox_id}/execs/{exec_id}/cancel."""
    await call.gateway.CancelExec(pb.CancelExecRequest(sandbox_id=call.sandbox_id, exec_id=call.exec_id), None)
    return await _told(call, call.exec_id, 200)


async def _resumed(call: Call, request: pb.ExecRequest, position: Position) -> Response:
    """Joins the exec that the event came from, if this is its request, behind the event."""
    if request.exec_id not in ("", position.exec_id):
        raise failed_precondition("EVENT_OF_ANOTHER_EXEC", "Last-Event-ID is of another exec than exec_id")
    # One that is not there must not begin: the client has seen events of it.
    await call.gateway.GetExec(pb.GetExecRequest(sandbox_id=call.sandbox_id, exec_id=position.exec_id), None)
    request.exec_id = position.exec_id
    await _created(_started(call, request))
    return await _streamed(call, _attached(call, position), position)


async def _created(events: AsyncGenerator[pb.ExecEvent, None]) -> pb.ExecCreated:
    """The first event, without waiting for another."""
    async with aclosing(events):
        return (await anext(events)).created


async def _told(call: Call, exec_id: str, status: int) -> Response:
    found = await call.gateway.GetExec(pb.GetExecRequest(sandbox_id=call.sandbox_id, exec_id=exec_id), None)
    return json_response(plain(found.exec), status)


async def _result(events: AsyncGenerator[pb.ExecEvent, None]) -> dict[str, object]:
    taken = ExecResult()
    await taken.take(events)
    return taken.document()


async def _streamed(call: Call, events: AsyncGenerator[pb.ExecEvent, None], position: Position | None) -> Response:
    return await event_response(rendered(events, position), call.services.heartbeat, call.services.stopping)


async def _started(call: Call, request: pb.ExecRequest) -> AsyncGenerator[pb.ExecEvent, None]:
    responses = cast("AsyncGenerator[pb.ExecResponse, None]", call.gateway.Exec(request, None))
    async with aclosing(responses):
        async for response in responses:
            yield response.event


async def _attached(call: Call, position: Position) -> AsyncGenerator[pb.ExecEvent, None]:
    request = position.request(call.sandbox_id)
    responses = cast("AsyncGenerator[pb.AttachExecResponse, None]", call.gateway.AttachExec(request, None))
    async with aclosing(responses):
        async for response in responses:
            yield response.event


_EXEC: Final = "/v1/sandboxes/{sandbox_id}/execs/{exec_id}"
_STREAMED: Final[Mapping[str, Mapping[str, object]]] = {EVENT_STREAM: {}}
_SEEN: Final = Answer(description="The exec has ended, and all of it was seen.", status=204)
OPERATIONS: Final = (
    Operation(
        name="exec",
        method="POST",
        path="/v1/sandboxes/{sandbox_id}/exec",
        summary="Runs a program with what it needs, or a command as it is; the exec does not end with the connection.",
        handle=start,
        calls=("Exec",),
        body=ExecBody,
        event_id=EVENT_ID_PATTERN,
        answers=(
            Answer(description="How it ended, or its events.", media={JSON: result_schema, **_STREAMED}),
            Answer(description="It goes on, as `wait` said.", status=202, media={JSON: pb.Exec.DESCRIPTOR}),
            _SEEN,
        ),
    ),
    Operation(
        name="listExecs",
        method="GET",
        path="/v1/sandboxes/{sandbox_id}/execs",
        summary="A sandbox's execs, newest first, in pages.",
        handle=list_all,
        calls=("ListExecs",),
        query=ListExecsQuery,
        answers=(Answer(description="A page.", media={JSON: pb.ListExecsResponse.DESCRIPTOR}),),
    ),
    Operation(
        name="getExec",
        method="GET",
        path=_EXEC,
        summary="Where an exec is.",
        handle=get,
        calls=("GetExec",),
        answers=(Answer(description="The exec.", media={JSON: pb.Exec.DESCRIPTOR}),),
    ),
    Operation(
        name="getExecResult",
        method="GET",
        path=f"{_EXEC}/result",
        summary="Waits for an exec, and tells how it ended.",
        handle=result,
        calls=("AttachExec",),
        answers=(Answer(description="How it ended.", media={JSON: result_schema}),),
    ),
    Operation(
        name="attachExec",
        method="GET",
        path=f"{_EXEC}/events",
        summary="The events of an exec, from the first or behind the one that is named.",
        handle=events_of,
        calls=("AttachExec",),
        query=EventsQuery,
        event_id=EVENT_ID_PATTERN,
        answers=(Answer(description="The events.", media=_STREAMED), _SEEN),
    ),
    Operation(
        name="cancelExec",
        method="POST",
        path=f"{_EXEC}/cancel",
        summary="Kills everything that the exec started. A repeat is OK.",
        handle=cancel,
        calls=("CancelExec",),
        answers=(Answer(description="The exec.", media={JSON: pb.Exec.DESCRIPTOR}),),
    ),
)

"""Sandboxes and their egress."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, cast

from starlette.responses import Response

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks
from services.gateway.http.answers import json_response
from services.gateway.http.bodies import MAX_LOCK_BODY_BYTES
from services.gateway.http.events import event_response, sent_event
from services.gateway.http.models import SEQUENCE_PATTERN, CreateSandboxBody, EgressBody, PreviewBody
from services.gateway.http.operation import EVENT_STREAM, JSON, Answer, Call, Operation
from services.gateway.http.plain import plain
from services.gateway.http.queries import EgressRecordsQuery
from services.rpc.errors import invalid_argument

_MAX_SEQUENCE_DIGITS: Final = 18


async def create(call: Call) -> Response:
    """POST /v1/sandboxes."""
    body = cast("CreateSandboxBody", call.body)
    made = await call.gateway.CreateSandbox(body.message(), None)
    return json_response(plain(made.sandbox), 201)


async def images(call: Call) -> Response:
    """GET /v1/images."""
    return json_response(plain(await call.gateway.ListImages(pb.ListImagesRequest(), None)))


async def get(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}."""
    found = await call.gateway.GetSandbox(pb.GetSandboxRequest(sandbox_id=call.sandbox_id), None)
    return json_response(plain(found.sandbox))


async def list_all(call: Call) -> Response:
    """GET /v1/sandboxes."""
    return json_response(plain(await call.gateway.ListSandboxes(pb.ListSandboxesRequest(), None)))


async def remove(call: Call) -> Response:
    """DELETE /v1/sandboxes/{sandbox_id}."""
    # What cannot be an id was never a sandbox that is gone now.
    checks.check_sandbox_id(call.sandbox_id)
    await call.gateway.RemoveSandbox(pb.RemoveSandboxRequest(sandbox_id=call.sandbox_id), None)
    return Response(status_code=204)


async def get_egress(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/egress."""
    found = await call.gateway.GetSandbox(pb.GetSandboxRequest(sandbox_id=call.sandbox_id), None)
    return json_response(plain(found.sandbox.egress))


async def set_egress(call: Call) -> Response:
    """PUT /v1/sandboxes/{sandbox_id}/egress."""
    policy = cast("EgressBody", call.body).message()
    request = pb.SetEgressPolicyRequest(sandbox_id=call.sandbox_id, policy=policy)
    return json_response(plain((await call.gateway.SetEgressPolicy(request, None)).policy))


async def create_preview(call: Call) -> Response:
    """POST /v1/sandboxes/{sandbox_id}/previews."""
    request = cast("PreviewBody", call.body).message(call.sandbox_id)
    return json_response(plain(await call.gateway.CreatePreview(request, None)), 201)


async def egress_records(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/egress/records."""
    query = cast("EgressRecordsQuery", call.query)
    last = call.request.headers.get("last-event-id", "")
    if last and not (last.isdecimal() and len(last) <= _MAX_SEQUENCE_DIGITS):
        raise invalid_argument("EVENT_ID_INVALID", "Last-Event-ID must be the sequence of a record")
    after = int(last) if last else query.after
    if call.wants_events:
        followed = _records(call, query.message(call.sandbox_id, after=after, follow=True))
        return await event_response(_rendered(followed), call.services.heartbeat, call.services.stopping)
    found: list[dict[str, Any]] = []
    async with aclosing(_records(call, query.message(call.sandbox_id, after=after, follow=False))) as records:
        async for record in records:
            if len(found) == query.limit:
                return json_response({"records": found, "more": True})
            found.append(plain(record))
    return json_response({"records": found, "more": False})


async def _records(call: Call, request: pb.ListEgressRequest) -> AsyncGenerator[pb.EgressRecord, None]:
    responses = cast("AsyncGenerator[pb.ListEgressResponse, None]", call.gateway.ListEgress(request, None))
    async with aclosing(responses):
        async for response in responses:
            for record in response.records:
                yield record


async def _rendered(records: AsyncGenerator[pb.EgressRecord, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(records):
        async for record in records:
            yield sent_event("record", plain(record), str(record.sequence))


_SANDBOX: Final = "/v1/sandboxes/{sandbox_id}"
_RECORDS: Final = {
    "type": "object",
    "properties": {
        "records": {"type": "array", "items": pb.EgressRecord.DESCRIPTOR},
        "more": {"type": "boolean", "description": "There are later ones: ask again with `after`."},
    },
    "required": ["records", "more"],
}
OPERATIONS: Final = (
    Operation(
        name="createSandbox",
        method="POST",
        path="/v1/sandboxes",
        summary="Makes a sandbox and starts it.",
        handle=create,
        calls=("CreateSandbox",),
        body=CreateSandboxBody,
        body_limit=MAX_LOCK_BODY_BYTES,
        answers=(Answer(description="The sandbox.", status=201, media={JSON: pb.Sandbox.DESCRIPTOR}),),
    ),
    Operation(
        name="listSandboxes",
        method="GET",
        path="/v1/sandboxes",
        summary="All sandboxes, newest first, without their egress policies.",
        handle=list_all,
        calls=("ListSandboxes",),
        answers=(Answer(description="The sandboxes.", media={JSON: pb.ListSandboxesResponse.DESCRIPTOR}),),
    ),
    Operation(
        name="listImages",
        method="GET",
        path="/v1/images",
        summary="The images that sandboxes can be made from, the default first, with their toolchains.",
        handle=images,
        calls=("ListImages",),
        answers=(Answer(description="The images.", media={JSON: pb.ListImagesResponse.DESCRIPTOR}),),
    ),
    Operation(
        name="getSandbox",
        method="GET",
        path=_SANDBOX,
        summary="One sandbox.",
        handle=get,
        calls=("GetSandbox",),
        answers=(Answer(description="The sandbox.", media={JSON: pb.Sandbox.DESCRIPTOR}),),
    ),
    Operation(
        name="removeSandbox",
        method="DELETE",
        path=_SANDBOX,
        summary="Ends a sandbox's execs and removes it with all its files. A repeat is OK.",
        handle=remove,
        calls=("RemoveSandbox",),
        answers=(Answer(description="It is gone.", status=204),),
    ),
    Operation(
        name="getEgressPolicy",
        method="GET",
        path=f"{_SANDBOX}/egress",
        summary="What a sandbox may reach.",
        handle=get_egress,
        calls=("GetSandbox",),
        answers=(Answer(description="The policy in force.", media={JSON: pb.EgressPolicy.DESCRIPTOR}),),
    ),
    Operation(
        name="setEgressPolicy",
        method="PUT",
        path=f"{_SANDBOX}/egress",
        summary="Replaces the whole egress policy; connections that were begun under another one are cut.",
        handle=set_egress,
        calls=("SetEgressPolicy",),
        body=EgressBody,
        body_required=True,
        answers=(Answer(description="The policy in force.", media={JSON: pb.EgressPolicy.DESCRIPTOR}),),
    ),
    Operation(
        name="createPreview",
        method="POST",
        path=f"{_SANDBOX}/previews",
        summary="A signed URL, for a time, of the HTTP server that a program runs on a port.",
        handle=create_preview,
        calls=("CreatePreview",),
        body=PreviewBody,
        body_required=True,
        answers=(Answer(description="The URL.", status=201, media={JSON: pb.CreatePreviewResponse.DESCRIPTOR}),),
    ),
    Operation(
        name="listEgress",
        method="GET",
        path=f"{_SANDBOX}/egress/records",
        summary="What the doors decided, oldest first; as server-sent events it goes on until the sandbox is removed.",
        handle=egress_records,
        calls=("ListEgress",),
        query=EgressRecordsQuery,
        event_id=SEQUENCE_PATTERN,
        answers=(
            Answer(description="The records.", media={JSON: _RECORDS, EVENT_STREAM: {}}),
            Answer(description="The sandbox was removed.", status=204),
        ),
    ),
)

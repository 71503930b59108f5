"""Whole trees as tar archives, comparisons, and uploads that broke off."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final, cast

from starlette.responses import Response

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks
from services.gateway.http.answers import json_response
from services.gateway.http.bodies import MAX_LOCK_BODY_BYTES, upload
from services.gateway.http.content import NOT_AGAIN, Content, answer_content
from services.gateway.http.models import CompareBody
from services.gateway.http.operation import BYTES, JSON, TAR, TEXT, Answer, Call, Operation
from services.gateway.http.plain import plain
from services.gateway.http.queries import PathQuery, WriteTreeQuery
from services.gateway.http.ranges import RANGE_HEADERS


async def read(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/tree."""
    path = cast("PathQuery", call.query).path

    async def opening(offset: int, _length: int, etag: str) -> Content:
        request = pb.ReadTreeRequest(sandbox_id=call.sandbox_id, path=path, offset=offset, etag=etag.strip('"'))
        responses = cast("AsyncGenerator[pb.ReadTreeResponse, None]", call.gateway.ReadTree(request, None))
        header = (await anext(responses)).header
        counts = {"x-qila-entries": str(header.entry_count), "x-qila-skipped": str(header.skipped_count)}
        return Content(etag=f'"{header.etag}"', size=header.size, responses=responses, headers=counts)

    return await answer_content(call, opening, TAR)


async def write(call: Call) -> Response:
    """PUT /v1/sandboxes/{sandbox_id}/tree."""
    query = cast("WriteTreeQuery", call.query)
    header = pb.WriteTreeHeader(
        sandbox_id=call.sandbox_id, path=query.path, transfer_id=query.transfer_id, offset=query.offset
    )
    async with (
        aclosing(upload(call.request)) as chunks,
        aclosing(_requests(header, chunks, query.sha256)) as messages,
    ):
        return json_response(plain(await call.gateway.WriteTree(messages, None)))


async def _requests(
    header: pb.WriteTreeHeader, chunks: AsyncIterator[bytes], sha256: str
) -> AsyncGenerator[pb.WriteTreeRequest, None]:
    yield pb.WriteTreeRequest(header=header)
    async for chunk in chunks:
        yield pb.WriteTreeRequest(chunk=chunk)
    yield pb.WriteTreeRequest(end=pb.WriteTreeEnd(sha256=sha256))


async def compare(call: Call) -> Response:
    """POST /v1/sandboxes/{sandbox_id}/tree/compare."""
    body = cast("CompareBody", call.body)
    found = pb.CompareTreeResponse()
    async with aclosing(_compared(call.sandbox_id, body)) as messages:
        answers = cast("AsyncGenerator[pb.CompareTreeResponse, None]", call.gateway.CompareTree(messages, None))
        async with aclosing(answers):
            async for answer in answers:
                found.MergeFrom(answer)
    return json_response(plain(found))


async def _compared(sandbox_id: str, body: CompareBody) -> AsyncGenerator[pb.CompareTreeRequest, None]:
    header = pb.CompareTreeHeader(sandbox_id=sandbox_id, path=body.path, ignored_names=body.ignored_names)
    yield pb.CompareTreeRequest(header=header)
    for start in range(0, len(body.files), checks.MAX_BATCH):
        batch = [file.message() for file in body.files[start : start + checks.MAX_BATCH]]
        yield pb.CompareTreeRequest(files=pb.CompareTreeFiles(files=batch))
    yield pb.CompareTreeRequest(end=pb.CompareTreeEnd())


async def transfer(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/transfers/{transfer_id}."""
    transfer_id = str(call.request.path_params["transfer_id"])
    request = pb.GetTransferRequest(sandbox_id=call.sandbox_id, transfer_id=transfer_id)
    return json_response(plain(await call.gateway.GetTransfer(request, None)))


_TREE: Final = "/v1/sandboxes/{sandbox_id}/tree"
OPERATIONS: Final = (
    Operation(
        name="readTree",
        method="GET",
        path=_TREE,
        summary="A directory with all that is below it, as a tar archive: the same bytes while the tree is the same.",
        handle=read,
        calls=("ReadTree",),
        query=PathQuery,
        headers=RANGE_HEADERS,
        answers=(
            Answer(description="The archive.", media={TAR: TEXT}),
            Answer(description="The bytes of the range.", status=206, media={TAR: TEXT}),
            NOT_AGAIN,
        ),
    ),
    Operation(
        name="writeTree",
        method="PUT",
        path=_TREE,
        summary="Writes what a tar archive of at most 2 GiB holds below a directory, once all of it is checked.",
        handle=write,
        calls=("WriteTree",),
        query=WriteTreeQuery,
        upload=(BYTES, TEXT),
        answers=(Answer(description="What was written.", media={JSON: pb.WriteTreeResponse.DESCRIPTOR}),),
    ),
    Operation(
        name="compareTree",
        method="POST",
        path=f"{_TREE}/compare",
        summary="Which of these files are missing below a directory or something else there, and what is there beyond.",
        handle=compare,
        calls=("CompareTree",),
        body=CompareBody,
        body_required=True,
        body_limit=MAX_LOCK_BODY_BYTES,
        answers=(Answer(description="The differences.", media={JSON: pb.CompareTreeResponse.DESCRIPTOR}),),
    ),
    Operation(
        name="getTransfer",
        method="GET",
        path="/v1/sandboxes/{sandbox_id}/transfers/{transfer_id}",
        summary="How much is held of an upload that broke off: 0 of one that is not known, or was finished.",
        handle=transfer,
        calls=("GetTransfer",),
        answers=(Answer(description="The bytes.", media={JSON: pb.GetTransferResponse.DESCRIPTOR}),),
    ),
)

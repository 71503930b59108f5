"""Lockfiles, SBOMs and comparisons."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, cast

from starlette.responses import Response

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.http.answers import Stream, json_response
from services.gateway.http.bodies import MAX_LOCK_BODY_BYTES
from services.gateway.http.events import begun
from services.gateway.http.models import DiffBody
from services.gateway.http.operation import BYTES, JSON, TEXT, Answer, Call, Operation
from services.gateway.http.plain import plain
from services.gateway.http.queries import LockQuery, SbomQuery
from services.rpc.errors import not_found

_SBOM_SECONDS: Final = 600.0
_FORMATS: Final = {
    "cyclonedx": (pb.SBOM_FORMAT_CYCLONEDX_1_6, "application/vnd.cyclonedx+json"),
    "spdx": (pb.SBOM_FORMAT_SPDX_2_3, "application/spdx+json"),
}


async def lock(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/lock."""
    query = cast("LockQuery", call.query)
    request = pb.GetLockRequest(sandbox_id=call.sandbox_id, exec_id=query.exec_id)
    found = await call.gateway.GetLock(request, None)
    kept = _of_project(found, query) if query.project or query.language else found
    headers = {"x-qila-exec-id": found.exec_id}
    if not query.native:
        return Response(kept.lock, media_type=JSON, headers=headers)
    if not kept.native_lock_name:
        raise not_found("NO_LOCK", f"{found.exec_id} has no native lock; leave `native` out")
    return Response(kept.native_lock, media_type=BYTES, headers={**headers, "x-qila-lock-name": kept.native_lock_name})


def _of_project(found: pb.GetLockResponse, query: LockQuery) -> pb.ProjectLock:
    """The only one that is meant."""
    wanted = query.project.rstrip("/")
    meant = [
        item
        for item in found.projects
        if (not wanted or item.project == wanted) and (not query.language or item.ecosystem == query.language)
    ]
    if len(meant) == 1:
        return meant[0]
    there = ", ".join(f"{item.project} ({item.ecosystem})" for item in found.projects) or "none"
    reason = "several projects are meant" if meant else "no such project was installed"
    raise not_found("PROJECT_NOT_FOUND", f"{reason}; of {found.exec_id} there is: {there}", exec_id=found.exec_id)


async def sbom(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/sbom."""
    query = cast("SbomQuery", call.query)
    form, media_type = _FORMATS[query.format]
    request = pb.GetSbomRequest(sandbox_id=call.sandbox_id, exec_id=query.exec_id, format=form)

    async def content() -> AsyncGenerator[bytes, None]:
        responses = cast("AsyncGenerator[pb.GetSbomResponse, None]", call.gateway.GetSbom(request, None))
        async with aclosing(responses):
            async for response in responses:
                yield response.chunk

    chunks = await begun(content(), _SBOM_SECONDS)
    if chunks is None:
        return Response(b"", media_type=media_type)
    return Stream(chunks, call.services.stopping, media_type=media_type)


async def diff(call: Call) -> Response:
    """POST /v1/diff."""
    return json_response(plain(await call.gateway.DiffLocks(cast("DiffBody", call.body).message(), None)))


OPERATIONS: Final = (
    Operation(
        name="getLock",
        method="GET",
        path="/v1/sandboxes/{sandbox_id}/lock",
        summary="The lockfile of an exec's environment, as it is kept.",
        handle=lock,
        calls=("GetLock",),
        query=LockQuery,
        answers=(Answer(description="qila.lock.json, or the native lock.", media={JSON: {}, BYTES: TEXT}),),
    ),
    Operation(
        name="getSbom",
        method="GET",
        path="/v1/sandboxes/{sandbox_id}/sbom",
        summary="The SBOM of an exec.",
        handle=sbom,
        calls=("GetSbom",),
        query=SbomQuery,
        answers=(Answer(description="CycloneDX or SPDX.", media={media: {} for _, media in _FORMATS.values()}),),
    ),
    Operation(
        name="diffLocks",
        method="POST",
        path="/v1/diff",
        summary="Compares what two execs, sandboxes or lockfiles hold.",
        handle=diff,
        calls=("DiffLocks",),
        body=DiffBody,
        body_required=True,
        body_limit=MAX_LOCK_BODY_BYTES,
        answers=(Answer(description="What differs.", media={JSON: pb.DiffLocksResponse.DESCRIPTOR}),),
    ),
)

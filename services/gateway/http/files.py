"""Files of a workspace: they go through as they come, and nothing is kept here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final, cast

from starlette.responses import Response

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks
from services.gateway.http.answers import json_response
from services.gateway.http.bodies import upload
from services.gateway.http.content import NOT_AGAIN, Content, answer_content
from services.gateway.http.models import PATH_PATTERN, DirectoryBody, MoveBody
from services.gateway.http.multipart import MultipartReader, Part
from services.gateway.http.operation import BYTES, FORM, JSON, TEXT, Answer, Call, Operation
from services.gateway.http.plain import plain
from services.gateway.http.queries import ListFilesQuery, PathQuery, WriteFileQuery
from services.gateway.http.ranges import RANGE_HEADERS
from services.rpc.errors import invalid_argument

_FILE_FIELDS: Final = ("file", "files")


async def list_directory(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/files."""
    query = cast("ListFilesQuery", call.query)
    request = pb.ListFilesRequest(
        sandbox_id=call.sandbox_id, path=query.path, depth=query.depth, patterns=query.pattern
    )
    return json_response(plain(await call.gateway.ListFiles(request, None)))


async def stat(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/stat."""
    request = pb.StatFileRequest(sandbox_id=call.sandbox_id, path=cast("PathQuery", call.query).path)
    return json_response(plain((await call.gateway.StatFile(request, None)).file))


async def move(call: Call) -> Response:
    """POST /v1/sandboxes/{sandbox_id}/move."""
    await call.gateway.MoveFile(cast("MoveBody", call.body).message(call.sandbox_id), None)
    return Response(status_code=204)


async def make_directory(call: Call) -> Response:
    """POST /v1/sandboxes/{sandbox_id}/directories."""
    path = cast("DirectoryBody", call.body).path
    await call.gateway.MakeDirectory(pb.MakeDirectoryRequest(sandbox_id=call.sandbox_id, path=path), None)
    return Response(status_code=204)


async def upload_form(call: Call) -> Response:
    """POST /v1/sandboxes/{sandbox_id}/files."""
    written: list[dict[str, Any]] = []
    path = ""
    async with aclosing(upload(call.request)) as chunks:
        form = MultipartReader(call.request.headers.get("content-type", ""), chunks)
        async for part in form.parts():
            if part.filename is None:
                path = await _path_field(part, form)
                continue
            header = pb.WriteFileHeader(sandbox_id=call.sandbox_id, path=_target(part, path))
            written.append(await _write(call, header, form.content()))
            path = ""
    if path:
        raise invalid_argument("FORM_INVALID", "path: must come before the file that it is for")
    if not written:
        raise invalid_argument("FORM_INVALID", "the form must have a file, as curl -F file=@main.py sends it")
    return json_response({"files": written})


async def write(call: Call) -> Response:
    """PUT /v1/sandboxes/{sandbox_id}/files/{path}."""
    query = cast("WriteFileQuery", call.query)
    header = pb.WriteFileHeader(
        sandbox_id=call.sandbox_id,
        path=call.path,
        executable=query.executable,
        transfer_id=query.transfer_id,
        offset=query.offset,
    )
    async with aclosing(upload(call.request)) as chunks:
        return json_response(await _write(call, header, chunks, query.sha256))


async def read(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/files/{path}."""

    async def opening(offset: int, length: int, _etag: str) -> Content:
        request = pb.ReadFileRequest(sandbox_id=call.sandbox_id, path=call.path, offset=offset, length=length)
        responses = cast("AsyncGenerator[pb.ReadFileResponse, None]", call.gateway.ReadFile(request, None))
        header = (await anext(responses)).header
        etag = f'"{header.mtime_ns:x}-{header.size:x}{"x" if header.executable else ""}"'
        return Content(etag=etag, size=header.size, responses=responses)

    return await answer_content(call, opening, BYTES)


async def remove(call: Call) -> Response:
    """DELETE /v1/sandboxes/{sandbox_id}/files/{path}."""
    await call.gateway.RemoveFile(pb.RemoveFileRequest(sandbox_id=call.sandbox_id, path=call.path), None)
    return Response(status_code=204)


async def _path_field(part: Part, form: MultipartReader) -> str:
    if part.name != "path":
        raise invalid_argument("FORM_INVALID", f"{part.name[:64]!r}: fields are file, with a file, and path")
    path = await form.text()
    checks.check_path("path", path.removesuffix("/"))
    return path


def _target(part: Part, path: str) -> str:
    """Where a file goes: to `path`, into it if that ends with /, or where its name says."""
    if part.name not in _FILE_FIELDS:
        raise invalid_argument("FORM_INVALID", f"{part.name[:64]!r}: a file's field must be named file")
    if path and not path.endswith("/"):
        return path
    target = path + (part.filename or "")
    checks.check_path("filename", target)
    return target


async def _write(
    call: Call, header: pb.WriteFileHeader, chunks: AsyncIterator[bytes], sha256: str = ""
) -> dict[str, Any]:
    async def requests() -> AsyncGenerator[pb.WriteFileRequest, None]:
        yield pb.WriteFileRequest(header=header)
        async for chunk in chunks:
            yield pb.WriteFileRequest(chunk=chunk)
        yield pb.WriteFileRequest(end=pb.WriteFileEnd(sha256=sha256))

    async with aclosing(requests()) as messages:
        written = await call.gateway.WriteFile(messages, None)
    return {"path": header.path, "size": written.size, "sha256": written.sha256}


_SANDBOX: Final = "/v1/sandboxes/{sandbox_id}"
_FILES: Final = f"{_SANDBOX}/files"
_WRITTEN: Final = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "size": {"type": "integer"},
        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    },
    "required": ["path", "size", "sha256"],
}
_FORM: Final = {
    "type": "object",
    "properties": {
        "path": {
            "type": "string",
            "pattern": f"^{PATH_PATTERN}/?$",
            "description": "Of the file that follows; ends with / for a directory.",
        },
        "file": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
    },
    "required": ["file"],
}
_UPLOADED: Final = {
    "type": "object",
    "properties": {"files": {"type": "array", "items": _WRITTEN}},
    "required": ["files"],
}
OPERATIONS: Final = (
    Operation(
        name="listFiles",
        method="GET",
        path=_FILES,
        summary="Lists a directory, or what is below it down to a depth, sorted by path.",
        handle=list_directory,
        calls=("ListFiles",),
        query=ListFilesQuery,
        answers=(Answer(description="The files.", media={JSON: pb.ListFilesResponse.DESCRIPTOR}),),
    ),
    Operation(
        name="uploadFiles",
        method="POST",
        path=_FILES,
        summary="Writes the files of a form, each atomically: those before one that fails stay.",
        handle=upload_form,
        calls=("WriteFile",),
        upload=(FORM, _FORM),
        body_required=True,
        answers=(Answer(description="What was written.", media={JSON: _UPLOADED}),),
    ),
    Operation(
        name="readFile",
        method="GET",
        path=f"{_FILES}/{{path}}",
        summary="The bytes of a file, or a part of them.",
        handle=read,
        calls=("ReadFile",),
        headers=RANGE_HEADERS,
        answers=(
            Answer(description="The bytes.", media={BYTES: TEXT}),
            Answer(description="The bytes of the range.", status=206, media={BYTES: TEXT}),
            NOT_AGAIN,
        ),
    ),
    Operation(
        name="writeFile",
        method="PUT",
        path=f"{_FILES}/{{path}}",
        summary="Writes a file atomically, at most 2 GiB; with a transfer, an upload that broke off goes on.",
        handle=write,
        calls=("WriteFile",),
        upload=(BYTES, TEXT),
        query=WriteFileQuery,
        answers=(Answer(description="What was written.", media={JSON: _WRITTEN}),),
    ),
    Operation(
        name="removeFile",
        method="DELETE",
        path=f"{_FILES}/{{path}}",
        summary="Removes a file, or a directory with all it holds.",
        handle=remove,
        calls=("RemoveFile",),
        answers=(Answer(description="It is gone.", status=204),),
    ),
    Operation(
        name="statFile",
        method="GET",
        path=f"{_SANDBOX}/stat",
        summary="What a path is; a link is not followed.",
        handle=stat,
        calls=("StatFile",),
        query=PathQuery,
        answers=(Answer(description="The file, directory or link.", media={JSON: pb.FileInfo.DESCRIPTOR}),),
    ),
    Operation(
        name="moveFile",
        method="POST",
        path=f"{_SANDBOX}/move",
        summary="Gives a file, directory or link another path, atomically.",
        handle=move,
        calls=("MoveFile",),
        body=MoveBody,
        body_required=True,
        answers=(Answer(description="It is there.", status=204),),
    ),
    Operation(
        name="makeDirectory",
        method="POST",
        path=f"{_SANDBOX}/directories",
        summary="Makes a directory and those above it; one that is there is fine.",
        handle=make_directory,
        calls=("MakeDirectory",),
        body=DirectoryBody,
        body_required=True,
        answers=(Answer(description="It is there.", status=204),),
    ),
)

"""Files of a workspace: they go through as they come, and nothing is kept here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final, cast

from starlette.responses import Response

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks
from services.gateway.http.answers import Stream, json_response
from services.gateway.http.bodies import upload
from services.gateway.http.events import begun
from services.gateway.http.models import PATH_PATTERN, ListFilesQuery, WriteFileQuery
from services.gateway.http.multipart import MultipartReader, Part
from services.gateway.http.operation import BYTES, FORM, JSON, TEXT, Answer, Call, Operation
from services.gateway.http.plain import plain
from services.rpc.errors import invalid_argument

_FILE_FIELDS: Final = ("file", "files")
_DOWNLOAD_SECONDS: Final = 3600.0


async def list_directory(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/files."""
    path = cast("ListFilesQuery", call.query).path
    listed = await call.gateway.ListFiles(pb.ListFilesRequest(sandbox_id=call.sandbox_id, path=path), None)
    return json_response(plain(listed))


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
            written.append(await _write(call, _target(part, path), form.content()))
            path = ""
    if path:
        raise invalid_argument("FORM_INVALID", "path: must come before the file that it is for")
    if not written:
        raise invalid_argument("FORM_INVALID", "the form must have a file, as curl -F file=@main.py sends it")
    return json_response({"files": written})


async def write(call: Call) -> Response:
    """PUT /v1/sandboxes/{sandbox_id}/files/{path}."""
    executable = cast("WriteFileQuery", call.query).executable
    async with aclosing(upload(call.request)) as chunks:
        return json_response(await _write(call, call.path, chunks, executable=executable))


async def read(call: Call) -> Response:
    """GET /v1/sandboxes/{sandbox_id}/files/{path}."""
    request = pb.ReadFileRequest(sandbox_id=call.sandbox_id, path=call.path)

    async def content() -> AsyncGenerator[bytes, None]:
        responses = cast("AsyncGenerator[pb.ReadFileResponse, None]", call.gateway.ReadFile(request, None))
        async with aclosing(responses):
            async for response in responses:
                if response.HasField("chunk"):
                    yield response.chunk

    # What a program wrote must never be shown as a page.
    headers = {"content-disposition": "attachment"}
    chunks = await begun(content(), _DOWNLOAD_SECONDS)
    if chunks is None:
        return Response(b"", media_type=BYTES, headers=headers)
    return Stream(chunks, call.services.stopping, media_type=BYTES, headers=headers)


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


async def _write(call: Call, path: str, chunks: AsyncIterator[bytes], *, executable: bool = False) -> dict[str, Any]:
    async def requests() -> AsyncGenerator[pb.WriteFileRequest, None]:
        header = pb.WriteFileHeader(sandbox_id=call.sandbox_id, path=path, executable=executable)
        yield pb.WriteFileRequest(header=header)
        async for chunk in chunks:
            yield pb.WriteFileRequest(chunk=chunk)
        yield pb.WriteFileRequest(end=pb.WriteFileEnd())

    async with aclosing(requests()) as messages:
        written = await call.gateway.WriteFile(messages, None)
    return {"path": path, "size": written.size, "sha256": written.sha256}


_FILES: Final = "/v1/sandboxes/{sandbox_id}/files"
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
        summary="Lists one directory.",
        handle=list_directory,
        query=ListFilesQuery,
        answers=(Answer(description="The files.", media={JSON: pb.ListFilesResponse.DESCRIPTOR}),),
    ),
    Operation(
        name="uploadFiles",
        method="POST",
        path=_FILES,
        summary="Writes the files of a form, each atomically: those before one that fails stay.",
        handle=upload_form,
        upload=(FORM, _FORM),
        body_required=True,
        answers=(Answer(description="What was written.", media={JSON: _UPLOADED}),),
    ),
    Operation(
        name="readFile",
        method="GET",
        path=f"{_FILES}/{{path}}",
        summary="The bytes of a file.",
        handle=read,
        answers=(Answer(description="The bytes.", media={BYTES: TEXT}),),
    ),
    Operation(
        name="writeFile",
        method="PUT",
        path=f"{_FILES}/{{path}}",
        summary="Writes a file atomically, at most 2 GiB.",
        handle=write,
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
        answers=(Answer(description="It is gone.", status=204),),
    ),
)

# ruff: noqa: D102  # the proto specifies the calls
"""The calls about a workspace's files: unpack, call, pack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks
from services.gateway.file_watching import watch_files
from services.gateway.packing import pack_file
from services.gateway.ports import ExecutorPort
from services.gateway.store.port import SandboxRecord, Store
from services.rpc.errors import invalid_argument, resource_exhausted


class FileServicer:
    """The part of the gateway's service that is about files."""

    _executor: ExecutorPort
    _store: Store
    _patience: float

    async def WriteFile(
        self, request_iterator: AsyncIterator[pb.WriteFileRequest], context: Any
    ) -> pb.WriteFileResponse:
        header = await _header(request_iterator)
        checks.check_path("path", header.path)
        checks.check_transfer(header.transfer_id, header.offset)
        await self._known(header.sandbox_id)
        upload = _Upload(request_iterator, header.offset)
        written = await self._executor.write_file(
            executor.WriteFileHeader(
                sandbox_id=header.sandbox_id,
                path=header.path,
                executable=header.executable,
                user=executor.USER_PROGRAM,
                transfer_id=header.transfer_id,
                offset=header.offset,
            ),
            upload.chunks(),
            sha256=upload.end_sha256,
        )
        return pb.WriteFileResponse(size=written.size, sha256=written.sha256)

    async def WriteTree(
        self, request_iterator: AsyncIterator[pb.WriteTreeRequest], context: Any
    ) -> pb.WriteTreeResponse:
        header = await _header(request_iterator)
        checks.check_path("path", header.path, empty=True)
        checks.check_transfer(header.transfer_id, header.offset)
        await self._known(header.sandbox_id)
        upload = _Upload(request_iterator, header.offset)
        written = await self._executor.write_tree(
            executor.WriteTreeHeader(
                sandbox_id=header.sandbox_id,
                path=header.path,
                transfer_id=header.transfer_id,
                offset=header.offset,
            ),
            upload.chunks(),
            sha256=upload.end_sha256,
        )
        return pb.WriteTreeResponse(size=written.size, sha256=written.sha256, file_count=written.file_count)

    async def ReadTree(self, request: pb.ReadTreeRequest, context: Any) -> AsyncIterator[pb.ReadTreeResponse]:
        checks.check_path("path", request.path, empty=True)
        checks.check_etag(request.etag, request.offset)
        await self._known(request.sandbox_id)
        asked = executor.ReadTreeRequest(
            sandbox_id=request.sandbox_id, path=request.path, etag=request.etag, offset=request.offset
        )
        async with aclosing(self._executor.read_tree(asked)) as responses:
            async for response in responses:
                yield _tree_part(response)

    async def CompareTree(
        self, request_iterator: AsyncIterator[pb.CompareTreeRequest], context: Any
    ) -> AsyncIterator[pb.CompareTreeResponse]:
        header = await _header(request_iterator)
        checks.check_path("path", header.path, empty=True)
        checks.check_ignored_names(header.ignored_names)
        await self._known(header.sandbox_id)
        asked = executor.CompareTreeHeader(
            sandbox_id=header.sandbox_id, path=header.path, ignored_names=header.ignored_names
        )
        async with aclosing(self._executor.compare_tree(asked, _files(request_iterator))) as responses:
            async for response in responses:
                yield pb.CompareTreeResponse(different=response.different, beyond=response.beyond)

    async def GetTransfer(self, request: pb.GetTransferRequest, context: Any) -> pb.GetTransferResponse:
        checks.check_transfer(request.transfer_id, 0, empty=False)
        await self._known(request.sandbox_id)
        return pb.GetTransferResponse(size=await self._executor.transfer_size(request.sandbox_id, request.transfer_id))

    async def ReadFile(self, request: pb.ReadFileRequest, context: Any) -> AsyncIterator[pb.ReadFileResponse]:
        checks.check_path("path", request.path)
        await self._known(request.sandbox_id)
        asked = executor.ReadFileRequest(
            sandbox_id=request.sandbox_id, path=request.path, offset=request.offset, length=request.length
        )
        async with aclosing(self._executor.read_file(asked)) as responses:
            async for response in responses:
                yield _file_part(response)

    async def ListFiles(self, request: pb.ListFilesRequest, context: Any) -> pb.ListFilesResponse:
        checks.check_path("path", request.path, empty=True)
        checks.check_listing(request.depth, request.patterns)
        await self._known(request.sandbox_id)
        asked = executor.ListFilesRequest(
            sandbox_id=request.sandbox_id, path=request.path, depth=request.depth, patterns=request.patterns
        )
        files = await self._executor.list_files(asked)
        return pb.ListFilesResponse(files=[pack_file(file) for file in files])

    async def WatchFiles(self, request: pb.WatchFilesRequest, context: Any) -> AsyncIterator[pb.WatchFilesResponse]:
        checks.check_path("path", request.path, empty=True)
        checks.check_listing(request.depth, request.patterns)
        checks.check_ignored_names(request.ignored_names)
        await self._known(request.sandbox_id)
        asked = executor.WatchFilesRequest(
            sandbox_id=request.sandbox_id,
            path=request.path,
            depth=request.depth,
            patterns=request.patterns,
            ignored_names=request.ignored_names,
        )
        async with aclosing(watch_files(self._executor, asked, self._patience)) as responses:
            async for response in responses:
                yield response

    async def StatFile(self, request: pb.StatFileRequest, context: Any) -> pb.StatFileResponse:
        checks.check_path("path", request.path, empty=True)
        await self._known(request.sandbox_id)
        return pb.StatFileResponse(file=pack_file(await self._executor.stat_file(request.sandbox_id, request.path)))

    async def MoveFile(self, request: pb.MoveFileRequest, context: Any) -> pb.MoveFileResponse:
        checks.check_path("source", request.source)
        checks.check_path("target", request.target)
        await self._known(request.sandbox_id)
        await self._executor.move_file(
            executor.MoveFileRequest(
                sandbox_id=request.sandbox_id, source=request.source, target=request.target, replace=request.replace
            )
        )
        return pb.MoveFileResponse()

    async def MakeDirectory(self, request: pb.MakeDirectoryRequest, context: Any) -> pb.MakeDirectoryResponse:
        checks.check_path("path", request.path)
        await self._known(request.sandbox_id)
        await self._executor.make_directory(request.sandbox_id, request.path)
        return pb.MakeDirectoryResponse()

    async def RemoveFile(self, request: pb.RemoveFileRequest, context: Any) -> pb.RemoveFileResponse:
        checks.check_path("path", request.path)
        await self._known(request.sandbox_id)
        await self._executor.remove_file(request.sandbox_id, request.path, executor.USER_PROGRAM)
        return pb.RemoveFileResponse()

    async def _known(self, sandbox_id: str) -> SandboxRecord:
        checks.check_sandbox_id(sandbox_id)
        record = await self._store.sandbox(sandbox_id)
        if record is None:
            raise checks.no_such_sandbox(sandbox_id)
        return record


async def _header(requests: AsyncIterator[Any]) -> Any:
    first = await anext(aiter(requests), None)
    if first is None or not first.HasField("header"):
        raise invalid_argument("HEADER_MISSING", "the first message must be the header")
    return first.header


async def _files(requests: AsyncIterator[pb.CompareTreeRequest]) -> AsyncIterator[list[executor.TreeFile]]:
    count = 0
    async for request in requests:
        if request.HasField("end"):
            return
        if not request.HasField("files"):
            raise invalid_argument("FILES_EXPECTED", "every message between header and end must be of files")
        batch = request.files.files
        if len(batch) > checks.MAX_BATCH:
            raise invalid_argument("FILES_TOO_MANY", f"a message must have at most {checks.MAX_BATCH} files")
        count += len(batch)
        if count > checks.MAX_FILES:
            raise resource_exhausted("FILES_TOO_MANY", f"at most {checks.MAX_FILES} files; compare a part of the tree")
        for file in batch:
            checks.check_path("files.path", file.path)
            checks.check_sha256(file.sha256, field="files.sha256")
        yield [
            executor.TreeFile(path=file.path, size=file.size, sha256=file.sha256, executable=file.executable)
            for file in batch
        ]
    raise invalid_argument("END_MISSING", "the last message must be the end: the stream broke off")


class _Upload:
    """What lies between header and end, of WriteFile and WriteTree."""

    def __init__(self, requests: AsyncIterator[Any], offset: int) -> None:
        self._requests = requests
        self._size = offset
        self._sha256 = ""

    def end_sha256(self) -> str:
        """What the end said of the whole; empty if it said nothing."""
        return self._sha256

    async def chunks(self) -> AsyncIterator[bytes]:
        async for request in self._requests:
            if request.HasField("end"):
                checks.check_sha256(request.end.sha256)
                self._sha256 = request.end.sha256
                return
            if not request.HasField("chunk"):
                raise invalid_argument("CHUNK_EXPECTED", "every message between header and end must be a chunk")
            if len(request.chunk) > checks.MAX_CHUNK_BYTES:
                raise invalid_argument("CHUNK_TOO_LARGE", "a chunk must be at most 64 KiB")
            self._size += len(request.chunk)
            if self._size > checks.MAX_UPLOAD_BYTES:
                raise resource_exhausted("FILE_TOO_LARGE", "an upload must be at most 2 GiB; send it in parts")
            yield request.chunk
        # A client that was cut off looks the same as one that stopped: only the end says that the file is whole.
        raise invalid_argument(
            "END_MISSING", "the last message must be the end: the stream broke off, nothing was written"
        )


def _tree_part(response: executor.ReadTreeResponse) -> pb.ReadTreeResponse:
    match response.WhichOneof("part"):
        case "header":
            header = response.header
            return pb.ReadTreeResponse(
                header=pb.ReadTreeHeader(
                    etag=header.etag,
                    size=header.size,
                    entry_count=header.entry_count,
                    skipped_count=header.skipped_count,
                )
            )
        case "end":
            return pb.ReadTreeResponse(end=pb.ReadTreeEnd(size=response.end.size, sha256=response.end.sha256))
        case _:
            return pb.ReadTreeResponse(chunk=response.chunk)


def _file_part(response: executor.ReadFileResponse) -> pb.ReadFileResponse:
    match response.WhichOneof("part"):
        case "header":
            header = response.header
            return pb.ReadFileResponse(
                header=pb.ReadFileHeader(size=header.size, mtime_ns=header.mtime_ns, executable=header.executable)
            )
        case "end":
            return pb.ReadFileResponse(end=pb.ReadFileEnd(size=response.end.size, sha256=response.end.sha256))
        case _:
            return pb.ReadFileResponse(chunk=response.chunk)

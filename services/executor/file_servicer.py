"""The calls about a workspace's files: unpack, call, pack."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc.aio

from qila.executor.v1 import executor_pb2 as pb
from services.executor import errors, files, trees
from services.executor.file_watch_wire import pack_watch_event, unpack_watch
from services.executor.file_watches import watch
from services.executor.file_wire import (
    USERS,
    UploadStream,
    check_position,
    pack_entry,
    pack_file_info,
    pack_file_part,
    pack_part,
    pack_summary,
    pack_tree_part,
    unpack_files,
)
from services.executor.files import check_depth, check_path, check_patterns
from services.executor.sandboxes import Sandbox, Sandboxes
from services.executor.wire_errors import wire_errors

# The servicers never use it: interceptors set status and metadata.
Context = grpc.aio.ServicerContext[Any, Any]

MAX_PATHS = 20_000
SURVEY_ROWS = 500


class FileServicer:
    """The part of the executor's service that is about files."""

    _sandboxes: Sandboxes

    async def SurveyWorkspace(
        self, request: pb.SurveyWorkspaceRequest, context: Context
    ) -> AsyncIterator[pb.SurveyWorkspaceResponse]:
        """See the proto."""
        with wire_errors():
            sandbox = await self._sandboxes.ready(request.sandbox_id)
            async for batch in files.survey(sandbox.agent, request.known_digest):
                if isinstance(batch, files.SurveySummary):
                    summary = self._pack_summary(batch, sandbox)
                    yield pb.SurveyWorkspaceResponse(summary=summary)
                    continue
                for start in range(0, len(batch), SURVEY_ROWS):
                    rows = batch[start : start + SURVEY_ROWS]
                    yield pb.SurveyWorkspaceResponse(entries=[pack_entry(row) for row in rows])

    def _pack_summary(self, summary: files.SurveySummary, sandbox: Sandbox) -> pb.SurveySummary:
        settings = self._sandboxes.settings
        return pack_summary(
            summary,
            sandbox.agent.toolchains,
            package_policy=settings.package_policy,
            registry_urls=settings.registry_urls,
        )

    async def WriteFile(
        self, request_iterator: AsyncIterator[pb.WriteFileRequest], context: Context
    ) -> pb.WriteFileResponse:
        """See the proto."""
        with wire_errors():
            header = await _header(request_iterator)
            path = check_path(header.path)
            upload = UploadStream(header, request_iterator)
            if header.user != pb.USER_INSTALL:
                self._sandboxes.space.check()
            elif upload.transfer:
                raise errors.InvalidFieldError("transfer_id", "is for files of the program's user")
            sandbox = await self._sandboxes.ready(header.sandbox_id)
            with in_use(sandbox):
                size, digest = await files.write(
                    sandbox.agent, path=path, executable=header.executable, user=USERS[header.user], upload=upload
                )
            return pb.WriteFileResponse(size=size, sha256=digest)

    async def WriteTree(
        self, request_iterator: AsyncIterator[pb.WriteTreeRequest], context: Context
    ) -> pb.WriteTreeResponse:
        """See the proto."""
        with wire_errors():
            header = await _header(request_iterator)
            path = check_path(header.path, empty_allowed=True)
            upload = UploadStream(header, request_iterator)
            self._sandboxes.space.check()
            sandbox = await self._sandboxes.ready(header.sandbox_id)
            with in_use(sandbox):
                written = await trees.write_tree(sandbox.agent, path=path, upload=upload)
            return pb.WriteTreeResponse(
                size=written.size, sha256=written.sha256, file_count=min(written.file_count, 1 << 31)
            )

    async def ReadTree(self, request: pb.ReadTreeRequest, context: Context) -> AsyncIterator[pb.ReadTreeResponse]:
        """See the proto."""
        with wire_errors():
            path = check_path(request.path, empty_allowed=True)
            offset = check_position(request.offset, "offset")
            if offset and not request.etag:
                raise errors.InvalidFieldError("etag", "must say of which archive the offset is")
            sandbox = await self._sandboxes.ready(request.sandbox_id)
            with in_use(sandbox):
                async for part in trees.read_tree(sandbox.agent, path=path, etag=request.etag, offset=offset):
                    yield pack_tree_part(part)

    async def CompareTree(
        self, request_iterator: AsyncIterator[pb.CompareTreeRequest], context: Context
    ) -> AsyncIterator[pb.CompareTreeResponse]:
        """See the proto."""
        with wire_errors():
            header = await _header(request_iterator)
            path = check_path(header.path, empty_allowed=True)
            ignored = trees.check_ignored_names(header.ignored_names)
            sandbox = await self._sandboxes.ready(header.sandbox_id)
            with in_use(sandbox):
                differences = trees.compare_tree(
                    sandbox.agent, path=path, ignored_names=ignored, files=unpack_files(request_iterator)
                )
                async for found in differences:
                    yield pb.CompareTreeResponse(different=found.different, beyond=found.beyond)

    async def GetTransfer(self, request: pb.GetTransferRequest, context: Context) -> pb.GetTransferResponse:
        """See the proto."""
        with wire_errors():
            transfer = trees.check_transfer(request.transfer_id)
            sandbox = await self._sandboxes.ready(request.sandbox_id)
            return pb.GetTransferResponse(size=await trees.transfer_size(sandbox.agent, transfer=transfer))

    async def ReadFiles(self, request: pb.ReadFilesRequest, context: Context) -> AsyncIterator[pb.ReadFilesResponse]:
        """See the proto."""
        with wire_errors():
            if len(request.paths) > MAX_PATHS:
                raise errors.InvalidFieldError("paths", f"must be at most {MAX_PATHS}")
            paths = [check_path(path, field="paths") for path in request.paths]
            sandbox = await self._sandboxes.ready(request.sandbox_id)
            parts = files.read(
                sandbox.agent,
                paths=paths,
                max_file_bytes=request.max_file_bytes,
                max_total_bytes=request.max_total_bytes,
                user=USERS[request.user],
            )
            async for part in parts:
                yield pack_file_part(part)

    async def ReadFile(self, request: pb.ReadFileRequest, context: Context) -> AsyncIterator[pb.ReadFileResponse]:
        """See the proto."""
        with wire_errors():
            path = check_path(request.path)
            offset, length = (check_position(getattr(request, field), field) for field in ("offset", "length"))
            sandbox = await self._sandboxes.ready(request.sandbox_id)
            with in_use(sandbox):
                async for part in files.read_part(sandbox.agent, path=path, offset=offset, length=length):
                    yield pack_part(part)

    async def ListFiles(self, request: pb.ListFilesRequest, context: Context) -> pb.ListFilesResponse:
        """See the proto."""
        with wire_errors():
            path = check_path(request.path, empty_allowed=True)
            depth, patterns = check_depth(request.depth), check_patterns(request.patterns)
            sandbox = await self._sandboxes.ready(request.sandbox_id)
            rows = await files.list_directory(sandbox.agent, path=path, depth=depth, patterns=patterns)
            return pb.ListFilesResponse(files=[pack_file_info(row) for row in rows])

    async def StatFile(self, request: pb.StatFileRequest, context: Context) -> pb.StatFileResponse:
        """See the proto."""
        with wire_errors():
            path = check_path(request.path, empty_allowed=True)
            sandbox = await self._sandboxes.ready(request.sandbox_id)
            return pb.StatFileResponse(file=pack_file_info(await files.stat(sandbox.agent, path=path)))

    async def WatchFiles(self, request: pb.WatchFilesRequest, context: Context) -> AsyncIterator[pb.WatchFilesResponse]:
        """See the proto."""
        with wire_errors():
            events = watch(self._sandboxes, request.sandbox_id, unpack_watch(request))
            async with aclosing(events):
                async for event in events:
                    yield pack_watch_event(event)

    async def MoveFile(self, request: pb.MoveFileRequest, context: Context) -> pb.MoveFileResponse:
        """See the proto."""
        with wire_errors():
            source = check_path(request.source, field="source")
            target = check_path(request.target, field="target")
            sandbox = await self._sandboxes.ready(request.sandbox_id)
            await files.move(sandbox.agent, source=source, target=target, replace=request.replace)
            return pb.MoveFileResponse()

    async def MakeDirectory(self, request: pb.MakeDirectoryRequest, context: Context) -> pb.MakeDirectoryResponse:
        """See the proto."""
        with wire_errors():
            path = check_path(request.path)
            sandbox = await self._sandboxes.ready(request.sandbox_id)
            await files.make_directory(sandbox.agent, path=path)
            return pb.MakeDirectoryResponse()

    async def RemoveFile(self, request: pb.RemoveFileRequest, context: Context) -> pb.RemoveFileResponse:
        """See the proto."""
        with wire_errors():
            path = check_path(request.path)
            sandbox = await self._sandboxes.ready(request.sandbox_id)
            await files.remove(sandbox.agent, path=path, user=USERS[request.user])
            return pb.RemoveFileResponse()

    async def MakeLink(self, request: pb.MakeLinkRequest, context: Context) -> pb.MakeLinkResponse:
        """See the proto."""
        with wire_errors():
            path = check_path(request.path)
            if not request.target or "\0" in request.target or len(request.target.encode()) > files.MAX_PATH_BYTES:
                raise errors.InvalidFieldError("target", f"must be 1 to {files.MAX_PATH_BYTES} bytes without NUL")
            sandbox = await self._sandboxes.ready(request.sandbox_id)
            await files.link(sandbox.agent, path=path, target=request.target, user=USERS[request.user])
            return pb.MakeLinkResponse()


async def _header(requests: AsyncIterator[Any]) -> Any:
    first = await anext(requests, None)
    if first is None or first.WhichOneof("part") != "header":
        raise errors.InvalidFieldError("header", "must come in the first message")
    return first.header


@contextmanager
def in_use(sandbox: Sandbox) -> Iterator[None]:
    """While a stream goes on, the sandbox is not idle, however slow the other side is."""
    sandbox.users += 1
    try:
        yield
    finally:
        sandbox.users -= 1
        sandbox.touch()

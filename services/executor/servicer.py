"""The wire side of the executor: unpack, call, pack. Errors leave as QilaError; see protos/qila/executor/v1."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

import grpc.aio

from qila.executor.v1 import executor_pb2 as pb
from qila.executor.v1 import executor_pb2_grpc
from services.executor import errors, files
from services.executor.agent.agent import INPUT_PROTOCOL
from services.executor.egress_wire import pack_entry, pack_policy, unpack_policy, unpack_wanted
from services.executor.files import check_path
from services.executor.ids import is_process_id
from services.executor.images import Image
from services.executor.limits import grant
from services.executor.port_wire import connect_port
from services.executor.process_wire import (
    USERS,
    timestamp,
    unpack_signal,
    unpack_size,
    unpack_spec,
    unpack_stdin_header,
    watch,
    write_stdin,
)
from services.executor.profile import Limits
from services.executor.quota import QuotaChoice
from services.executor.runtime.port import Quota
from services.executor.sandboxes import Sandbox, Sandboxes
from services.rpc.errors import ErrorCode, QilaError

# The servicers never use it: interceptors set status and metadata.
Context = grpc.aio.ServicerContext[Any, Any]

MAX_PATHS = 20_000
SURVEY_ROWS = 500

_QUOTAS = {
    Quota.LOOP: pb.WORKSPACE_QUOTA_LOOP,
    Quota.ENGINE: pb.WORKSPACE_QUOTA_ENGINE,
    Quota.NONE: pb.WORKSPACE_QUOTA_NONE,
}
_FILE_KINDS = {
    "file": pb.FILE_KIND_FILE,
    "directory": pb.FILE_KIND_DIRECTORY,
    "link": pb.FILE_KIND_LINK,
    "other": pb.FILE_KIND_OTHER,
}
_FILE_ERRORS = {
    "not_found": pb.FILE_ERROR_KIND_NOT_FOUND,
    "not_a_file": pb.FILE_ERROR_KIND_NOT_A_FILE,
    "is_a_directory": pb.FILE_ERROR_KIND_NOT_A_FILE,
    "not_a_directory": pb.FILE_ERROR_KIND_NOT_FOUND,
    "too_large": pb.FILE_ERROR_KIND_TOO_LARGE,
    "permission_denied": pb.FILE_ERROR_KIND_PERMISSION_DENIED,
}
_FILE_CODES = {
    "not_found": ErrorCode.NOT_FOUND,
    "no_space": ErrorCode.RESOURCE_EXHAUSTED,
    "too_large": ErrorCode.RESOURCE_EXHAUSTED,
    "invalid_path": ErrorCode.INVALID_ARGUMENT,
}
_CODES: Mapping[type[errors.ExecutorError], tuple[ErrorCode, str]] = {
    errors.SandboxNotFoundError: (ErrorCode.NOT_FOUND, "SANDBOX_NOT_FOUND"),
    errors.ProcessNotFoundError: (ErrorCode.NOT_FOUND, "PROCESS_NOT_FOUND"),
    errors.ProcessExistsError: (ErrorCode.ALREADY_EXISTS, "PROCESS_EXISTS"),
    errors.PortClosedError: (ErrorCode.FAILED_PRECONDITION, "PORT_CLOSED"),
    errors.PortBrokenError: (ErrorCode.ABORTED, "PORT_BROKEN"),
    errors.ProcessEndedError: (ErrorCode.FAILED_PRECONDITION, "PROCESS_ENDED"),
    errors.NoTerminalError: (ErrorCode.FAILED_PRECONDITION, "NO_TERMINAL"),
    errors.StdinNotOpenError: (ErrorCode.FAILED_PRECONDITION, "STDIN_NOT_OPEN"),
    errors.StdinEndedError: (ErrorCode.FAILED_PRECONDITION, "STDIN_ENDED"),
    errors.StdinGapError: (ErrorCode.OUT_OF_RANGE, "STDIN_GAP"),
    errors.StdinTakenOverError: (ErrorCode.ABORTED, "STDIN_TAKEN_OVER"),
    errors.OldAgentError: (ErrorCode.FAILED_PRECONDITION, "SANDBOX_TOO_OLD"),
    errors.OffsetError: (ErrorCode.OUT_OF_RANGE, "OFFSET_BEYOND_END"),
    errors.HostNotAllowedError: (ErrorCode.INVALID_ARGUMENT, "HOST_NOT_ALLOWED"),
    errors.LimitError: (ErrorCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED"),
    errors.InvalidFieldError: (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    errors.EngineError: (ErrorCode.UNAVAILABLE, "ENGINE_UNAVAILABLE"),
    errors.ImageMissingError: (ErrorCode.UNAVAILABLE, "IMAGE_MISSING"),
    errors.ImageUnknownError: (ErrorCode.INVALID_ARGUMENT, "IMAGE_UNKNOWN"),
    errors.ImageNotAllowedError: (ErrorCode.FAILED_PRECONDITION, "IMAGE_NOT_ALLOWED"),
    errors.WorkspaceError: (ErrorCode.UNAVAILABLE, "WORKSPACE_UNAVAILABLE"),
    errors.WorkspaceMissingError: (ErrorCode.FAILED_PRECONDITION, "WORKSPACE_MISSING"),
    errors.QuotaUnavailableError: (ErrorCode.FAILED_PRECONDITION, "QUOTA_UNAVAILABLE"),
    errors.DiskLowError: (ErrorCode.RESOURCE_EXHAUSTED, "DISK_LOW"),
    errors.AgentUnavailableError: (ErrorCode.UNAVAILABLE, "AGENT_UNAVAILABLE"),
    errors.DoorsError: (ErrorCode.UNAVAILABLE, "DOORS_UNAVAILABLE"),
    errors.ProtocolError: (ErrorCode.UNAVAILABLE, "AGENT_UNAVAILABLE"),
}


class ExecutorServicer(executor_pb2_grpc.ExecutorServiceServicer):
    """One adapter a call; the sandboxes decide."""

    def __init__(self, sandboxes: Sandboxes, default_limits: Limits, quota: QuotaChoice) -> None:
        self._sandboxes = sandboxes
        self._default_limits = default_limits
        self._quota = quota

    async def CreateSandbox(self, request: pb.CreateSandboxRequest, context: Context) -> pb.CreateSandboxResponse:
        """See the proto."""
        with wire_errors():
            asked = request.limits
            wanted = {
                "cpu_millis": asked.cpu_millis,
                "memory_bytes": asked.memory_bytes,
                "pids": asked.pids,
                "disk_bytes": asked.disk_bytes,
            }
            egress = unpack_policy(request.egress, new=True)
            sandbox = await self._sandboxes.create(grant(wanted, self._default_limits), egress, request.image)
            return pb.CreateSandboxResponse(sandbox=self._pack(sandbox))

    async def GetSandbox(self, request: pb.GetSandboxRequest, context: Context) -> pb.GetSandboxResponse:
        """See the proto."""
        with wire_errors():
            return pb.GetSandboxResponse(sandbox=self._pack(self._sandboxes.find(request.sandbox_id)))

    async def ListSandboxes(self, request: pb.ListSandboxesRequest, context: Context) -> pb.ListSandboxesResponse:
        """See the proto."""
        return pb.ListSandboxesResponse(sandboxes=[self._pack(sandbox) for sandbox in self._sandboxes.list()])

    async def ListImages(self, request: pb.ListImagesRequest, context: Context) -> pb.ListImagesResponse:
        """See the proto."""
        images = self._sandboxes.settings.images
        return pb.ListImagesResponse(images=[_pack_image(image, images.default) for image in images.all()])

    async def RemoveSandbox(self, request: pb.RemoveSandboxRequest, context: Context) -> pb.RemoveSandboxResponse:
        """See the proto."""
        with wire_errors():
            await self._sandboxes.remove(request.sandbox_id)
            return pb.RemoveSandboxResponse()

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
                    yield pb.SurveyWorkspaceResponse(entries=[_pack_entry(row) for row in rows])

    def _pack_summary(self, summary: files.SurveySummary, sandbox: Sandbox) -> pb.SurveySummary:
        settings = self._sandboxes.settings
        return _pack_summary(
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
            first = await anext(request_iterator, None)
            if first is None or first.WhichOneof("part") != "header":
                raise errors.InvalidFieldError("header", "must come in the first message")
            header = first.header
            path = check_path(header.path)
            if header.user != pb.USER_INSTALL:
                self._sandboxes.space.check()
            sandbox = await self._sandboxes.ready(header.sandbox_id)
            size, digest = await files.write(
                sandbox.agent,
                path=path,
                executable=header.executable,
                user=USERS[header.user],
                chunks=_chunks(request_iterator),
            )
            return pb.WriteFileResponse(size=size, sha256=digest)

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
                yield _pack_file_part(part)

    async def ListFiles(self, request: pb.ListFilesRequest, context: Context) -> pb.ListFilesResponse:
        """See the proto."""
        with wire_errors():
            path = check_path(request.path, empty_allowed=True)
            sandbox = await self._sandboxes.ready(request.sandbox_id)
            rows = await files.list_directory(sandbox.agent, path=path)
            return pb.ListFilesResponse(files=[_pack_file_info(row) for row in rows])

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

    async def RunProcess(self, request: pb.RunProcessRequest, context: Context) -> AsyncIterator[pb.RunProcessResponse]:
        """See the proto."""
        with wire_errors():
            if not is_process_id(request.process_id):
                raise errors.InvalidFieldError("process_id", "must be 1 to 64 of [A-Za-z0-9_.-]")
            spec = unpack_spec(request.spec)
            sandbox = self._sandboxes.find(request.sandbox_id)
            process = sandbox.processes.known(request.process_id, spec)
            if process is None:
                if spec.user == "install":
                    self._sandboxes.space.check()
                sandbox = await self._sandboxes.ready(request.sandbox_id)
                if spec.needs_new_agent and sandbox.agent.protocol < INPUT_PROTOCOL:
                    raise errors.OldAgentError(request.sandbox_id)
                process = sandbox.processes.start(request.process_id, spec)
            async for event in watch(sandbox, process, getattr(request, "from")):
                yield pb.RunProcessResponse(event=event)

    async def AttachProcess(
        self, request: pb.AttachProcessRequest, context: Context
    ) -> AsyncIterator[pb.AttachProcessResponse]:
        """See the proto."""
        with wire_errors():
            sandbox = self._sandboxes.find(request.sandbox_id)
            process = sandbox.processes.find(request.process_id)
            async for event in watch(sandbox, process, getattr(request, "from")):
                yield pb.AttachProcessResponse(event=event)

    async def WriteStdin(
        self, request_iterator: AsyncIterator[pb.WriteStdinRequest], context: Context
    ) -> AsyncIterator[pb.WriteStdinResponse]:
        """See the proto."""
        with wire_errors():
            header = await unpack_stdin_header(request_iterator)
            processes = self._sandboxes.find(header.sandbox_id).processes
            writer = processes.write_stdin(processes.find(header.process_id))
            async with aclosing(write_stdin(writer, request_iterator)) as offsets:
                async for accepted in offsets:
                    yield pb.WriteStdinResponse(accepted=accepted)

    async def ResizeTerminal(self, request: pb.ResizeTerminalRequest, context: Context) -> pb.ResizeTerminalResponse:
        """See the proto."""
        with wire_errors():
            rows, columns = unpack_size(request.terminal)
            processes = self._sandboxes.find(request.sandbox_id).processes
            process = processes.find(request.process_id)
            processes.check_terminal(process)
            await self._sandboxes.ready(request.sandbox_id)
            processes.resize(process, rows, columns)
            return pb.ResizeTerminalResponse()

    async def SignalProcess(self, request: pb.SignalProcessRequest, context: Context) -> pb.SignalProcessResponse:
        """See the proto."""
        with wire_errors():
            number = unpack_signal(request.signal)
            processes = self._sandboxes.find(request.sandbox_id).processes
            process = processes.find(request.process_id)
            processes.check_running(process)
            await self._sandboxes.ready(request.sandbox_id)
            processes.signal(process, number)
            return pb.SignalProcessResponse()

    async def CancelProcess(self, request: pb.CancelProcessRequest, context: Context) -> pb.CancelProcessResponse:
        """See the proto."""
        with wire_errors():
            sandbox = self._sandboxes.find(request.sandbox_id)
            sandbox.processes.find(request.process_id)
            # A container that does not run has no processes left to kill.
            if sandbox.running:
                await self._sandboxes.ready(request.sandbox_id)
                sandbox.processes.cancel(request.process_id)
            return pb.CancelProcessResponse()

    async def SetInstallPhase(self, request: pb.SetInstallPhaseRequest, context: Context) -> pb.SetInstallPhaseResponse:
        """See the proto."""
        with wire_errors():
            sandbox = await self._sandboxes.ready(request.sandbox_id)
            killed = await self._sandboxes.set_install_phase(sandbox, install=request.open)
            last = self._sandboxes.audit.last_sequence(request.sandbox_id)
            return pb.SetInstallPhaseResponse(killed_count=killed, egress_sequence=last)

    async def SetEgressPolicy(self, request: pb.SetEgressPolicyRequest, context: Context) -> pb.SetEgressPolicyResponse:
        """See the proto."""
        with wire_errors():
            policy = unpack_policy(request.policy, new=False)
            in_force = await self._sandboxes.set_egress(request.sandbox_id, policy)
            return pb.SetEgressPolicyResponse(policy=pack_policy(in_force))

    async def ListEgress(self, request: pb.ListEgressRequest, context: Context) -> AsyncIterator[pb.ListEgressResponse]:
        """See the proto."""
        with wire_errors():
            self._sandboxes.find(request.sandbox_id)
            batches = self._sandboxes.audit.watch(request.sandbox_id, unpack_wanted(request), follow=request.follow)
            async with aclosing(batches):
                async for batch in batches:
                    yield pb.ListEgressResponse(records=[pack_entry(entry) for entry in batch])

    async def ConnectPort(
        self, request_iterator: AsyncIterator[pb.ConnectPortRequest], context: Context
    ) -> AsyncIterator[pb.ConnectPortResponse]:
        """See the proto."""
        with wire_errors():
            responses = connect_port(self._sandboxes, request_iterator)
            async with aclosing(responses):
                async for response in responses:
                    yield response

    def _pack(self, sandbox: Sandbox) -> pb.Sandbox:
        packed = _pack_sandbox(sandbox)
        packed.egress.CopyFrom(pack_policy(self._sandboxes.egress_of(sandbox)))
        return packed

    async def GetStorage(self, request: pb.GetStorageRequest, context: Context) -> pb.GetStorageResponse:
        """See the proto."""
        return pb.GetStorageResponse(
            quota=_QUOTAS[self._quota.quota],
            detail=self._quota.detail,
            default_disk_bytes=self._default_limits.disk_bytes,
            file_systems=[
                pb.HostFileSystem(path=str(system.path), free_bytes=system.free, low_water_bytes=system.mark)
                for system in self._sandboxes.space.file_systems()
            ],
        )


@contextmanager
def wire_errors() -> Iterator[None]:
    """The executor's own errors become the vocabulary that every service speaks."""
    try:
        yield
    except errors.FileCallError as error:
        code = _FILE_CODES.get(error.kind, ErrorCode.FAILED_PRECONDITION)
        raise QilaError(code=code, reason=f"FILE_{error.kind.upper()}", message=str(error)) from error
    except errors.ExecutorError as error:
        code, reason = _CODES[type(error)]
        raise QilaError(code=code, reason=reason, message=str(error)) from error


async def _chunks(requests: AsyncIterator[pb.WriteFileRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        part = request.WhichOneof("part")
        if part == "end":
            return
        if part != "chunk":
            raise errors.InvalidFieldError("chunk", "must come in every message between header and end")
        yield request.chunk
    # A caller that was cut off looks the same as one that stopped: only the end says that the file is whole.
    raise errors.InvalidFieldError("end", "must come last: the stream has broken off, and nothing was written")


def _pack_sandbox(sandbox: Sandbox) -> pb.Sandbox:
    record = sandbox.record
    return pb.Sandbox(
        id=record.id,
        state=pb.SANDBOX_STATE_RUNNING if sandbox.running else pb.SANDBOX_STATE_STOPPED,
        create_time=timestamp(record.create_time),
        limits=pb.Limits(
            cpu_millis=record.limits.cpu_millis,
            memory_bytes=record.limits.memory_bytes,
            pids=record.limits.pids,
            disk_bytes=record.limits.disk_bytes,
        ),
        image=record.image,
        image_name=record.image_name,
    )


def _pack_image(image: Image, default: Image) -> pb.Image:
    return pb.Image(
        name=image.name, toolchains=image.toolchains, is_default=image is default, reference=image.reference
    )


def _pack_summary(
    summary: files.SurveySummary,
    toolchains: Mapping[str, str],
    *,
    package_policy: str,
    registry_urls: Mapping[str, str],
) -> pb.SurveySummary:
    return pb.SurveySummary(
        digest=summary.digest,
        unchanged=summary.unchanged,
        file_count=summary.file_count,
        skipped_count=summary.skipped_count,
        environments=[
            pb.Environment(ecosystem=row.ecosystem, fingerprint=row.fingerprint, current=row.current)
            for row in summary.environments
        ],
        toolchains=toolchains,
        own_directories=summary.own_directories,
        package_policy=package_policy,
        registry_urls=registry_urls,
        unmanaged=[pb.UnmanagedDirectory(path=row.path, digest=row.digest) for row in summary.unmanaged],
    )


def _pack_entry(row: files.SurveyEntry) -> pb.SurveyEntry:
    return pb.SurveyEntry(path=row.path, size=row.size, mtime_ns=row.mtime_ns, ctime_ns=row.ctime_ns, inode=row.inode)


def _pack_file_info(row: files.FileInfo) -> pb.FileInfo:
    return pb.FileInfo(
        name=row.name,
        kind=_FILE_KINDS.get(row.kind, pb.FILE_KIND_OTHER),
        size=row.size,
        mtime_ns=row.mtime_ns,
        executable=row.executable,
        link_target=row.link_target,
    )


def _pack_file_part(part: files.FileChunk | files.FileEnd | files.FileFailure) -> pb.ReadFilesResponse:
    match part:
        case files.FileChunk():
            return pb.ReadFilesResponse(index=part.index, chunk=part.data)
        case files.FileEnd():
            return pb.ReadFilesResponse(index=part.index, end=pb.FileEnd(size=part.size, executable=part.executable))
        case files.FileFailure():
            kind = _FILE_ERRORS.get(part.kind, pb.FILE_ERROR_KIND_IO)
            return pb.ReadFilesResponse(index=part.index, error=pb.FileError(kind=kind, message=part.message))

"""The wire side of the executor: unpack, call, pack. Errors leave as QilaError; see protos/qila/executor/v1."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio

from qila.executor.v1 import executor_pb2 as pb
from qila.executor.v1 import executor_pb2_grpc
from services.executor import errors
from services.executor.agent.agent import INPUT_PROTOCOL
from services.executor.egress_wire import pack_entry, pack_policy, unpack_policy, unpack_wanted
from services.executor.file_servicer import FileServicer
from services.executor.ids import is_process_id
from services.executor.images import Image
from services.executor.limits import grant
from services.executor.port_wire import connect_port
from services.executor.process_wire import (
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
from services.executor.run_stream import RunStreams
from services.executor.runtime.port import Quota
from services.executor.sandboxes import Sandbox, Sandboxes
from services.executor.wire_errors import wire_errors

# The servicers never use it: interceptors set status and metadata.
Context = grpc.aio.ServicerContext[Any, Any]

_QUOTAS = {
    Quota.LOOP: pb.WORKSPACE_QUOTA_LOOP,
    Quota.ENGINE: pb.WORKSPACE_QUOTA_ENGINE,
    Quota.NONE: pb.WORKSPACE_QUOTA_NONE,
}


class ExecutorServicer(FileServicer, executor_pb2_grpc.ExecutorServiceServicer):
    """One adapter a call; the sandboxes decide."""

    def __init__(self, sandboxes: Sandboxes, default_limits: Limits, quota: QuotaChoice) -> None:
        self._sandboxes = sandboxes
        self._default_limits = default_limits
        self._quota = quota
        self.run_streams = RunStreams(self.run)

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

    async def RunProcess(self, request: pb.RunProcessRequest, context: Context) -> AsyncIterator[pb.RunProcessResponse]:
        """See the proto."""
        with wire_errors():
            async with aclosing(self.run(request)) as events:
                async for event in events:
                    yield pb.RunProcessResponse(event=event)

    async def RunProcesses(
        self, request_iterator: AsyncIterator[pb.RunProcessesRequest], context: Context
    ) -> AsyncIterator[pb.RunProcessesResponse]:
        """See the proto. Answers are written by the runs themselves."""
        with wire_errors():
            await self.run_streams.serve(request_iterator, context.write)
        nothing: tuple[pb.RunProcessesResponse, ...] = ()
        for response in nothing:
            yield response

    async def run(self, request: pb.RunProcessRequest) -> AsyncGenerator[pb.ProcessEvent, None]:
        """The events of a process, which is started or joined. Raises the executor's own errors."""
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
        async with aclosing(watch(sandbox, process, getattr(request, "from"))) as events:
            async for event in events:
                yield event

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
            process.check_terminal()
            await self._sandboxes.ready(request.sandbox_id)
            processes.resize(process, rows, columns)
            return pb.ResizeTerminalResponse()

    async def SignalProcess(self, request: pb.SignalProcessRequest, context: Context) -> pb.SignalProcessResponse:
        """See the proto."""
        with wire_errors():
            number = unpack_signal(request.signal)
            processes = self._sandboxes.find(request.sandbox_id).processes
            process = processes.find(request.process_id)
            process.check_running()
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

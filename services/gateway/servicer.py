# ruff: noqa: D102  # the proto specifies the calls
"""The gateway's calls: unpack, call, pack."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import structlog

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1 import gateway_pb2_grpc
from services.gateway import checks
from services.gateway.conductor import Conductor
from services.gateway.documents import Documents
from services.gateway.egress import egress_record, from_executor, to_executor
from services.gateway.file_servicer import FileServicer
from services.gateway.forwarding import connect_port
from services.gateway.interaction import Interaction
from services.gateway.listing import list_execs
from services.gateway.packing import pack_exec, pack_sandbox, timestamp
from services.gateway.ports import ExecutorPort, ResolverPort
from services.gateway.preview.links import PreviewLinks, Target
from services.gateway.store.port import SandboxRecord, Store
from services.gateway.watching import watch
from services.rpc.errors import failed_precondition


class GatewayServicer(FileServicer, gateway_pb2_grpc.GatewayServiceServicer):
    """GatewayService over the conductor, the executor and the records."""

    def __init__(
        self,
        *,
        conductor: Conductor,
        executor_port: ExecutorPort,
        resolver_port: ResolverPort,
        store: Store,
        patience: float,
        preview_links: PreviewLinks | None = None,
    ) -> None:
        self._conductor = conductor
        self._executor = executor_port
        self._store = store
        self._patience = patience
        self._preview_links = preview_links
        self._documents = Documents(store, resolver_port)
        self._interaction = Interaction(conductor, executor_port, patience)

    async def CreateSandbox(self, request: pb.CreateSandboxRequest, context: Any) -> pb.CreateSandboxResponse:
        checks.check_language(request.language)
        lock = await self._documents.check_given(request.lock) if request.HasField("lock") else None
        limits = executor.Limits(
            cpu_millis=request.limits.cpu_millis,
            memory_bytes=request.limits.memory_bytes,
            pids=request.limits.pids,
            disk_bytes=request.limits.disk_bytes,
        )
        egress = to_executor(request.egress)
        made = await self._executor.create_sandbox(
            executor.CreateSandboxRequest(limits=limits, egress=egress, image=request.image)
        )
        record = SandboxRecord(
            sandbox_id=made.id,
            language=request.language,
            create_time_ns=made.create_time.ToNanoseconds(),
            cpu_millis=made.limits.cpu_millis,
            memory_bytes=made.limits.memory_bytes,
            pids=made.limits.pids,
            disk_bytes=made.limits.disk_bytes,
            lock_digest="" if lock is None else lock.digest,
            image=made.image_name,
        )
        try:
            await self._store.add_sandbox(record, lock)
        except BaseException:
            # Nobody would ever know of it.
            await self._executor.remove_sandbox(made.id)
            raise
        return pb.CreateSandboxResponse(sandbox=pack_sandbox(record, made.egress))

    async def GetSandbox(self, request: pb.GetSandboxRequest, context: Any) -> pb.GetSandboxResponse:
        record = await self._known(request.sandbox_id)
        # The executor alone keeps the policy, beside the doors that obey it.
        there = await self._executor.sandbox(request.sandbox_id)
        return pb.GetSandboxResponse(sandbox=pack_sandbox(record, there.egress))

    async def ListImages(self, request: pb.ListImagesRequest, context: Any) -> pb.ListImagesResponse:
        images = await self._executor.list_images()
        return pb.ListImagesResponse(
            images=[
                pb.Image(name=image.name, toolchains=image.toolchains, is_default=image.is_default) for image in images
            ]
        )

    async def ListSandboxes(self, request: pb.ListSandboxesRequest, context: Any) -> pb.ListSandboxesResponse:
        return pb.ListSandboxesResponse(sandboxes=[pack_sandbox(record) for record in await self._store.sandboxes()])

    async def RemoveSandbox(self, request: pb.RemoveSandboxRequest, context: Any) -> pb.RemoveSandboxResponse:
        if await self._store.sandbox(request.sandbox_id) is not None:
            await self._executor.remove_sandbox(request.sandbox_id)
            await self._conductor.forget_sandbox(request.sandbox_id)
            await self._store.remove_sandbox(request.sandbox_id)
        return pb.RemoveSandboxResponse()

    async def Exec(self, request: pb.ExecRequest, context: Any) -> AsyncIterator[pb.ExecResponse]:
        live = await self._conductor.start(request)
        structlog.contextvars.bind_contextvars(exec_id=live.exec_id)
        await _give_way()
        async with aclosing(watch(self._executor, live, patience=self._patience, as_status=True)) as events:
            async for event in events:
                yield pb.ExecResponse(event=event)
                if request.detach:
                    return

    async def AttachExec(self, request: pb.AttachExecRequest, context: Any) -> AsyncIterator[pb.AttachExecResponse]:
        live = await self._conductor.find(request.sandbox_id, request.exec_id)
        offsets = getattr(request, "from")
        position = executor.Offsets(stdout=offsets.stdout, stderr=offsets.stderr, terminal=offsets.terminal)
        events = watch(
            self._executor,
            live,
            after=request.after_sequence,
            position=position,
            run=offsets.run,
            patience=self._patience,
        )
        async with aclosing(events):
            async for event in events:
                yield pb.AttachExecResponse(event=event)

    async def GetExec(self, request: pb.GetExecRequest, context: Any) -> pb.GetExecResponse:
        live = await self._conductor.find(request.sandbox_id, request.exec_id)
        return pb.GetExecResponse(exec=pack_exec(live.journal.record))

    async def ListExecs(self, request: pb.ListExecsRequest, context: Any) -> pb.ListExecsResponse:
        await self._known(request.sandbox_id)
        return await list_execs(self._store, request, self._conductor.ended(request.sandbox_id))

    async def WriteStdin(
        self, request_iterator: AsyncIterator[pb.WriteStdinRequest], context: Any
    ) -> AsyncIterator[pb.WriteStdinResponse]:
        async with aclosing(self._interaction.write_stdin(aiter(request_iterator))) as answers:
            async for accepted in answers:
                yield pb.WriteStdinResponse(accepted=accepted)

    async def ResizeTerminal(self, request: pb.ResizeTerminalRequest, context: Any) -> pb.ResizeTerminalResponse:
        await self._interaction.resize(request.sandbox_id, request.exec_id, request.terminal)
        return pb.ResizeTerminalResponse()

    async def SignalExec(self, request: pb.SignalExecRequest, context: Any) -> pb.SignalExecResponse:
        await self._interaction.signal(request.sandbox_id, request.exec_id, request.signal)
        return pb.SignalExecResponse()

    async def CancelExec(self, request: pb.CancelExecRequest, context: Any) -> pb.CancelExecResponse:
        await self._conductor.cancel(request.sandbox_id, request.exec_id)
        return pb.CancelExecResponse()

    async def GetLock(self, request: pb.GetLockRequest, context: Any) -> pb.GetLockResponse:
        return await self._documents.lock(request.sandbox_id, request.exec_id)

    async def GetSbom(self, request: pb.GetSbomRequest, context: Any) -> AsyncIterator[pb.GetSbomResponse]:
        chunks = self._documents.sbom(request.sandbox_id, request.exec_id, request.format)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield pb.GetSbomResponse(chunk=chunk)

    async def DiffLocks(self, request: pb.DiffLocksRequest, context: Any) -> pb.DiffLocksResponse:
        return await self._documents.diff(request)

    async def SetEgressPolicy(self, request: pb.SetEgressPolicyRequest, context: Any) -> pb.SetEgressPolicyResponse:
        await self._known(request.sandbox_id)
        in_force = await self._executor.set_egress_policy(request.sandbox_id, to_executor(request.policy))
        return pb.SetEgressPolicyResponse(policy=from_executor(in_force))

    async def ListEgress(self, request: pb.ListEgressRequest, context: Any) -> AsyncIterator[pb.ListEgressResponse]:
        checks.check_exec_id(request.exec_id)
        await self._known(request.sandbox_id)
        asked = executor.ListEgressRequest(
            sandbox_id=request.sandbox_id,
            exec_id=request.exec_id,
            # The two enumerations have the same numbers.
            verdict=executor.EgressVerdict.ValueType(request.verdict),
            after_sequence=request.after_sequence,
            follow=request.follow,
        )
        async with aclosing(self._executor.list_egress(asked)) as responses:
            async for response in responses:
                yield pb.ListEgressResponse(records=[egress_record(record) for record in response.records])

    async def ConnectPort(
        self, request_iterator: AsyncIterator[pb.ConnectPortRequest], context: Any
    ) -> AsyncIterator[pb.ConnectPortResponse]:
        async with aclosing(connect_port(self._executor, request_iterator, self._known)) as responses:
            async for response in responses:
                yield response

    async def CreatePreview(self, request: pb.CreatePreviewRequest, context: Any) -> pb.CreatePreviewResponse:
        checks.check_port(request.port)
        seconds = checks.preview_seconds(request.ttl)
        await self._known(request.sandbox_id)
        if self._preview_links is None:
            message = "previews are switched off here: the operator's QILA_PREVIEW_ADDRESS is off; use ConnectPort"
            raise failed_precondition("PREVIEW_OFF", message)
        expiry = int(time.time() + seconds)
        url = self._preview_links.url(Target(sandbox_id=request.sandbox_id, port=request.port), expiry)
        return pb.CreatePreviewResponse(url=url, expire_time=timestamp(expiry * 1_000_000_000))


async def _give_way() -> None:
    """Lets the exec begin before it is told of: in one turn of the loop its call is made, in the next it is sent."""
    for _ in range(2):
        await asyncio.sleep(0)

# ruff: noqa: D102  # the proto and the port specify the calls
"""The resolver over the wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Any, Final

from qila.resolver.v1 import resolver_pb2 as resolver
from qila.resolver.v1 import resolver_pb2_grpc
from services.gateway.wire import send_stream
from services.rpc.channel import Channel, translated

PEER: Final = "resolver"
_DEADLINE_SECONDS: Final = 60.0
# The exec waits for it, and may do without.
_EXPLAIN_RUN_SECONDS: Final = 5.0
_BATCH: Final = 2000
_CHUNK_BYTES: Final = 64 << 10


class ResolverClient:
    """`ResolverPort` over a channel."""

    def __init__(self, channel: Channel) -> None:
        # The stub's type serves both kinds of channel and fits neither well.
        self._stub: Any = resolver_pb2_grpc.ResolverServiceStub(channel)

    async def select_files(
        self, target: resolver.Target, files: Sequence[resolver.WorkspaceFile]
    ) -> resolver.SelectFilesResponse:
        async def requests() -> AsyncIterator[resolver.SelectFilesRequest]:
            yield resolver.SelectFilesRequest(target=target, files=files[:_BATCH])
            for start in range(_BATCH, len(files), _BATCH):
                yield resolver.SelectFilesRequest(files=files[start : start + _BATCH])

        response: resolver.SelectFilesResponse = await self._send(self._stub.SelectFiles, requests())
        return response

    async def plan(
        self, header: resolver.PlanHeader, files: AsyncIterator[resolver.FileStart | bytes]
    ) -> resolver.Plan:
        return (await self._plan(header, files)).plan

    async def plan_all(
        self, header: resolver.PlanHeader, files: AsyncIterator[resolver.FileStart | bytes]
    ) -> resolver.PlanResponse:
        everything = resolver.PlanHeader()
        everything.CopyFrom(header)
        everything.all_projects = True
        return await self._plan(everything, files)

    async def _plan(
        self, header: resolver.PlanHeader, files: AsyncIterator[resolver.FileStart | bytes]
    ) -> resolver.PlanResponse:
        async def requests() -> AsyncIterator[resolver.PlanRequest]:
            paths = list(header.workspace_paths)
            first = resolver.PlanHeader()
            first.CopyFrom(header)
            del first.workspace_paths[:]
            first.workspace_paths.extend(paths[:_BATCH])
            yield resolver.PlanRequest(header=first)
            for start in range(_BATCH, len(paths), _BATCH):
                yield resolver.PlanRequest(more_paths=resolver.WorkspacePaths(paths=paths[start : start + _BATCH]))
            async for part in files:
                if isinstance(part, bytes):
                    yield resolver.PlanRequest(chunk=part)
                else:
                    yield resolver.PlanRequest(file=part)

        response: resolver.PlanResponse = await self._send(self._stub.Plan, requests())
        return response

    async def render_lock(
        self, header: resolver.RenderLockHeader, native_lock: bytes, inventory: bytes
    ) -> resolver.RenderLockResponse:
        async def requests() -> AsyncIterator[resolver.RenderLockRequest]:
            yield resolver.RenderLockRequest(header=header)
            for chunk in chunked(native_lock):
                yield resolver.RenderLockRequest(native_lock_chunk=chunk)
            for chunk in chunked(inventory):
                yield resolver.RenderLockRequest(inventory_chunk=chunk)

        response: resolver.RenderLockResponse = await self._send(self._stub.RenderLock, requests())
        return response

    async def explain_install(self, request: resolver.ExplainInstallRequest) -> resolver.ExplainInstallResponse:
        with translated(PEER):
            response: resolver.ExplainInstallResponse = await self._stub.ExplainInstall(request)
        return response

    async def explain_run(self, request: resolver.ExplainRunRequest) -> resolver.ExplainRunResponse:
        with translated(PEER):
            response: resolver.ExplainRunResponse = await self._stub.ExplainRun(request, timeout=_EXPLAIN_RUN_SECONDS)
        return response

    async def render_sbom(
        self, header: resolver.RenderSbomHeader, parts: AsyncIterator[tuple[resolver.SbomPart, bytes]]
    ) -> AsyncGenerator[bytes, None]:
        async def requests() -> AsyncIterator[resolver.RenderSbomRequest]:
            yield resolver.RenderSbomRequest(header=header)
            async for start, content in parts:
                yield resolver.RenderSbomRequest(start=start)
                for chunk in chunked(content):
                    yield resolver.RenderSbomRequest(chunk=chunk)

        call = self._stub.RenderSbom(requests(), timeout=_DEADLINE_SECONDS)
        try:
            with translated(PEER):
                async for response in call:
                    yield response.chunk
        finally:
            call.cancel()

    async def diff_locks(
        self, before: Sequence[resolver.Lockfile], after: Sequence[resolver.Lockfile]
    ) -> resolver.DiffLocksResponse:
        async def requests() -> AsyncIterator[resolver.DiffLocksRequest]:
            for side, locks in ((resolver.DIFF_SIDE_BEFORE, before), (resolver.DIFF_SIDE_AFTER, after)):
                for lock in locks:
                    yield resolver.DiffLocksRequest(start=resolver.DiffLocksStart(side=side, name=lock.name))
                    for chunk in chunked(lock.content):
                        yield resolver.DiffLocksRequest(chunk=chunk)

        response: resolver.DiffLocksResponse = await self._send(self._stub.DiffLocks, requests())
        return response

    async def _send(self, method: Any, requests: AsyncIterator[Any]) -> Any:
        return await send_stream(method, requests, peer=PEER, timeout=_DEADLINE_SECONDS)


def chunked(content: bytes) -> Iterator[bytes]:
    """The bytes in pieces of at most 64 KiB."""
    for start in range(0, len(content), _CHUNK_BYTES):
        yield content[start : start + _CHUNK_BYTES]

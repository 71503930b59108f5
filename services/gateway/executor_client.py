# ruff: noqa: D102  # the proto and the port specify the calls
"""The executor over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

from qila.executor.v1 import executor_pb2 as executor
from qila.executor.v1 import executor_pb2_grpc
from services.gateway.patience import advance
from services.gateway.ports import StdinPart, Survey, unchecked
from services.gateway.run_stream import RunStream
from services.gateway.wire import exchange_streams, send_stream
from services.rpc.channel import Channel, translated
from services.rpc.errors import ErrorCode, QilaError

PEER: Final = "executor"
# A sandbox that is made or woken may have to wait for a container.
_SLOW_SECONDS: Final = 120.0
_UPLOAD_SECONDS: Final = 3600.0
_CLOSING_SECONDS: Final = 5.0


class ExecutorClient:
    """`ExecutorPort` over a channel."""

    def __init__(self, channel: Channel) -> None:
        # The stub's type serves both kinds of channel and fits neither well.
        self._stub: Any = executor_pb2_grpc.ExecutorServiceStub(channel)
        self._runs = RunStream(self._stub, PEER)

    async def create_sandbox(self, request: executor.CreateSandboxRequest) -> executor.Sandbox:
        with translated(PEER):
            response: executor.CreateSandboxResponse = await self._stub.CreateSandbox(request, timeout=_SLOW_SECONDS)
        return response.sandbox

    async def sandbox(self, sandbox_id: str) -> executor.Sandbox:
        request = executor.GetSandboxRequest(sandbox_id=sandbox_id)
        with translated(PEER):
            response: executor.GetSandboxResponse = await self._stub.GetSandbox(request, timeout=_SLOW_SECONDS)
        return response.sandbox

    async def list_images(self) -> Sequence[executor.Image]:
        with translated(PEER):
            response: executor.ListImagesResponse = await self._stub.ListImages(executor.ListImagesRequest())
        return response.images

    async def list_sandboxes(self) -> Sequence[executor.Sandbox]:
        with translated(PEER):
            response: executor.ListSandboxesResponse = await self._stub.ListSandboxes(executor.ListSandboxesRequest())
        return response.sandboxes

    async def remove_sandbox(self, sandbox_id: str) -> None:
        request = executor.RemoveSandboxRequest(sandbox_id=sandbox_id)
        with translated(PEER):
            await self._stub.RemoveSandbox(request, timeout=_SLOW_SECONDS)

    async def survey(self, sandbox_id: str, known_digest: str = "") -> Survey:
        entries: list[executor.SurveyEntry] = []
        request = executor.SurveyWorkspaceRequest(sandbox_id=sandbox_id, known_digest=known_digest)
        call = self._stub.SurveyWorkspace(request, timeout=_SLOW_SECONDS)
        summary = None
        try:
            with translated(PEER):
                async for response in call:
                    entries.extend(response.entries)
                    if response.HasField("summary"):
                        # The last one; whoever waits for the survey need not wait for the stream's end.
                        summary = response.summary
                        break
        finally:
            _leave(call, ended=summary is not None)
        if summary is None:
            raise QilaError(ErrorCode.INTERNAL, "SURVEY_INCOMPLETE", f"{PEER} ended a survey without its summary")
        return Survey(entries=entries, summary=summary)

    async def write_file(
        self,
        header: executor.WriteFileHeader,
        chunks: AsyncIterator[bytes],
        *,
        sha256: Callable[[], str] = unchecked,
    ) -> executor.WriteFileResponse:
        async def requests() -> AsyncIterator[executor.WriteFileRequest]:
            yield executor.WriteFileRequest(header=header)
            async for chunk in chunks:
                yield executor.WriteFileRequest(chunk=chunk)
            yield executor.WriteFileRequest(end=executor.WriteFileEnd(sha256=sha256()))

        response: executor.WriteFileResponse = await send_stream(
            self._stub.WriteFile, requests(), peer=PEER, timeout=_UPLOAD_SECONDS
        )
        return response

    async def write_tree(
        self,
        header: executor.WriteTreeHeader,
        chunks: AsyncIterator[bytes],
        *,
        sha256: Callable[[], str] = unchecked,
    ) -> executor.WriteTreeResponse:
        async def requests() -> AsyncIterator[executor.WriteTreeRequest]:
            yield executor.WriteTreeRequest(header=header)
            async for chunk in chunks:
                yield executor.WriteTreeRequest(chunk=chunk)
            yield executor.WriteTreeRequest(end=executor.WriteTreeEnd(sha256=sha256()))

        response: executor.WriteTreeResponse = await send_stream(
            self._stub.WriteTree, requests(), peer=PEER, timeout=_UPLOAD_SECONDS
        )
        return response

    async def read_tree(self, request: executor.ReadTreeRequest) -> AsyncGenerator[executor.ReadTreeResponse, None]:
        call = self._stub.ReadTree(request)
        try:
            with translated(PEER):
                async for response in call:
                    yield response
        finally:
            call.cancel()

    async def compare_tree(
        self, header: executor.CompareTreeHeader, files: AsyncIterator[Sequence[executor.TreeFile]]
    ) -> AsyncGenerator[executor.CompareTreeResponse, None]:
        async def requests() -> AsyncIterator[executor.CompareTreeRequest]:
            yield executor.CompareTreeRequest(header=header)
            async for batch in files:
                yield executor.CompareTreeRequest(files=executor.CompareTreeFiles(files=batch))
            yield executor.CompareTreeRequest(end=executor.CompareTreeEnd())

        responses = exchange_streams(self._stub.CompareTree, requests(), peer=PEER, timeout=_UPLOAD_SECONDS)
        async with aclosing(responses):
            async for response in responses:
                yield response

    async def transfer_size(self, sandbox_id: str, transfer_id: str) -> int:
        request = executor.GetTransferRequest(sandbox_id=sandbox_id, transfer_id=transfer_id)
        with translated(PEER):
            response: executor.GetTransferResponse = await self._stub.GetTransfer(request, timeout=_SLOW_SECONDS)
        return response.size

    async def read_files(self, request: executor.ReadFilesRequest) -> AsyncGenerator[executor.ReadFilesResponse, None]:
        call = self._stub.ReadFiles(request)
        try:
            with translated(PEER):
                async for response in call:
                    yield response
        finally:
            call.cancel()

    async def read_file(self, request: executor.ReadFileRequest) -> AsyncGenerator[executor.ReadFileResponse, None]:
        call = self._stub.ReadFile(request)
        try:
            with translated(PEER):
                async for response in call:
                    yield response
        finally:
            call.cancel()

    async def list_files(self, request: executor.ListFilesRequest) -> Sequence[executor.FileInfo]:
        with translated(PEER):
            response: executor.ListFilesResponse = await self._stub.ListFiles(request, timeout=_SLOW_SECONDS)
        return response.files

    async def watch_files(
        self, request: executor.WatchFilesRequest
    ) -> AsyncGenerator[executor.WatchFilesResponse, None]:
        call = self._stub.WatchFiles(request)
        try:
            with translated(PEER):
                async for response in call:
                    yield response
        finally:
            call.cancel()

    async def stat_file(self, sandbox_id: str, path: str) -> executor.FileInfo:
        request = executor.StatFileRequest(sandbox_id=sandbox_id, path=path)
        with translated(PEER):
            response: executor.StatFileResponse = await self._stub.StatFile(request, timeout=_SLOW_SECONDS)
        return response.file

    async def move_file(self, request: executor.MoveFileRequest) -> None:
        with translated(PEER):
            await self._stub.MoveFile(request, timeout=_SLOW_SECONDS)

    async def make_directory(self, sandbox_id: str, path: str) -> None:
        request = executor.MakeDirectoryRequest(sandbox_id=sandbox_id, path=path)
        with translated(PEER):
            await self._stub.MakeDirectory(request, timeout=_SLOW_SECONDS)

    async def remove_file(self, sandbox_id: str, path: str, user: executor.User.ValueType) -> None:
        request = executor.RemoveFileRequest(sandbox_id=sandbox_id, path=path, user=user)
        with translated(PEER):
            await self._stub.RemoveFile(request, timeout=_SLOW_SECONDS)

    async def make_link(self, sandbox_id: str, path: str, target: str, user: executor.User.ValueType) -> None:
        request = executor.MakeLinkRequest(sandbox_id=sandbox_id, path=path, target=target, user=user)
        with translated(PEER):
            await self._stub.MakeLink(request, timeout=_SLOW_SECONDS)

    async def run_process(self, request: executor.RunProcessRequest) -> AsyncGenerator[executor.ProcessEvent, None]:
        rest = executor.RunProcessRequest()
        rest.CopyFrom(request)
        async with aclosing(self._runs.run(request)) as events:
            async for event in events:
                if event.HasField("output"):
                    advance(getattr(rest, "from"), event.output)
                yield event
                if event.HasField("ended"):
                    return
        # It says too much for a stream that it shares with others.
        async with aclosing(_events(self._stub.RunProcess(rest))) as events:
            async for event in events:
                if not event.HasField("started"):
                    yield event

    def attach_process(self, request: executor.AttachProcessRequest) -> AsyncGenerator[executor.ProcessEvent, None]:
        return _events(self._stub.AttachProcess(request))

    async def write_stdin(
        self, sandbox_id: str, process_id: str, parts: AsyncIterator[StdinPart]
    ) -> AsyncGenerator[int, None]:
        async def requests() -> AsyncIterator[executor.WriteStdinRequest]:
            header = executor.WriteStdinHeader(sandbox_id=sandbox_id, process_id=process_id)
            yield executor.WriteStdinRequest(header=header)
            async for part in parts:
                if isinstance(part, executor.StdinEnd):
                    yield executor.WriteStdinRequest(end=part)
                else:
                    yield executor.WriteStdinRequest(chunk=part)

        call = self._stub.WriteStdin(requests())
        try:
            with translated(PEER):
                async for response in call:
                    yield response.accepted
        finally:
            call.cancel()

    async def resize_terminal(self, sandbox_id: str, process_id: str, terminal: executor.Terminal) -> None:
        request = executor.ResizeTerminalRequest(sandbox_id=sandbox_id, process_id=process_id, terminal=terminal)
        with translated(PEER):
            await self._stub.ResizeTerminal(request)

    async def signal_process(self, sandbox_id: str, process_id: str, number: int) -> None:
        request = executor.SignalProcessRequest(sandbox_id=sandbox_id, process_id=process_id, signal=number)
        with translated(PEER):
            await self._stub.SignalProcess(request)

    async def cancel_process(self, sandbox_id: str, process_id: str) -> None:
        request = executor.CancelProcessRequest(sandbox_id=sandbox_id, process_id=process_id)
        with translated(PEER):
            await self._stub.CancelProcess(request)

    async def set_install_phase(self, sandbox_id: str, *, open_: bool) -> int:
        request = executor.SetInstallPhaseRequest(sandbox_id=sandbox_id, open=open_)
        with translated(PEER):
            response: executor.SetInstallPhaseResponse = await self._stub.SetInstallPhase(
                request, timeout=_SLOW_SECONDS
            )
        return response.egress_sequence

    async def set_egress_policy(self, sandbox_id: str, policy: executor.EgressPolicy) -> executor.EgressPolicy:
        request = executor.SetEgressPolicyRequest(sandbox_id=sandbox_id, policy=policy)
        with translated(PEER):
            response: executor.SetEgressPolicyResponse = await self._stub.SetEgressPolicy(
                request, timeout=_SLOW_SECONDS
            )
        return response.policy

    async def connect_port(
        self, requests: AsyncIterator[executor.ConnectPortRequest]
    ) -> AsyncGenerator[executor.ConnectPortResponse, None]:
        call = self._stub.ConnectPort(requests)
        try:
            with translated(PEER):
                async for response in call:
                    yield response
        finally:
            call.cancel()

    async def list_egress(
        self, request: executor.ListEgressRequest
    ) -> AsyncGenerator[executor.ListEgressResponse, None]:
        call = self._stub.ListEgress(request)
        try:
            with translated(PEER):
                async for response in call:
                    yield response
        finally:
            call.cancel()


async def _events(call: Any) -> AsyncGenerator[executor.ProcessEvent, None]:
    ended = False
    try:
        with translated(PEER):
            async for response in call:
                ended = response.event.HasField("ended")
                yield response.event
    finally:
        _leave(call, ended=ended)


def _leave(call: Any, *, ended: bool) -> None:
    """Closes a stream: who leaves must not leave it behind.

    Behind what the executor says last it closes the stream by itself: to cancel it then costs both sides more than to
    let it.
    """
    if ended:
        asyncio.get_running_loop().call_later(_CLOSING_SECONDS, call.cancel)
    else:
        call.cancel()

r"""The asynchronous client of the gateway: the calls of `Client`, to be awaited.

>>> async def hello(client: AsyncClient) -> bytes:
...     made = await client.create("python")
...     await client.put(made.id, "main.py", io.BytesIO(b"print('hello')"))
...     result = await client.exec(made.id, "main.py").communicate()
...     await client.remove_sandbox(made.id)
...     return result.stdout
>>> awaited(hello)
b'hello\n'
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import grpc

from qila.client.async_files import AsyncFileCalls
from qila.client.async_handles import AsyncExec
from qila.client.async_port_streams import AsyncPortStream
from qila.client.client import CALL_SECONDS, CHANNEL_OPTIONS, DEFAULT_ADDRESS
from qila.client.egress import async_egress_records
from qila.client.errors import translated
from qila.client.requests import ExecOptions, What, attach_request, exec_request, resize_request
from qila.client.results import TerminalSize
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Self, Unpack


class AsyncClient(AsyncFileCalls):
    """Speaks to one gateway. An asynchronous context manager; every method raises QilaError.

    It belongs to the event loop in which it was made. `call_seconds` and `reconnect_seconds` are those of `Client`.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        call_seconds: float = CALL_SECONDS,
        reconnect_seconds: float = 60,
    ) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stub = GatewayServiceStub(self._channel)
        self._call_seconds = call_seconds
        self._reconnect_seconds = reconnect_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; execs run on."""
        await self._channel.close()

    async def create(
        self,
        language: str = "",
        limits: pb.Limits | None = None,
        egress: pb.EgressPolicy | None = None,
        lock: pb.Lockfile | None = None,
        image: str = "",
    ) -> pb.Sandbox:
        """Makes a sandbox and starts it; see `Client.create`."""
        request = pb.CreateSandboxRequest(language=language, limits=limits, egress=egress, lock=lock, image=image)
        with translated():
            return (await self._stub.CreateSandbox(request, timeout=self._call_seconds)).sandbox

    async def images(self) -> list[pb.Image]:
        """The images that a sandbox can be made from, the default first, with their toolchains."""
        with translated():
            response = await self._stub.ListImages(pb.ListImagesRequest(), timeout=self._call_seconds)
        return list(response.images)

    async def connect_port(self, sandbox_id: str, port: int) -> AsyncPortStream:
        """Connects to a program of the sandbox that listens on a TCP port; close it when done."""
        return await AsyncPortStream.connect(self._stub, sandbox_id, port)

    async def preview(self, sandbox_id: str, port: int, seconds: float | None = None) -> pb.CreatePreviewResponse:
        """A URL at which browsers reach an HTTP server in the sandbox; see `Client.preview`."""
        request = pb.CreatePreviewRequest(sandbox_id=sandbox_id, port=port)
        if seconds is not None:
            request.ttl.FromTimedelta(timedelta(seconds=seconds))
        with translated():
            return await self._stub.CreatePreview(request, timeout=self._call_seconds)

    async def sandbox(self, sandbox_id: str) -> pb.Sandbox:
        """One sandbox, with the egress policy in force."""
        request = pb.GetSandboxRequest(sandbox_id=sandbox_id)
        with translated():
            return (await self._stub.GetSandbox(request, timeout=self._call_seconds)).sandbox

    async def set_egress_policy(self, sandbox_id: str, policy: pb.EgressPolicy) -> pb.EgressPolicy:
        """Replaces the whole egress policy, also while execs run; answers the one in force."""
        request = pb.SetEgressPolicyRequest(sandbox_id=sandbox_id, policy=policy)
        with translated():
            return (await self._stub.SetEgressPolicy(request, timeout=self._call_seconds)).policy

    def egress(
        self,
        sandbox_id: str,
        *,
        exec_id: str = "",
        verdict: pb.EgressVerdict.ValueType = pb.EGRESS_VERDICT_UNSPECIFIED,
        after_sequence: int = 0,
        follow: bool = False,
    ) -> AsyncIterator[pb.EgressRecord]:
        """What the doors decided about a sandbox, oldest first; see `Client.egress`."""
        request = pb.ListEgressRequest(
            sandbox_id=sandbox_id, exec_id=exec_id, verdict=verdict, after_sequence=after_sequence, follow=follow
        )
        return async_egress_records(self._stub, request, reconnect_seconds=self._reconnect_seconds)

    async def sandboxes(self) -> list[pb.Sandbox]:
        """All sandboxes, newest first."""
        with translated():
            answer = await self._stub.ListSandboxes(pb.ListSandboxesRequest(), timeout=self._call_seconds)
        return list(answer.sandboxes)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Removes a sandbox with all its files; an unknown one is fine."""
        with translated():
            await self._stub.RemoveSandbox(pb.RemoveSandboxRequest(sandbox_id=sandbox_id), timeout=self._call_seconds)

    def exec(self, sandbox_id: str, what: What, **options: Unpack[ExecOptions]) -> AsyncExec:
        """Runs a program or a command; see `Client.exec`."""
        return self._handle(exec_request(sandbox_id, what, options))

    def attach(
        self, sandbox_id: str, exec_id: str, *, after_sequence: int = 0, offsets: pb.OutputOffsets | None = None
    ) -> AsyncExec:
        """An exec that is there, from a position; from its first event by default."""
        return self._handle(attach_request(sandbox_id, exec_id, after_sequence, offsets))

    def _handle(self, request: pb.ExecRequest | pb.AttachExecRequest) -> AsyncExec:
        return AsyncExec(
            self._stub, request, reconnect_seconds=self._reconnect_seconds, call_seconds=self._call_seconds
        )

    async def get_exec(self, sandbox_id: str, exec_id: str) -> pb.Exec:
        """What is known of an exec."""
        request = pb.GetExecRequest(sandbox_id=sandbox_id, exec_id=exec_id)
        with translated():
            return (await self._stub.GetExec(request, timeout=self._call_seconds)).exec

    async def list_execs(self, sandbox_id: str, *, running_only: bool = False) -> AsyncIterator[pb.Exec]:
        """A sandbox's execs, newest first, asked for as they are needed."""
        request = pb.ListExecsRequest(sandbox_id=sandbox_id, running_only=running_only)
        while True:
            with translated():
                answer = await self._stub.ListExecs(request, timeout=self._call_seconds)
            for found in answer.execs:
                yield found
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    async def cancel(self, sandbox_id: str, exec_id: str) -> None:
        """Kills all that an exec started; one that has ended is fine."""
        request = pb.CancelExecRequest(sandbox_id=sandbox_id, exec_id=exec_id)
        with translated():
            await self._stub.CancelExec(request, timeout=self._call_seconds)

    async def resize(self, sandbox_id: str, exec_id: str, size: TerminalSize) -> None:
        """Gives an exec's terminal another size."""
        with translated():
            await self._stub.ResizeTerminal(resize_request(sandbox_id, exec_id, size), timeout=self._call_seconds)

    async def signal(self, sandbox_id: str, exec_id: str, number: int) -> None:
        """Sends a signal, as Linux numbers them, to an exec's process group."""
        request = pb.SignalExecRequest(sandbox_id=sandbox_id, exec_id=exec_id, signal=number)
        with translated():
            await self._stub.SignalExec(request, timeout=self._call_seconds)

    async def lock(self, sandbox_id: str, exec_id: str = "") -> pb.GetLockResponse:
        """The lockfile of an exec's environment; of the newest that has one by default."""
        request = pb.GetLockRequest(sandbox_id=sandbox_id, exec_id=exec_id)
        with translated():
            return await self._stub.GetLock(request, timeout=self._call_seconds)

    async def sbom(
        self,
        sandbox_id: str,
        exec_id: str = "",
        sbom_format: pb.SbomFormat.ValueType = pb.SBOM_FORMAT_CYCLONEDX_1_6,
    ) -> bytes:
        """The SBOM of an exec as JSON; of the newest that ran by default."""
        request = pb.GetSbomRequest(sandbox_id=sandbox_id, exec_id=exec_id, format=sbom_format)
        with translated():
            chunks = [answer.chunk async for answer in self._stub.GetSbom(request, timeout=self._call_seconds)]
        return b"".join(chunks)

    async def diff(self, before: pb.LockReference, after: pb.LockReference) -> pb.DiffLocksResponse:
        """What differs between two execs or lockfiles: packages added, removed and changed."""
        request = pb.DiffLocksRequest(before=before, after=after)
        with translated():
            return await self._stub.DiffLocks(request, timeout=self._call_seconds)

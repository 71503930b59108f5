"""Connections to ports that programs in a sandbox listen on, to be awaited."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from qila.client.errors import translated
from qila.client.port_streams import chunk_messages, header_message
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from typing import Self

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceAsyncStub


class AsyncPortStream:
    """One connection to a program, as `PortStream` is: bytes both ways, each with an end of its own.

    An asynchronous context manager. One task may send while another receives.
    """

    def __init__(self, call: Any) -> None:
        # The stubs name no public type for a call that is written to and read from.
        self._call = call

    @classmethod
    async def connect(cls, stub: GatewayServiceAsyncStub, sandbox_id: str, port: int) -> Self:
        """Opens one. QilaError: nothing listens there, or what else keeps the connection from the program."""
        call: Any = stub.ConnectPort()
        opened = cls(call)
        try:
            await opened._write(header_message(sandbox_id, port))
            with translated():
                await call.read()
        except BaseException:
            call.cancel()
            raise
        return opened

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, data: bytes) -> None:
        """Sends bytes to the program, and waits while too many are on their way. QilaError: what broke it."""
        for message in chunk_messages(data):
            await self._write(message)

    async def end(self) -> None:
        """Sends nothing more; what the program says still comes."""
        await self._write(pb.ConnectPortRequest(end=pb.PortEnd()))

    async def receive(self) -> bytes:
        """The program's next bytes, at most 64 KiB; none when it has ended its side. QilaError: what broke it."""
        with translated():
            response = await self._call.read()
        if response is grpc.aio.EOF or not response.HasField("chunk"):
            return b""
        chunk: bytes = response.chunk
        return chunk

    async def close(self) -> None:
        """Closes the connection, whatever is on its way."""
        self._call.cancel()

    async def _write(self, message: pb.ConnectPortRequest) -> None:
        try:
            with translated():
                await self._call.write(message)
        except asyncio.InvalidStateError:
            # It is over already: its status says why.
            with translated():
                await self._call.read()

"""A connection to a port of a sandbox as a pair of ways: bytes to send, bytes to receive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from qila.executor.v1 import executor_pb2 as executor
from services.gateway.ports import ExecutorPort
from services.gateway.preview.links import Target

_CHUNK_BYTES = 64 << 10
_WAITING = 4


class PortLink:
    """Opened with `open`; `close` must follow. Every method raises QilaError when the connection is gone."""

    def __init__(self, executor_port: ExecutorPort, target: Target) -> None:
        self._requests: asyncio.Queue[executor.ConnectPortRequest] = asyncio.Queue(_WAITING)
        self._requests.put_nowait(
            executor.ConnectPortRequest(header=executor.PortHeader(sandbox_id=target.sandbox_id, port=target.port))
        )
        self._responses = executor_port.connect_port(self._sent())

    async def open(self) -> None:
        """Returns when the program has taken the connection."""
        await anext(self._responses)

    async def send(self, data: bytes) -> None:
        """Sends to the program; waits while it takes nothing."""
        for start in range(0, len(data), _CHUNK_BYTES):
            await self._requests.put(executor.ConnectPortRequest(chunk=data[start : start + _CHUNK_BYTES]))

    async def receive(self) -> bytes:
        """The program's next bytes; none when it has ended its side."""
        response = await anext(self._responses, None)
        return response.chunk if response is not None else b""

    async def close(self) -> None:
        """Closes the connection."""
        await self._responses.aclose()

    async def _sent(self) -> AsyncIterator[executor.ConnectPortRequest]:
        while True:
            yield await self._requests.get()

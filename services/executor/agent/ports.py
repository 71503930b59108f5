"""Connections to ports inside a sandbox, as the executor sees them: see "Ports" in sandboxd's PROTOCOL.md."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from services.executor.agent.frames import Header, count_field, text_field
from services.executor.errors import (
    AgentUnavailableError,
    LimitError,
    PortBrokenError,
    PortClosedError,
    ProtocolError,
)

MAX_CONNECTIONS = 64
WINDOW_BYTES = 256 << 10
CHUNK_BYTES = 64 << 10
FRAMES = frozenset({"connected", "refused", "bytes", "taken", "shut", "dropped"})

Send = Callable[[Mapping[str, Any], bytes], Awaitable[None]]


class PortConnection:
    """One connection to a program; each way has its own end."""

    def __init__(self, port: int, number: int, send: Send) -> None:
        self._port = port
        self.number = number
        self._send = send
        self._chunks: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self._waiting_bytes = 0
        self._untaken = 0
        self._changed = asyncio.Event()
        self._failure: Exception | None = None
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone = False
        self._shut = False

    async def receive(self) -> bytes:
        """The program's next bytes; none at their end. PortBrokenError, AgentUnavailableError."""
        item = await self._chunks.get()
        if isinstance(item, Exception):
            raise item
        if item:
            self._waiting_bytes -= len(item)
            if not self.gone:
                await self._send({"type": "taken", "connection": self.number, "bytes": len(item)}, b"")
        return item

    async def send(self, data: bytes) -> None:
        """Carries at most 64 KiB to the program, and waits while too many are on their way. PortBrokenError,
        AgentUnavailableError.
        """  # noqa: D205 - one sentence
        while self._untaken + len(data) > WINDOW_BYTES and self._failure is None:
            self._changed.clear()
            await self._changed.wait()
        if self._failure is not None:
            raise self._failure
        self._untaken += len(data)
        await self._send({"type": "bytes", "connection": self.number}, data)

    async def shut(self) -> None:
        """Nothing more is sent to the program."""
        if self._failure is None:
            await self._send({"type": "shut", "connection": self.number}, b"")

    def hear(self, header: Header, payload: bytes) -> None:
        """Takes what sandboxd says of it. ProtocolError."""
        match header["type"]:
            case "connected":
                if not self.connected.done():
                    self.connected.set_result(None)
            case "refused":
                self.fail(_refusal(self._port, text_field(header, "error")))
            case "bytes":
                self._waiting_bytes += len(payload)
                if not payload or self._shut or self._waiting_bytes > WINDOW_BYTES:
                    raise ProtocolError("more of a connection than was taken")
                self._chunks.put_nowait(payload)
            case "taken":
                self._untaken -= count_field(header, "bytes")
                if self._untaken < 0:
                    raise ProtocolError("more taken of a connection than was sent")
                self._changed.set()
            case "shut" if self._shut:
                raise ProtocolError("a connection that was shut twice")
            case "shut":
                self._shut = True
                self._chunks.put_nowait(b"")
            case _:
                self.fail(PortBrokenError(self._port, text_field(header, "error")[:64]))

    def fail(self, error: Exception) -> None:
        """It is gone, for a reason that both ways are told."""
        self.gone = True
        self._failure = error
        self._changed.set()
        if self.connected.done():
            self._chunks.put_nowait(error)
        else:
            self.connected.set_exception(error)


class PortTable:
    """The connections to one sandbox."""

    def __init__(self, sandbox_id: str, send: Send) -> None:
        self._sandbox_id = sandbox_id
        self._send = send
        self._connections: dict[int, PortConnection] = {}
        self._next = 1

    async def connect(self, port: int) -> PortConnection:
        """Connects to a program that listens on the port. PortClosedError, LimitError, AgentUnavailableError."""
        if len(self._connections) >= MAX_CONNECTIONS:
            raise LimitError("connections to ports of one sandbox", MAX_CONNECTIONS)
        number, self._next = self._next, self._next + 1
        connection = PortConnection(port, number, self._send)
        self._connections[number] = connection
        try:
            await self._send({"type": "connect", "connection": number, "port": port}, b"")
            await connection.connected
        except BaseException:
            await self.close(connection)
            raise
        return connection

    async def close(self, connection: PortConnection) -> None:
        """Lets go of a connection; sandboxd is told unless it knows."""
        del self._connections[connection.number]
        if not connection.gone:
            # Without the control connection it is gone all the same.
            with suppress(AgentUnavailableError):
                await self._send({"type": "drop", "connection": connection.number}, b"")

    def hear(self, header: Header, payload: bytes) -> None:
        """Takes a frame of sandboxd's; one about a connection that is gone is passed over. ProtocolError."""
        connection = self._connections.get(count_field(header, "connection"))
        if connection is not None and not connection.gone:
            connection.hear(header, payload)

    def lose(self) -> None:
        """The control connection is gone, and all of these with it."""
        error = AgentUnavailableError(self._sandbox_id, "the connection broke while a port was connected")
        for connection in self._connections.values():
            connection.fail(error)


def _refusal(port: int, error: str) -> Exception:
    if error == "EMFILE":
        return LimitError("connections to ports of one sandbox", MAX_CONNECTIONS)
    return PortClosedError(port, error[:64])

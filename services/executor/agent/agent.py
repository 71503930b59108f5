"""One sandbox's agent as the executor sees it: sandboxd dials, and dials again, and whatever it says is untrusted."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import structlog

from services.executor.agent.frames import (
    MAX_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    Frame,
    Header,
    as_text,
    count_field,
    encode_frame,
    list_field,
    mapping_field,
    read_frame,
    text_field,
)
from services.executor.agent.ports import FRAMES as PORT_FRAMES
from services.executor.agent.ports import PortTable
from services.executor.errors import AgentUnavailableError, FileCallError, ProtocolError

# The second is that of images whose sandboxd knows input, terminals and signals; sandboxes of older images go on.
PROTOCOL_VERSIONS = (1, 2)
INPUT_PROTOCOL = 2
FIRST_FRAME_TIMEOUT_S = 5
# sandboxd keeps at most 1 MiB of a call's bytes on its way, and what it says of them in headers is bounded by what a
# survey may hold: more than this waiting means that it ignores its credit.
MAX_WAITING_CALL_BYTES = 8 << 20
# sandboxd has one; another comes before the executor has seen the end of the last.
MAX_CONNECTIONS = 4
_PEER_CREDENTIALS = struct.Struct("3i")

log = structlog.get_logger()


class ProcessEvents(Protocol):
    """Who hears of the processes. Each may raise ProtocolError, which ends the connection."""

    def welcome(self, processes: Sequence[Header]) -> Mapping[str, Mapping[str, int]]:
        """A connection begins: what sandboxd has. Returns the offsets stored of each process to go on with."""

    def connected(self) -> None:
        """The connection is in use from now on."""

    def started(self, process_id: str) -> None:
        """The leader runs."""

    def output(self, process_id: str, stream: str, offset: int, data: bytes) -> Mapping[str, int]:
        """Bytes came. Returns what is stored of each stream."""

    def input(self, process_id: str, header: Header) -> None:
        """What sandboxd has of a process's input."""

    def ended(self, process_id: str, header: Header) -> None:
        """The leader's end."""

    def disconnected(self) -> None:
        """The connection is gone."""


class Call:
    """One call: an iterator over its data, and its result."""

    def __init__(self, agent: Agent, number: int, path: str) -> None:
        self._agent = agent
        self._number = number
        self._path = path
        self._waiting: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._waiting_bytes = 0
        self.finished = False

    def feed(self, frame: Frame) -> None:
        """Takes an answer from the connection."""
        self._waiting_bytes += frame.size
        if self._waiting_bytes > MAX_WAITING_CALL_BYTES:
            raise ProtocolError("more of a call than its credit allows")
        self._waiting.put_nowait(frame)

    def lose(self) -> None:
        """The connection is gone."""
        self._waiting.put_nowait(None)

    async def send_chunk(self, data: bytes) -> None:
        """Sends bytes of an upload, at most 64 KiB, and waits while the socket is full."""
        await self._agent.send_and_drain({"type": "chunk", "call": self._number}, data)

    async def send_last_chunk(self, sha256: str) -> None:
        """Says that an upload is whole, and its SHA-256; empty if its sender gave none."""
        await self._agent.send_and_drain({"type": "chunk", "call": self._number, "last": True, "sha256": sha256})

    async def next(self) -> tuple[Header, bytes] | None:
        """The next data, or None when `result` is there. FileCallError, AgentUnavailableError."""
        item = await self._waiting.get()
        if item is None:
            self.finished = True
            raise AgentUnavailableError(self._agent.sandbox_id, "the connection broke during a call")
        header, payload, size = item
        self._waiting_bytes -= size
        if payload:
            self._agent.send({"type": "credit", "call": self._number, "bytes": len(payload)})
        if header["type"] == "data":
            return header, payload
        self.finished = True
        if header["type"] == "error":
            raise FileCallError(text_field(header, "kind"), self._path, text_field(header, "message"))
        self.header = header
        return None

    async def result(self) -> Header:
        """The result of a call whose data are of no interest, or have all been read."""
        while not self.finished:
            await self.next()
        return self.header


class Agent:
    """The control socket of one sandbox, its connection, and the calls under way."""

    def __init__(self, sandbox_id: str, events: ProcessEvents) -> None:
        self.sandbox_id = sandbox_id
        self.toolchains: dict[str, str] = {}
        # What sandboxd of the sandbox's image speaks; 0 before it came.
        self.protocol = 0
        self._events = events
        self._writer: asyncio.StreamWriter | None = None
        self._calls: dict[int, Call] = {}
        self._next_call = 1
        self._connected = asyncio.Event()
        self._acknowledge: dict[str, Mapping[str, int]] = {}
        self._server: asyncio.Server | None = None
        self._connections = 0
        self.ports = PortTable(sandbox_id, self.send_and_drain)

    async def listen(self, listener: socket.socket) -> None:
        """Accepts sandboxd on a bound and listening unix socket, which it owns from now on."""
        self._server = await asyncio.start_unix_server(
            self._accept, sock=listener, limit=MAX_HEADER_BYTES + MAX_PAYLOAD_BYTES
        )

    async def close(self) -> None:
        """Ends the connection and the listener."""
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.close()

    def hang_up(self) -> None:
        """Ends the connection; sandboxd may dial again."""
        if self._writer is not None:
            self._writer.close()
            self._forget_connection()

    @property
    def is_connected(self) -> bool:
        """Whether sandboxd is there."""
        return self._connected.is_set()

    async def wait_connected(self, timeout_s: float) -> None:
        """AgentUnavailableError if sandboxd does not come in time."""
        try:
            await asyncio.wait_for(self._connected.wait(), timeout_s)
        except TimeoutError:
            raise AgentUnavailableError(self.sandbox_id, f"it did not connect within {timeout_s:.0f} s") from None

    def send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Sends a frame. AgentUnavailableError if there is no connection."""
        if self._writer is None or not self._connected.is_set():
            raise AgentUnavailableError(self.sandbox_id, "it is not connected")
        self._writer.write(encode_frame(header, payload))

    async def send_and_drain(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Sends a frame and waits while the socket's buffer is full."""
        self.send(header, payload)
        assert self._writer is not None
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise AgentUnavailableError(self.sandbox_id, "the connection broke during a call") from error

    @asynccontextmanager
    async def call(self, op: str, **fields: Any) -> AsyncIterator[Call]:
        """Makes a call; leaving the block before its end drops it."""
        number, self._next_call = self._next_call, self._next_call + 1
        call = Call(self, number, str(fields.get("path", "")))
        self.send({"type": "call", "call": number, "op": op, **fields})
        self._calls[number] = call
        try:
            yield call
        finally:
            self._calls.pop(number, None)
            if not call.finished and self.is_connected:
                self.send({"type": "abort", "call": number})

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The listener was bound on behalf of some call; the connection belongs to none.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(sandbox_id=self.sandbox_id)
        self._connections += 1
        try:
            await self._converse(reader, writer)
        except ProtocolError as error:
            log.warning("agent broke its protocol", sandbox_id=self.sandbox_id, detail=error.detail)
        except ConnectionError as error:
            log.info("agent connection broke", sandbox_id=self.sandbox_id, detail=str(error))
        except OSError as error:
            # The host's disk is full: sandboxd dials again and sends again what was not stored; its programs wait.
            log.error("what a sandbox says cannot be stored", sandbox_id=self.sandbox_id, error=str(error))  # noqa: TRY400 - no fault of the code
        finally:
            self._connections -= 1
            if self._writer is writer:
                self._forget_connection()
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if _peer_uid(writer) != 0:
            raise ProtocolError("a peer that is not root of the sandbox")
        if self._connections > MAX_CONNECTIONS:
            raise ProtocolError("more connections than sandboxd has")
        try:
            first = await asyncio.wait_for(read_frame(reader), FIRST_FRAME_TIMEOUT_S)
        except TimeoutError:
            raise ProtocolError("no welcome in time") from None
        if first is None:
            return
        header = first.header
        if header["type"] != "welcome" or count_field(header, "protocol") not in PROTOCOL_VERSIONS:
            raise ProtocolError("a first frame that is no welcome of a known version")
        self.hang_up()
        self.toolchains = {
            as_text(k, "toolchains"): as_text(v, k) for k, v in mapping_field(header, "toolchains").items()
        }
        self.protocol = count_field(header, "protocol")
        resume = self._events.welcome(list_field(header, "processes"))
        writer.write(encode_frame({"type": "resume", "processes": {k: dict(v) for k, v in resume.items()}}))
        self._writer = writer
        self._connected.set()
        self._events.connected()
        # What came before it was hung up, and was not read, is not listened to.
        while (frame := await read_frame(reader)) is not None and self._writer is writer:
            self._dispatch(frame)

    def _dispatch(self, frame: Frame) -> None:
        header = frame.header
        match header["type"]:
            case "output":
                process_id = text_field(header, "process")
                stored = self._events.output(
                    process_id, text_field(header, "stream"), count_field(header, "offset"), frame.payload
                )
                if not self._acknowledge:
                    asyncio.get_running_loop().call_soon(self._send_acknowledgements)
                self._acknowledge[process_id] = stored
            case "started":
                self._events.started(text_field(header, "process"))
            case "input":
                self._events.input(text_field(header, "process"), header)
            case "ended":
                self._events.ended(text_field(header, "process"), header)
            case "data" | "result" | "error":
                call = self._calls.get(count_field(header, "call"))
                if call is not None:
                    call.feed(frame)
            case kind if kind in PORT_FRAMES:
                self.ports.hear(header, frame.payload)
            case other:
                raise ProtocolError(f"a frame of unknown type {other[:40]!r}")

    def _send_acknowledgements(self) -> None:
        """Once per turn of the loop: many small frames cost one acknowledgement."""
        rows, self._acknowledge = self._acknowledge, {}
        if self.is_connected:
            for process_id, stored in rows.items():
                self.send({"type": "ack", "process": process_id, **stored})

    def _forget_connection(self) -> None:
        self._writer = None
        self._connected.clear()
        for call in self._calls.values():
            call.lose()
        self.ports.lose()
        self._events.disconnected()


def bind_listener(path: Path) -> socket.socket:
    """A listening unix socket of mode 0600; one that a dead executor left is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The new file takes over the socket's own mode: at no moment may programs, which can see its directory, connect.
    os.fchmod(listener.fileno(), 0o600)
    listener.bind(str(path))
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    peer = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    return int(_PEER_CREDENTIALS.unpack(credentials)[1])

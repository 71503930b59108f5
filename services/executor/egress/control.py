"""The channel between the executor and the doors: JSON messages over SOCK_SEQPACKET, with file descriptors."""

import array
import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_MESSAGE_BYTES = 64 * 1024


class ChannelClosed(Exception):
    """The other side is gone."""


class InvalidMessage(Exception):
    """The other side broke the protocol; nothing more it says can be understood."""

    def __init__(self, *, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"invalid control message: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message; `descriptor` now belongs to the receiver, who must close it."""

    type: str
    fields: dict[str, Any]
    descriptor: int | None = None


class ControlChannel:
    """One end of the channel. One task may receive; any number may send."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._send_lock = asyncio.Lock()

    async def send(self, message: Mapping[str, object], descriptor: int | None = None) -> None:
        """Send one message, waiting while the other side is slow.

        Raises:
            ChannelClosed: the other side is gone.
            InvalidMessage: the message is over 64 KiB.
        """
        packet = json.dumps(message, separators=(",", ":")).encode("ascii")
        if len(packet) > MAX_MESSAGE_BYTES:
            raise InvalidMessage(problem=f"{len(packet)} bytes")
        ancillary = []
        if descriptor is not None:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        async with self._send_lock:
            while True:
                try:
                    self._socket.sendmsg([packet], ancillary)
                except BlockingIOError:
                    loop = asyncio.get_running_loop()
                    await self._ready(loop.add_writer, loop.remove_writer)
                except OSError as error:
                    raise ChannelClosed from error
                else:
                    return

    async def receive(self) -> Message | None:
        """The next message, or None when the other side has closed.

        Raises:
            InvalidMessage: the message is too long, no JSON object with a `type`, or carries several descriptors.
        """
        while True:
            try:
                # One byte and two descriptors too many are asked for, so that an excess is seen and refused. Not
                # socket.recv_fds: it drops the flags, and the descriptors would leak into child processes.
                packet, ancillary, flags, _ = self._socket.recvmsg(
                    MAX_MESSAGE_BYTES + 1, socket.CMSG_LEN(3 * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._ready(loop.add_reader, loop.remove_reader)
                continue
            except OSError:
                return None
            return _parse(packet, _descriptors(ancillary), flags) if packet else None

    def close(self) -> None:
        """Close this end; no send or receive may be under way."""
        self._socket.close()

    async def _ready(self, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        descriptor = self._socket.fileno()
        add(descriptor, _settle, ready)
        try:
            await ready
        finally:
            remove(descriptor)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return list(descriptors)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _parse(packet: bytes, descriptors: list[int], flags: int) -> Message:
    try:
        kind, fields = _decode(packet, flags, len(descriptors))
    except InvalidMessage:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return Message(type=kind, fields=fields, descriptor=descriptors[0] if descriptors else None)


def _decode(packet: bytes, flags: int, descriptor_count: int) -> tuple[str, dict[str, Any]]:
    if len(packet) > MAX_MESSAGE_BYTES or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise InvalidMessage(problem="too long")
    if descriptor_count > 1:
        raise InvalidMessage(problem="several descriptors")
    try:
        fields = json.loads(packet)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(problem="no JSON") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise InvalidMessage(problem="no object with a type")
    return fields.pop("type"), fields

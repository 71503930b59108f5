"""Connections from outside to ports that programs listen on: bytes, carried by the first process and never read."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from .loop import READ, WRITE, Loop, Timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from .frames import Header

MAXIMUM_CONNECTIONS = 64
# Bytes on their way in one direction of one connection, that the other side has not taken.
WINDOW_BYTES = 256 << 10
_READ_BYTES = 1 << 16
_CONNECT_SECONDS = 5.0
_ADDRESSES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class PortConnection:
    """One connection. `pending` is what the program has not taken; each way ends by itself.

    Args:
        loop: the first process's.
        number: by which the executor names it.
        send: sends a frame about it.
        has_room: whether the control connection takes bulk now.
        closed: called once, when nothing more will be said.
    """

    def __init__(
        self,
        loop: Loop,
        number: int,
        send: Callable[[Header, bytes], None],
        has_room: Callable[[], bool],
        closed: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._number = number
        self._send = send
        self._has_room = has_room
        self._closed = closed
        self._socket: socket.socket | None = None
        self._addresses = list(_ADDRESSES)
        self._is_open = False
        self._pending = bytearray()
        self._untaken = 0
        self._in_ended = False
        self._is_shut = False
        self._out_ended = False
        # Of writing. What the program said before it broke off is still to be read.
        self._failure: OSError | None = None
        self._timer: Timer | None = None

    def dial(self, port: int) -> None:
        """Begin to connect, at the next address that is left."""
        family, address = self._addresses.pop(0)
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self._refuse(port, error.errno or errno.EIO)
            return
        self._socket.setblocking(False)
        failure = self._socket.connect_ex((address, port))
        if failure not in (0, errno.EINPROGRESS):
            self._refuse(port, failure)
            return
        self._timer = self._loop.later(_CONNECT_SECONDS, lambda: self._refuse(port, errno.ETIMEDOUT))
        self._loop.watch(self._socket.fileno(), WRITE, lambda _events: self._connected(port))

    def take(self, payload: bytes) -> None:
        """Carry bytes to the program."""
        if self._failure is None:
            self._pending += payload
            self._flush()

    def credit(self, count: int) -> None:
        """The executor has taken so many bytes of the program's."""
        self._untaken -= count
        self.watch()

    def end(self) -> None:
        """Nothing more comes for the program."""
        self._in_ended = True
        self._flush()

    def close(self) -> None:
        """Let go of it; nothing is said."""
        self._close_socket()
        self._closed(self._number)

    def watch(self) -> None:
        """Read the program only while the executor takes what it says."""
        if self._socket is None or not self._is_open:
            return
        reads = not self._out_ended and self._untaken + _READ_BYTES <= WINDOW_BYTES and self._has_room()
        events = (READ if reads else 0) | (WRITE if self._pending else 0)
        if events:
            self._loop.watch(self._socket.fileno(), events, self._ready)
        else:
            self._loop.unwatch(self._socket.fileno())

    def _refuse(self, port: int, failure: int) -> None:
        self._close_socket()
        if self._addresses and failure == errno.ECONNREFUSED:
            self.dial(port)
            return
        self._tell("refused", error=errno.errorcode.get(failure, "EIO"))
        self._closed(self._number)

    def _close_socket(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _connected(self, port: int) -> None:
        assert self._socket is not None
        failure = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            self._refuse(port, failure)
            return
        if self._socket.getsockname() == self._socket.getpeername():
            # Nobody listens: the kernel chose the very port as ours, and connected it with itself.
            self._refuse(port, errno.ECONNREFUSED)
            return
        assert self._timer is not None
        self._timer.cancel()
        self._is_open = True
        self._tell("connected")
        self._flush()

    def _ready(self, events: int) -> None:
        try:
            if events & READ and self._socket is not None and not self._out_ended:
                self._receive(self._socket)
            if events & WRITE:
                self._flush()
        except OSError as error:
            self._break(error)

    def _receive(self, program: socket.socket) -> None:
        try:
            data = program.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._untaken += len(data)
            self._tell("bytes", data)
        elif self._failure is not None:
            self._break(self._failure)
        else:
            self._out_ended = True
            self._tell("shut")
        self._settle()

    def _flush(self) -> None:
        if self._socket is None or not self._is_open or self._failure is not None:
            return
        taken = 0
        try:
            while self._pending:
                count = self._socket.send(self._pending)
                del self._pending[:count]
                taken += count
            if self._in_ended and not self._is_shut:
                self._is_shut = True
                self._socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(error)
            return
        if taken:
            self._tell("taken", bytes=taken)
        self._settle()

    def _settle(self) -> None:
        if self._in_ended and self._out_ended and not self._pending:
            self.close()
        else:
            self.watch()

    def _fail(self, error: OSError) -> None:
        self._failure = error
        self._pending.clear()
        if self._out_ended:
            self._break(error)
        else:
            self.watch()

    def _break(self, error: OSError) -> None:
        if self._socket is not None:
            self._tell("dropped", error=errno.errorcode.get(error.errno or 0, "EIO"))
            self.close()

    def _tell(self, kind: str, payload: bytes = b"", **fields: str | int) -> None:
        self._send({"type": kind, "connection": self._number, **fields}, payload)


class Ports:
    """All of them, and what the executor says of them.

    Args:
        loop: the first process's.
        send: sends a frame to the executor.
        has_room: whether the connection takes bulk now.
    """

    def __init__(self, loop: Loop, send: Callable[[Header, bytes], None], has_room: Callable[[], bool]) -> None:
        self._loop = loop
        self._send = send
        self._has_room = has_room
        self._connections: dict[int, PortConnection] = {}

    def connect(self, header: Header) -> None:
        """Connect to a port, or say why not."""
        number, port = int(header["connection"]), int(header["port"])
        if number in self._connections:
            raise ValueError(f"connection {number} is there")
        if len(self._connections) >= MAXIMUM_CONNECTIONS:
            self._send({"type": "refused", "connection": number, "error": "EMFILE"}, b"")
            return
        connection = PortConnection(self._loop, number, self._send, self._has_room, self._forget)
        self._connections[number] = connection
        connection.dial(port)

    def tell(self, header: Header, payload: bytes) -> None:
        """Carry what the executor says of a connection; of one that has ended by itself it may not know yet."""
        connection = self._connections.get(header["connection"])
        if connection is None:
            return
        match header["type"]:
            case "bytes":
                connection.take(payload)
            case "taken":
                connection.credit(int(header["bytes"]))
            case "shut":
                connection.end()
            case _:
                connection.close()

    def pump(self) -> None:
        """The control connection takes bulk again, or no more."""
        for connection in list(self._connections.values()):
            connection.watch()

    def drop_all(self) -> None:
        """The executor has gone, and with it whoever was connected."""
        for connection in list(self._connections.values()):
            connection.close()
        self._connections.clear()

    def _forget(self, number: int) -> None:
        self._connections.pop(number, None)

"""The nursery: a child of the first process that forks the supervisors.

A fork makes parent and child share their memory, and whoever writes to a shared page first has to copy it. The first
process, which has much to write while a program starts, shares with nobody: the nursery sleeps meanwhile.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket

from . import forking
from .supervisor import Supervisor

_DESCRIPTORS = 4
_MESSAGE_BYTES = 64


class NurseryLostError(Exception):
    """The nursery has ended: somebody must have killed it."""


class Spare:
    """A supervisor that waits for its program: its orders, its leader's, and the readers of stdout and stderr."""

    def __init__(self, descriptors: list[int]) -> None:
        self.orders = socket.socket(fileno=descriptors[0])
        self.leader = socket.socket(fileno=descriptors[1])
        self.readers = (descriptors[2], descriptors[3])
        for reader in self.readers:
            os.set_blocking(reader, False)


class Nursery:
    """Where the first process gets its supervisors from. One may be ordered ahead; it waits in the socket."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._is_ordered = False

    def order(self) -> None:
        """Have a supervisor made, unless one is already; whatever is in the way is told by `take`."""
        if self._is_ordered:
            return
        try:
            self._connected().send(b"1")
            self._is_ordered = True
        except OSError:
            self._close()

    def take(self) -> Spare:
        """Return the supervisor that was ordered, or a new one.

        Raises:
            OSError: no process is left (EAGAIN, at the container's limit) or no memory.
        """
        ahead = self._is_ordered
        try:
            return self._take()
        except NurseryLostError:
            self._close()
        except OSError:
            # It was so when it was ordered; now it need not be.
            if not ahead:
                raise
        try:
            return self._take()
        except NurseryLostError as error:
            self._close()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error

    def _take(self) -> Spare:
        try:
            connection = self._connected()
            if not self._is_ordered:
                connection.send(b"1")
            message, descriptors, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, _DESCRIPTORS)
        except ConnectionError as error:
            raise NurseryLostError from error
        self._is_ordered = False
        if len(descriptors) == _DESCRIPTORS:
            return Spare(descriptors)
        if not message:
            raise NurseryLostError
        code = int(message)
        raise OSError(code, os.strerror(code))

    def _connected(self) -> socket.socket:
        if self._socket is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                try:
                    forking.fork(lambda: _serve(theirs), {theirs.fileno()})
                except OSError:
                    ours.close()
                    raise
            self._socket = ours
        return self._socket

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._is_ordered = False


def _serve(orders: socket.socket) -> None:
    """Answer each order with a supervisor's descriptors, or with the number of the error that was in the way."""
    # The kernel reaps them: each tells the first process itself how things stand, and ends when its socket does.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A look of the collector writes to all that it sees.
    gc.disable()
    while orders.recv(_MESSAGE_BYTES):
        try:
            descriptors = _make()
        except OSError as error:
            orders.send(str(error.errno or errno.EAGAIN).encode())
            continue
        socket.send_fds(orders, [b"0"], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _make() -> list[int]:
    """Fork a supervisor; return our ends of its sockets and pipes, as `Spare` takes them."""
    ours, theirs = (end.detach() for end in socket.socketpair())
    leader, leaders = (end.detach() for end in socket.socketpair())
    pipes = (os.pipe(), os.pipe())
    kept = [ours, leader, pipes[0][0], pipes[1][0]]
    given = [theirs, leaders, pipes[0][1], pipes[1][1]]

    def run() -> None:
        Supervisor(socket.socket(fileno=theirs), socket.socket(fileno=leaders), *given[2:]).run()

    try:
        forking.fork(run, set(given))
    except OSError:
        for descriptor in kept:
            os.close(descriptor)
        raise
    finally:
        for descriptor in given:
            os.close(descriptor)
    return kept

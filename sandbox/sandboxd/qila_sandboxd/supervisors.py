"""The supervisors' other end: where the first process gets one, gives it its order, and hears what it reports.

A supervisor is a program of its own, `supervisor.c`: root, and the parent of one program and of all its orphans. It is
spawned, not forked: so the first process never has to copy a page of its memory because somebody shares it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAM = "/usr/lib/qila/supervisor"
# As in supervisor.c: `struct order`, `struct demand` and `struct report`.
_ORDER = struct.Struct("=5I")
_DEMAND = struct.Struct("=3i")
_REPORT = struct.Struct("=3i")
_BACKGROUND, _INPUT, _TERMINAL, _MERGED = 1, 2, 4, 8
STARTED, FAILED, LEADER, SWEPT = 1, 2, 3, 4
_KILL = _DEMAND.pack(0, 0, 0)


@dataclass(frozen=True)
class Order:
    """What a leader becomes, with its complete environment. `size` is that of its terminal, rows and columns."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    user: int
    background: bool
    stdin: bool = False
    merged: bool = False
    size: tuple[int, int] | None = None

    def packed(self) -> bytes:
        """Return the order's bytes.

        Raises:
            ValueError: a text that no program can be given.
        """
        texts = [self.cwd, *self.argv, *map(_variable, self.env.items())]
        encoded = [os.fsencode(text) for text in texts]
        for text in encoded:
            if b"\0" in text:
                raise ValueError("embedded null byte")
        data = b"\0".join(encoded) + b"\0"
        return _ORDER.pack(len(data), self.user, self._flags(), len(self.argv), len(self.env)) + data

    def _flags(self) -> int:
        if self.size is not None:
            return self.background | _TERMINAL
        return self.background | (self.stdin and _INPUT) | (self.merged and _MERGED)

    def stage(self, number: int) -> str:
        """What was being done when it failed, as a supervisor reports it."""
        return ("preparing the process", f"working directory {self.cwd}", f"program {self.argv[0]}")[number]


class Supervisor:
    """A supervisor, and the readers of its program's stdout and stderr."""

    def __init__(self, orders: socket.socket, readers: tuple[int, int]) -> None:
        self.orders = orders
        self.readers = readers

    @property
    def is_spoilt(self) -> bool:
        """Whether it cannot take an order: somebody killed it, or what it keeps for the program, or it has no room."""
        try:
            self.orders.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return False
        # Without an order it has nothing to say but that.
        return True

    def start(self, order: bytes, descriptor: int | None = None) -> None:
        """Have it start its program, with its input or terminal; if it is gone, that is what will be read from it."""
        with contextlib.suppress(ConnectionError):
            if descriptor is not None:
                socket.send_fds(self.orders, [order[: _ORDER.size]], [descriptor])
                order = order[_ORDER.size :]
            self.orders.sendall(order)

    def kill(self) -> None:
        """Have it kill the whole lineage; one that has just exited has nobody left to kill."""
        with contextlib.suppress(ConnectionError):
            self.orders.sendall(_KILL)

    def signal(self, number: int, group: int, session: int) -> None:
        """Have it signal the leader's group, or the one in the foreground of the leader's terminal."""
        with contextlib.suppress(ConnectionError):
            self.orders.sendall(_DEMAND.pack(number, group, session))

    def reports(self) -> Iterator[tuple[int, int, int]] | None:
        """Take what it has reported, as (kind, value, detail), each of which came whole; None when it has ended."""
        try:
            data = self.orders.recv(1 << 12)
        except ConnectionResetError:
            # It exited without having read a kill order that came too late.
            data = b""
        return _REPORT.iter_unpack(data) if data else None

    def close(self) -> None:
        """Let go of it; the readers stay."""
        self.orders.close()

    def close_readers(self) -> None:
        """Let go of the program's pipes."""
        for reader in self.readers:
            os.close(reader)


class Supervisors:
    """Where supervisors come from. One may be made ahead."""

    def __init__(self) -> None:
        self._spare: Supervisor | None = None

    def prepare(self) -> None:
        """Have one ready, unless there is one; whatever is in the way is told by `take`."""
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = _spawn()

    def take(self) -> Supervisor:
        """Return the one that is ready, or a new one.

        Raises:
            OSError: no process is left (EAGAIN, at the container's limit) or no memory.
        """
        spare, self._spare = self._spare, None
        if spare is None:
            return _spawn()
        if not spare.is_spoilt:
            return spare
        spare.close()
        spare.close_readers()
        return _spawn()


def _spawn() -> Supervisor:
    ours, theirs = socket.socketpair()
    with theirs, contextlib.ExitStack() as failed:
        failed.callback(ours.close)
        stdout, stderr = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        for reader in (stdout[0], stderr[0]):
            failed.callback(os.close, reader)
            os.set_blocking(reader, False)
        places = enumerate((theirs.fileno(), stdout[1], stderr[1]))
        try:
            os.posix_spawn(
                _PROGRAM, [_PROGRAM], {}, file_actions=[(os.POSIX_SPAWN_DUP2, end, place) for place, end in places]
            )
        finally:
            os.close(stdout[1])
            os.close(stderr[1])
        failed.pop_all()
    return Supervisor(ours, (stdout[0], stderr[0]))


def _variable(item: tuple[str, str]) -> str:
    name, value = item
    if not name or "=" in name[1:]:
        raise ValueError("illegal environment variable name")
    return f"{name}={value}"

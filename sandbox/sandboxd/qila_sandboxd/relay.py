"""The relay: from 127.0.0.1 inside the sandbox to the doors' socket, in a process of its own without any capability."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from . import linux
from .loop import READ, WRITE, Loop

ADDRESS = "127.0.0.1"
PORTS = {"mirror": 7480, "connect": 7481}
DOORS = "/run/qila/doors.sock"
MAXIMUM_CONNECTIONS = 256
UNKNOWN_USER = 65534
_RECEIVE_BYTES = 1 << 18


def listen() -> dict[str, socket.socket]:
    """Bind the port of each door. The first process keeps them, so that no program takes one while a relay restarts."""
    return {door: _listen(port) for door, port in PORTS.items()}


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((ADDRESS, port))
    listener.listen(MAXIMUM_CONNECTIONS)
    listener.setblocking(False)
    return listener


def owner(address: tuple[str, int], port: int, tables: tuple[str, ...] = ("/proc/net/tcp", "/proc/net/tcp6")) -> int:
    """The user whose socket is connected from `address` to our `port`; UNKNOWN_USER if that cannot be told."""
    remote = f":{port:04X}"
    local = f"{socket.inet_aton(address[0])[::-1].hex().upper()}:{address[1]:04X}"
    for table in tables:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            # A socket that its owner has closed is shown as root's, with inode 0.
            if fields[1].endswith(local) and fields[2].endswith(remote) and fields[9] != "0":
                return int(fields[7])
    return UNKNOWN_USER


class _End:
    """One end of a carried connection. `pending` is what its peer's bytes wait here to be sent."""

    def __init__(self, connection: socket.socket, pending: bytes = b"") -> None:
        self.connection = connection
        self.pending = memoryview(pending)
        self.has_ended = False
        self.is_shut = False


class _Link:
    """One connection, carried both ways; each way ends by itself."""

    def __init__(self, relay: Relay, client: socket.socket, door: socket.socket, preamble: bytes) -> None:
        self._relay = relay
        self._client = _End(client)
        self._door = _End(door, preamble)
        self._on_client = lambda events: self._ready(self._client, self._door, events)
        self._on_door = lambda events: self._ready(self._door, self._client, events)
        self._watch()

    def _ready(self, end: _End, peer: _End, events: int) -> None:
        try:
            if events & WRITE:
                self._send(end)
            if events & READ and not peer.pending and not end.has_ended:
                self._receive(end, peer)
        except (ConnectionError, TimeoutError):
            self._close()
            return
        if self._client.is_shut and self._door.is_shut:
            self._close()
        else:
            self._watch()

    def _receive(self, end: _End, peer: _End) -> None:
        try:
            data = end.connection.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        end.has_ended = not data
        peer.pending = memoryview(data)
        self._send(peer)

    def _send(self, end: _End) -> None:
        with contextlib.suppress(BlockingIOError):
            while end.pending:
                end.pending = end.pending[end.connection.send(end.pending) :]
        peer = self._door if end is self._client else self._client
        if peer.has_ended and not end.pending and not end.is_shut:
            end.is_shut = True
            with contextlib.suppress(OSError):
                end.connection.shutdown(socket.SHUT_WR)

    def _watch(self) -> None:
        for end, peer, callback in (
            (self._client, self._door, self._on_client),
            (self._door, self._client, self._on_door),
        ):
            events = (WRITE if end.pending else 0) | (0 if end.has_ended or peer.pending else READ)
            if events:
                self._relay.loop.watch(end.connection.fileno(), events, callback)
            else:
                self._relay.loop.unwatch(end.connection.fileno())

    def _close(self) -> None:
        for end in (self._client, self._door):
            self._relay.loop.unwatch(end.connection.fileno())
            end.connection.close()
        self._relay.closed()


class Relay:
    """Accepts connections at each door's listener and carries them to the doors' one socket."""

    def __init__(self, listeners: Mapping[str, socket.socket], doors: str = DOORS) -> None:
        self.loop = Loop()
        self._listeners = {door: (listener, self._acceptor(door, listener)) for door, listener in listeners.items()}
        self._doors = doors
        self._open = 0
        self._watch()

    def run(self) -> None:
        """Carry until killed."""
        while True:
            self.loop.run_once()

    def closed(self) -> None:
        """A connection has ended."""
        self._open -= 1
        self._watch()

    def _watch(self) -> None:
        for listener, accept in self._listeners.values():
            if self._open < MAXIMUM_CONNECTIONS:
                self.loop.watch(listener.fileno(), READ, accept)
            else:
                self.loop.unwatch(listener.fileno())

    def _acceptor(self, door: str, listener: socket.socket) -> Callable[[int], None]:
        return lambda _events: self._accept(door, listener)

    def _accept(self, name: str, listener: socket.socket) -> None:
        try:
            client, address = listener.accept()
        except OSError:
            # It went before we came.
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        door.setblocking(False)
        try:
            door.connect(self._doors)
        except OSError:
            # No doors, no way out.
            client.close()
            door.close()
            return
        self._open += 1
        _Link(self, client, door, f"QILA1 {name} {owner(address, PORTS[name])}\n".encode())
        self._watch()


def run(listeners: Mapping[str, socket.socket]) -> None:
    """What the relay's process does."""
    linux.drop_capabilities()
    Relay(listeners).run()
